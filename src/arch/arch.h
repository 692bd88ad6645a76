// What a CPU must provide to the layers above: registers, the batch loop, extended state, the stub.
// One folder per CPU implements these declarations; nothing above includes a folder directly.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include "arch/x86_64/registers.h"
#else
#error "this CPU has no folder in src/arch yet"
#endif

namespace stasis::arch {

// ---- registers -------------------------------------------------------------------------------------------
//
// A CPU may run code of two widths, and this program be of the wider one. Registers tell which one their thread runs
// (is_compat()); system calls of the narrower one have numbers of their own.

// The registers of a stopped thread, whatever code it runs. An errno, or 0.
int read_registers(pid_t tid, Registers& regs);
int write_registers(pid_t tid, const Registers& regs);

// The first address that is not a program's own.
uint64_t address_end(bool compat, uint64_t personality);

// How a stopped thread left the kernel (signal(7), "Interruption of system calls").
enum class Interrupted {
  no,             // not in a system call, or the call had finished
  restart,        // -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND: the same call is to be made again
  restart_block,  // -ERESTART_RESTARTBLOCK: restart_syscall(2) goes on with the remaining time
};
Interrupted interrupted_call(const Registers& regs);
// The number of the interrupted call; valid unless interrupted_call() is `no`.
uint64_t interrupted_call_number(const Registers& regs);
// The number of restart_syscall(2) for that thread.
uint64_t restart_call_number(const Registers& regs);

// A system call as the same one of this program's width.
struct CallForm {
  uint64_t number = 0;
  bool time32 = false;  // a struct timespec among its arguments has 32-bit fields
};
// Nothing for calls that this program's width has not, or which are of no interest to who asks: only calls that wait
// are known.
std::optional<CallForm> native_form(uint64_t number, bool compat);

// Does by hand what the kernel does when a thread is released from a signal or event stop: makes the registers
// go back to the call instruction, so that they can be loaded from any kind of stop. No call is pending afterwards.
void rewind_interrupted_call(Registers& regs);
// The same for a thread whose restart block does not exist any more, or that should start the original call anew.
void rewind_to_call(Registers& regs, uint64_t number);
// For registers that stand at the instruction of an interrupted call: behind it, with a result.
void finish_rewound_call(Registers& regs, int64_t result);
// Some calls report EINTR after any stop, although no handler has run (signal(7), the end of "Interruption of system
// calls"): epoll_wait, semop, sigtimedwait, io_getevents, sockets with a timeout ... True when such a call has just
// ended so: then the thread is made to look as in a call that the kernel itself makes again, unless a handler runs
// first.
bool restart_failed_wait(Registers& regs);

// ---- syscall batches -------------------------------------------------------------------------------------

// One system call of a batch, as the loop in the tracee reads it. The layout is the same on every CPU.
struct BatchEntry {
  uint64_t number;  // kEndOfTable ends a table
  uint64_t args[6];
  int64_t result;      // the kernel's value: negative errno on failure
  uint64_t result_to;  // address in the tracee where the result is stored too; never null (default: `result`)
  uint64_t flags;
};
static_assert(sizeof(BatchEntry) == 80);

inline constexpr uint64_t kEndOfTable = ~uint64_t{0};
// In the place of a number: loads zeros into the components args[1] of the extended state from the zeroed memory at
// args[0], touched_state_bytes() long. The kernel makes room for some components only when a thread uses them first.
inline constexpr uint64_t kTouchExtendedState = ~uint64_t{1};
// A number that includes kCompatCall is that of a call of the narrower width, whose arguments have 32 bits.
inline constexpr uint64_t kStopOnError = 1;               // a failing call ends the batch
inline constexpr uint64_t kExitIfChild = 2;               // result 0 means: I am a forked copy; leave by exit_group
inline constexpr uint64_t kLoadFirst = 4;                 // args[0] holds the address of the argument
inline constexpr uint64_t kNotRun = uint64_t(INT64_MIN);  // initial `result`: the call was not made

// The head of a thread's slot: what the loop and the heal code need. Written by the controller before the thread
// is sent into the loop.
struct SlotHead {
  Registers registers;  // as the thread must get them back: rewind_interrupted_call() applied
  uint64_t signal_mask;
  uint64_t undo_table;      // address of the entries run when no controller takes the report
  uint64_t heal_code;       // address of this slot's heal code
  uint64_t report_call[3];  // tgid, tid (both in the tracee's own pid namespace), signal (0 in step mode)
  uint64_t mask_is_own;     // not 0: the signal mask was not touched, the way home makes no call
  uint64_t compat_target;   // where code of the narrower width goes on, as set_way_home() makes it; 0: not such code
};
// Fills registers and compat_target for a thread that was stopped with `own`.
void set_way_home(SlotHead& head, const Registers& own);

// Position independent loop, shared by all slots of an area.
std::span<const std::byte> batch_loop();
// Offset in the loop of the instruction right behind the report: a thread that stops there has run its table.
size_t batch_reported_offset();

// Size of the heal code of one slot, and its bytes for given addresses.
size_t heal_code_size();
std::vector<std::byte> heal_code(uint64_t code_address, uint64_t slot_address);

// Registers that send a thread into a loop at `loop`, with its first entry and slot. Everything the loop does not
// need (stack, thread pointer, data segments) is kept from `own`. The loop is code of this program's width.
Registers batch_registers(const Registers& own, uint64_t loop, uint64_t first_entry, uint64_t slot);

// The slot that a thread in a loop works with, from its registers there.
uint64_t slot_address(const Registers& regs);

// Registers that make one system call by the call instruction right before `reported` of a loop.
Registers call_registers(const Registers& own, uint64_t reported, uint64_t number, std::span<const uint64_t> args);

// The bootstrap: loop, heal code, what that loads and a table of calls in one read-only piece, for a hole of a few
// hundred bytes at `address`. Results are not stored; the loop ends at the first failing call. The last result is read
// by bootstrap_result() from the registers of the thread that stopped at address + bootstrap_reported_offset().
struct BootstrapCall {
  uint64_t number;
  uint64_t args[6];
};
std::vector<std::byte> bootstrap_code(uint64_t address, const SlotHead& slot, std::span<const BootstrapCall> calls);
size_t bootstrap_size(size_t calls, bool compat);
// The loop that every bootstrap begins with, and the first call of the one that `text` begins with.
std::span<const std::byte> bootstrap_loop();
std::optional<BootstrapCall> first_bootstrap_call(std::span<const std::byte> text);
size_t bootstrap_reported_offset();
int64_t bootstrap_result(const Registers& regs);
Registers bootstrap_registers(const Registers& own, uint64_t address, size_t calls);

// ---- extended state --------------------------------------------------------------------------------------

// Size in bytes of the extended state (FPU, vector registers) that ptrace transfers on this CPU; asked from the CPU.
size_t extended_state_size();
// Memory that kTouchExtendedState needs for components of so many bytes together.
size_t touched_state_bytes(size_t components);

// ---- vdso ------------------------------------------------------------------------------------------------

// Code that goes on at `target`, with the arguments of a function untouched.
std::vector<std::byte> jump_to(uint64_t target);
// Code that does what a function of the vdso does by the system call it stands for; unknown ones return -ENOSYS.
std::vector<std::byte> vdso_fallback(std::string_view function);

// ---- puppets ---------------------------------------------------------------------------------------------

// A complete static ELF executable whose entry point loops for ever; restored tasks start as this program, of the width
// that theirs has: the kernel decides by it what address space a process has.
std::span<const std::byte> stub_executable(bool compat);
// Another one: waits for its children and ends when it has none, for the first process of a pid namespace.
std::span<const std::byte> init_executable();

// "x86_64", for error texts.
std::string_view name();

}  // namespace stasis::arch

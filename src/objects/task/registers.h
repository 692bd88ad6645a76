// The registers of a thread: general registers and extended state (x87, vector registers ...).
//
// They are loaded by ptrace when everything else is done; settle() makes the kernel have room for them. One source file
// per CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "arch/arch.h"
#include "objects/task_object.h"

namespace stasis {

struct CpuRegisters {
  static constexpr std::string_view name = "registers";
  static constexpr Scope scope = Scope::thread;
  // This CPU, as core images name it.
  static const pb::core_entry::march architecture;
  struct State {
    // As they can be loaded from any kind of stop: an interrupted system call is rewound to its instruction. Only a
    // call that sleeps for a relative time keeps its number: see pending_sleep().
    arch::Registers general{};
    std::vector<std::byte> extended;  // as ptrace transfers them on this CPU
    // The kernel's restart code of a call that was rewound (512 to 514); 0: none was, or nobody knows.
    uint32_t restart_code = 0;
    std::optional<uint64_t> wait_left_ns;  // of the call that pending_sleep() tells
  };
  static void prepare(const ProcStatus& root);
  // The thread is stopped where its own code stopped; the registers that Tracee keeps are right.
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  // Throws CPU_LACKS_FEATURE if this CPU cannot hold what was in use.
  static void decode(const pb::core_entry& core, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// The general registers of a stopped thread in the form that State has, and what its interrupted call needs.
// `memory_of`: the process, to look at its code and at limits of time; `waited_ns`: as in LookView.
void save_registers(const arch::Registers& own, pid_t memory_of, std::optional<uint64_t> waited_ns,
                    CpuRegisters::State& state);

// A system call that slept for a relative time. Its restart block exists in the kernel only: the restore starts the
// call again in the thread itself and interrupts it (O-65); then the saved registers go on with it. If nobody does, or
// if the call is not known, the call returns EINTR.
struct SleepRestart {
  uint64_t number = 0;
  bool compat = false;
  uint64_t args[6] = {};
  bool known = false;  // false: `number` says only that a restart was interrupted again
  std::optional<uint64_t> left_ns;
  uint64_t clocks_went_on_ns = 0;  // as in SettleView
};
std::optional<SleepRestart> pending_sleep(const CpuRegisters::State& state);

// A signal handler is the first that runs when the thread is released: does to an interrupted call what the kernel then
// does to it (signal(7), "Interruption of system calls").
void interrupt_by_handler(CpuRegisters::State& state, bool handler_restarts);

// Makes them the ones that the stopped thread is released with.
void load_registers(const CpuRegisters::State& state, Tracee& thread);

// The thread of a core image runs code of the narrower width.
bool runs_compat_code(const pb::core_entry& core);

// The clear-on-exit address stands among the registers of a core entry.
void encode_clear_tid_address(uint64_t address, pb::core_entry& core);
uint64_t decode_clear_tid_address(const pb::core_entry& core);

}  // namespace stasis

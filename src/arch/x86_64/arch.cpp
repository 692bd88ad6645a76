#include "arch/arch.h"

#include <asm/unistd.h>
#include <cpuid.h>
#include <sys/personality.h>
#include <sys/ptrace.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

extern "C" {
extern const std::byte stasis_batch_loop[], stasis_batch_reported[], stasis_batch_loop_end[];
extern const std::byte stasis_bootstrap_loop[], stasis_bootstrap_reported[], stasis_bootstrap_loop_end[];
extern const std::byte stasis_stub[], stasis_stub_end[], stasis_stub32[], stasis_stub32_end[];
extern const std::byte stasis_init[], stasis_init_end[];
}

namespace stasis::arch {

// The loop and the heal code depend on the places of fields.
static_assert(offsetof(SlotHead, signal_mask) == 216 && offsetof(SlotHead, undo_table) == 224 &&
              offsetof(SlotHead, heal_code) == 232 && offsetof(SlotHead, report_call) == 240 &&
              offsetof(SlotHead, mask_is_own) == 264 && offsetof(SlotHead, compat_target) == 272);
static_assert(offsetof(BatchEntry, result) == 56 && offsetof(BatchEntry, result_to) == 64 &&
              offsetof(BatchEntry, flags) == 72);

// ---- registers -------------------------------------------------------------------------------------------

namespace {

// Values that only the kernel and a tracer see (include/linux/errno.h).
constexpr int64_t kRestartSys = -512, kRestartNoIntr = -513, kRestartNoHand = -514, kRestartBlock = -516;
// syscall, and int $0x80; a fast call of 32-bit code returns behind the int $0x80 in the vdso.
constexpr uint64_t kCallInstructionBytes = 2;
constexpr uint64_t kRestartSyscall32 = 0;

}  // namespace

// The register sets of PTRACE_GETREGSET have the width of the code that the thread runs. These do not.
int read_registers(pid_t tid, Registers& regs) {
  return ptrace(PTRACE_GETREGS, tid, nullptr, &regs) == 0 ? 0 : errno;
}

int write_registers(pid_t tid, const Registers& regs) {
  return ptrace(PTRACE_SETREGS, tid, nullptr, &regs) == 0 ? 0 : errno;
}

uint64_t address_end(bool compat, uint64_t personality) {
  // TASK_SIZE (arch/x86/include/asm/page_64_types.h); of 64-bit code that of four-level page tables: higher addresses
  // are given only on request.
  if (!compat) return 0x7ffffffff000;
  return (personality & ADDR_LIMIT_3GB) != 0 ? 0xc0000000 : 0xffffe000;
}

Interrupted interrupted_call(const Registers& regs) {
  if (static_cast<int64_t>(regs.orig_rax) < 0) return Interrupted::no;
  switch (static_cast<int64_t>(regs.rax)) {
    case kRestartSys:
    case kRestartNoIntr:
    case kRestartNoHand:
      return Interrupted::restart;
    case kRestartBlock:
      return Interrupted::restart_block;
    default:
      return Interrupted::no;
  }
}

uint64_t interrupted_call_number(const Registers& regs) {
  return regs.orig_rax;
}

uint64_t restart_call_number(const Registers& regs) {
  return is_compat(regs) ? kRestartSyscall32 : __NR_restart_syscall;
}

void rewind_to_call(Registers& regs, uint64_t number) {
  regs.rax = number;
  regs.rip -= kCallInstructionBytes;
  regs.orig_rax = ~uint64_t{0};
}

void rewind_interrupted_call(Registers& regs) {
  switch (interrupted_call(regs)) {
    case Interrupted::restart:
      rewind_to_call(regs, regs.orig_rax);
      break;
    case Interrupted::restart_block:
      rewind_to_call(regs, restart_call_number(regs));
      break;
    case Interrupted::no:
      // The number of a finished call would make the kernel look at the result as a restart code.
      regs.orig_rax = ~uint64_t{0};
      break;
  }
}

void finish_rewound_call(Registers& regs, int64_t result) {
  regs.rip += kCallInstructionBytes;
  regs.rax = static_cast<uint64_t>(result);
  regs.orig_rax = ~uint64_t{0};
}

namespace {

// The interrupted call as one of 64-bit code; ~0 if it has no such form.
uint64_t waiting_call(const Registers& regs) {
  if (is_compat(regs)) {
    // One call for many: the first argument tells which (linux/net.h, linux/ipc.h).
    constexpr uint64_t kSocketcall = 102, kIpc = 117;
    const uint64_t which = call_argument(regs, 0) & 0xffff;
    if (regs.orig_rax == kSocketcall && (which == 3 || which == 5 || (which >= 9 && which != 13 && which != 14)))
      return __NR_recvmsg;
    if (regs.orig_rax == kIpc && (which == 1 || which == 4)) return __NR_semop;
  }
  const auto form = native_form(regs.orig_rax, is_compat(regs));
  return form ? form->number : ~uint64_t{0};
}

}  // namespace

bool restart_failed_wait(Registers& regs) {
  if (static_cast<int64_t>(regs.rax) != -EINTR) return false;
  switch (waiting_call(regs)) {
    // They give nothing away before they wait, and fail with EINTR only if they have nothing to report.
    case __NR_epoll_wait:
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
    case __NR_semop:
    case __NR_semtimedop:
    case __NR_rt_sigtimedwait:
    case __NR_io_getevents:
    // With a timeout that cannot be written back.
    case __NR_select:
    case __NR_pselect6:
    case __NR_ppoll:
    // On sockets with SO_RCVTIMEO or SO_SNDTIMEO.
    case __NR_read:
    case __NR_readv:
    case __NR_write:
    case __NR_writev:
    case __NR_recvfrom:
    case __NR_recvmsg:
    case __NR_recvmmsg:
    case __NR_sendto:
    case __NR_sendmsg:
    case __NR_sendmmsg:
    case __NR_accept:
    case __NR_accept4:
    case __NR_connect:
      regs.rax = static_cast<uint64_t>(kRestartNoHand);
      return true;
    default:
      return false;
  }
}

// ---- syscall batches -------------------------------------------------------------------------------------

std::span<const std::byte> batch_loop() {
  return {stasis_batch_loop, stasis_batch_loop_end};
}

size_t batch_reported_offset() {
  return static_cast<size_t>(stasis_batch_reported - stasis_batch_loop);
}

Registers batch_registers(const Registers& own, uint64_t loop, uint64_t first_entry, uint64_t slot) {
  Registers regs = own;
  regs.cs = kCode64;
  regs.rip = loop;
  regs.rbx = first_entry;
  regs.r12 = slot;
  // Not a system call: nothing to restart when the thread is released.
  regs.orig_rax = ~uint64_t{0};
  return regs;
}

void set_way_home(SlotHead& head, const Registers& own) {
  head.registers = own;
  rewind_interrupted_call(head.registers);
  // A far pointer: the offset, and the code segment.
  head.compat_target = is_compat(own) ? static_cast<uint32_t>(head.registers.rip) | own.cs << 32 : 0;
}

uint64_t slot_address(const Registers& regs) {
  return regs.r12;
}

Registers call_registers(const Registers& own, uint64_t reported, uint64_t number, std::span<const uint64_t> args) {
  Registers regs = own;
  regs.cs = kCode64;
  for (size_t i = 0; i < args.size() && i < 6; ++i) set_call_argument(regs, static_cast<int>(i), args[i]);
  regs.rax = number;
  regs.orig_rax = ~uint64_t{0};
  regs.rip = reported - kCallInstructionBytes;
  return regs;
}

namespace {

// Assembles the few instructions of the heal code.
class Assembler {
 public:
  explicit Assembler(uint64_t address) : address_(address) {}

  void bytes(std::initializer_list<uint8_t> list) {
    for (uint8_t b : list) code_.push_back(std::byte{b});
  }
  // A conditional or plain short jump forward, whose target is set by land().
  size_t jump_ahead(uint8_t opcode) {
    bytes({opcode, 0});
    return code_.size();
  }
  void land(size_t jump) { code_[jump - 1] = static_cast<std::byte>(code_.size() - jump); }
  // opcode bytes followed by a displacement relative to the next instruction
  void relative(std::initializer_list<uint8_t> opcode, uint64_t target) {
    bytes(opcode);
    const uint64_t next = address_ + code_.size() + 4;
    const int32_t displacement = static_cast<int32_t>(static_cast<int64_t>(target - next));
    append(&displacement, sizeof displacement);
  }
  void append(const void* data, size_t n) {
    const auto* p = static_cast<const std::byte*>(data);
    code_.insert(code_.end(), p, p + n);
  }
  std::vector<std::byte> take() { return std::move(code_); }

 private:
  uint64_t address_;
  std::vector<std::byte> code_;
};

}  // namespace

namespace {

enum class Width { native, compat, either };

// `at`: the address of what has an offset in SlotHead. Code of 32 bits has half of the registers.
template <class At>
std::vector<std::byte> assemble_heal_code(uint64_t code_address, Width width, At at) {
  // Plain moves, not rt_sigreturn: that would turn a restartable sleep into EINTR and reset the alternate stack.
  Assembler a(code_address);
  const auto reg = [&](size_t offset) { return at(offsetof(SlotHead, registers) + offset); };
  a.relative({0x8b, 0x05}, at(offsetof(SlotHead, mask_is_own)));  // mov mask_is_own(%rip), %eax
  a.bytes({0x85, 0xc0});                                          // test %eax, %eax
  const size_t mask_is_own = a.jump_ahead(0x75);                  // jne
  // All signals are blocked: the stack pointer may point anywhere. None of the instructions after popf changes flags;
  // syscall saves and restores them.
  a.relative({0x48, 0x8d, 0x25}, reg(offsetof(Registers, eflags)));     // lea  eflags(%rip), %rsp
  a.bytes({0x9d});                                                      // popf
  a.relative({0x48, 0x8b, 0x25}, reg(offsetof(Registers, rsp)));        // mov  rsp(%rip), %rsp
  a.bytes({0xb8, __NR_rt_sigprocmask, 0, 0, 0});                        // mov  $rt_sigprocmask, %eax
  a.bytes({0xbf, 2, 0, 0, 0});                                          // mov  $SIG_SETMASK, %edi
  a.relative({0x48, 0x8d, 0x35}, at(offsetof(SlotHead, signal_mask)));  // lea mask(%rip), %rsi
  a.bytes({0xba, 0, 0, 0, 0});                                          // mov  $0, %edx
  a.bytes({0x41, 0xba, 8, 0, 0, 0});                                    // mov  $8, %r10d
  a.bytes({0x0f, 0x05});                                                // syscall
  const size_t mask_is_set = a.jump_ahead(0xeb);                        // jmp
  a.land(mask_is_own);
  // A signal handler may run at any moment, on the stack of the program: the flags come back without a stack (all that
  // a program computes with, and the direction).
  a.relative({0x48, 0x8b, 0x25}, reg(offsetof(Registers, rsp)));  // mov  rsp(%rip), %rsp
  a.relative({0x8b, 0x05}, reg(offsetof(Registers, eflags)));     // mov  eflags(%rip), %eax
  a.bytes({0xfc});                                                // cld
  a.bytes({0xa9, 0x00, 0x04, 0, 0});                              // test $0x400, %eax
  const size_t forward = a.jump_ahead(0x74);                      // je
  a.bytes({0xfd});                                                // std
  a.land(forward);
  a.bytes({0x89, 0xc1, 0xc1, 0xe9, 0x0b, 0x83, 0xe1, 0x01});  // mov %eax, %ecx; shr $11, %ecx; and $1, %ecx
  a.bytes({0x88, 0xc4});                                      // mov  %al, %ah
  a.bytes({0x80, 0xc1, 0x7f});                                // add  $0x7f, %cl: overflows if it was 1
  a.bytes({0x9e});                                            // sahf: the other flags
  a.land(mask_is_set);
  a.relative({0x48, 0x8b, 0x05}, reg(offsetof(Registers, rax)));
  a.relative({0x48, 0x8b, 0x1d}, reg(offsetof(Registers, rbx)));
  a.relative({0x48, 0x8b, 0x15}, reg(offsetof(Registers, rdx)));
  a.relative({0x48, 0x8b, 0x35}, reg(offsetof(Registers, rsi)));
  a.relative({0x48, 0x8b, 0x3d}, reg(offsetof(Registers, rdi)));
  a.relative({0x48, 0x8b, 0x2d}, reg(offsetof(Registers, rbp)));
  if (width != Width::compat) {
    a.relative({0x4c, 0x8b, 0x05}, reg(offsetof(Registers, r8)));
    a.relative({0x4c, 0x8b, 0x0d}, reg(offsetof(Registers, r9)));
    a.relative({0x4c, 0x8b, 0x15}, reg(offsetof(Registers, r10)));
    a.relative({0x4c, 0x8b, 0x1d}, reg(offsetof(Registers, r11)));
    a.relative({0x4c, 0x8b, 0x25}, reg(offsetof(Registers, r12)));
    a.relative({0x4c, 0x8b, 0x2d}, reg(offsetof(Registers, r13)));
    a.relative({0x4c, 0x8b, 0x35}, reg(offsetof(Registers, r14)));
    a.relative({0x4c, 0x8b, 0x3d}, reg(offsetof(Registers, r15)));
  }
  const auto load_rcx = [&] { a.relative({0x48, 0x8b, 0x0d}, reg(offsetof(Registers, rcx))); };
  const auto far_jump = [&] {
    load_rcx();
    a.relative({0xff, 0x2d}, at(offsetof(SlotHead, compat_target)));  // ljmp *compat_target(%rip)
  };
  // Zeros behind the code count as free bytes, but those of the last displacement are none.
  constexpr uint8_t kEnd = 0xcc;
  if (width == Width::compat) {
    far_jump();
    a.bytes({kEnd});
    return a.take();
  }
  if (width == Width::either) {
    a.relative({0x48, 0x8b, 0x0d}, at(offsetof(SlotHead, compat_target)));  // mov compat_target(%rip), %rcx
    const size_t native = a.jump_ahead(0xe3);                               // jrcxz, which looks at no flags
    far_jump();
    a.land(native);
  }
  load_rcx();
  a.relative({0xff, 0x25}, reg(offsetof(Registers, rip)));  // jmp  *rip(%rip)
  a.bytes({kEnd});
  return a.take();
}

}  // namespace

std::vector<std::byte> heal_code(uint64_t code_address, uint64_t slot) {
  return assemble_heal_code(code_address, Width::either, [&](size_t offset) { return slot + offset; });
}

size_t heal_code_size() {
  static const size_t size = heal_code(0x1000, 0x2000).size();
  return size;
}

namespace {

// The bootstrap piece has to fit into few bytes: loop, calls, heal code of one width, and of the slot only the words
// that these use. The last ones stand as in SlotHead: the loop finds them from the address that the slot would have.
constexpr size_t kTail = offsetof(SlotHead, heal_code), kTailBytes = sizeof(SlotHead) - kTail;
constexpr size_t kCompatWords[] = {
    offsetof(Registers, rax), offsetof(Registers, rbx),        offsetof(Registers, rcx), offsetof(Registers, rdx),
    offsetof(Registers, rsi), offsetof(Registers, rdi),        offsetof(Registers, rbp), offsetof(Registers, eflags),
    offsetof(Registers, rsp), offsetof(SlotHead, signal_mask),
};
constexpr size_t kNativeWords[] = {
    offsetof(Registers, rax), offsetof(Registers, rbx),        offsetof(Registers, rcx), offsetof(Registers, rdx),
    offsetof(Registers, rsi), offsetof(Registers, rdi),        offsetof(Registers, rbp), offsetof(Registers, eflags),
    offsetof(Registers, rsp), offsetof(SlotHead, signal_mask), offsetof(Registers, rip), offsetof(Registers, r8),
    offsetof(Registers, r9),  offsetof(Registers, r10),        offsetof(Registers, r11), offsetof(Registers, r12),
    offsetof(Registers, r13), offsetof(Registers, r14),        offsetof(Registers, r15),
};

constexpr size_t align8(size_t n) {
  return (n + 7) & ~size_t{7};
}

size_t bootstrap_loop_size() {
  return static_cast<size_t>(stasis_bootstrap_loop_end - stasis_bootstrap_loop);
}
size_t bootstrap_calls_offset() {
  return align8(bootstrap_loop_size());
}

struct BootstrapLayout {
  BootstrapLayout(size_t calls, bool compat)
      : width(compat ? Width::compat : Width::native),
        words(compat ? std::span<const size_t>(kCompatWords) : std::span<const size_t>(kNativeWords)),
        saved(bootstrap_calls_offset() + calls * sizeof(BootstrapCall) + sizeof kEndOfTable),
        tail(saved + words.size() * 8),
        heal(tail + kTailBytes),
        size(heal + heal_size(compat)) {}

  static size_t heal_size(bool compat) {
    const auto of_width = [](Width width) { return assemble_heal_code(0, width, [](size_t at) { return at; }).size(); };
    static const size_t native_size = of_width(Width::native), compat_size = of_width(Width::compat);
    return compat ? compat_size : native_size;
  }
  std::vector<std::byte> heal_at(uint64_t address) const {
    return assemble_heal_code(address + heal, width, [&](size_t offset) {
      if (offset >= kTail) return address + tail + (offset - kTail);
      return address + saved + static_cast<size_t>(std::ranges::find(words, offset) - words.begin()) * 8;
    });
  }

  Width width;
  std::span<const size_t> words;
  size_t saved, tail, heal, size;
};

}  // namespace

size_t bootstrap_size(size_t calls, bool compat) {
  return BootstrapLayout(calls, compat).size;
}

std::span<const std::byte> bootstrap_loop() {
  return {stasis_bootstrap_loop, stasis_bootstrap_loop_end};
}

std::optional<BootstrapCall> first_bootstrap_call(std::span<const std::byte> text) {
  BootstrapCall call;
  if (text.size() < bootstrap_calls_offset() + sizeof call) return std::nullopt;
  std::memcpy(&call, text.data() + bootstrap_calls_offset(), sizeof call);
  return call;
}

size_t bootstrap_reported_offset() {
  return static_cast<size_t>(stasis_bootstrap_reported - stasis_bootstrap_loop);
}

std::vector<std::byte> bootstrap_code(uint64_t address, const SlotHead& slot, std::span<const BootstrapCall> calls) {
  const BootstrapLayout layout(calls.size(), slot.compat_target != 0);
  std::vector<std::byte> out(layout.size);
  const auto put = [&](size_t offset, const void* data, size_t bytes) {
    std::memcpy(out.data() + offset, data, bytes);
  };
  put(0, stasis_bootstrap_loop, bootstrap_loop_size());
  put(bootstrap_calls_offset(), calls.data(), calls.size_bytes());
  put(bootstrap_calls_offset() + calls.size_bytes(), &kEndOfTable, sizeof kEndOfTable);
  SlotHead head = slot;
  head.heal_code = address + layout.heal;
  const auto* bytes = reinterpret_cast<const std::byte*>(&head);
  for (size_t i = 0; i < layout.words.size(); ++i) put(layout.saved + i * 8, bytes + layout.words[i], 8);
  put(layout.tail, bytes + kTail, kTailBytes);
  const auto heal = layout.heal_at(address);
  put(layout.heal, heal.data(), heal.size());
  return out;
}

Registers bootstrap_registers(const Registers& own, uint64_t address, size_t calls) {
  const BootstrapLayout layout(calls, is_compat(own));
  return batch_registers(own, address, address + bootstrap_calls_offset(), address + layout.tail - kTail);
}

int64_t bootstrap_result(const Registers& regs) {
  return static_cast<int64_t>(regs.r13);
}

// ---- extended state, stub --------------------------------------------------------------------------------

size_t extended_state_size() {
  // CPUID leaf 13, sub-leaf 0, ebx: bytes needed for the features now enabled in XCR0. Without XSAVE ptrace knows
  // the legacy 512 bytes only.
  static const size_t size = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return size_t{512};
    __cpuid_count(13, 0, eax, ebx, ecx, edx);
    return size_t{ebx};
  }();
  return size;
}

size_t touched_state_bytes(size_t components) {
  constexpr size_t kAlignment = 64, kLegacyAndHeader = 576;
  return kAlignment + kLegacyAndHeader + components;
}

std::span<const std::byte> stub_executable(bool compat) {
  if (compat) return {stasis_stub32, stasis_stub32_end};
  return {stasis_stub, stasis_stub_end};
}

std::span<const std::byte> init_executable() {
  return {stasis_init, stasis_init_end};
}

std::string_view name() {
  return "x86_64";
}

}  // namespace stasis::arch

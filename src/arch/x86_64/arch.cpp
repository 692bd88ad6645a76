#include "arch/arch.h"

#include <asm/unistd.h>
#include <cpuid.h>

#include <cerrno>
#include <cstring>

extern "C" {
extern const std::byte stasis_batch_loop[], stasis_batch_reported[], stasis_batch_loop_end[];
extern const std::byte stasis_bootstrap_loop[], stasis_bootstrap_reported[], stasis_bootstrap_loop_end[];
extern const std::byte stasis_stub[], stasis_stub_end[];
extern const std::byte stasis_init[], stasis_init_end[];
}

namespace stasis::arch {

static_assert(offsetof(SlotHead, signal_mask) == 216 && offsetof(SlotHead, undo_table) == 224 &&
              offsetof(SlotHead, heal_code) == 232 && offsetof(SlotHead, report_call) == 240 &&
              offsetof(SlotHead, mask_is_own) == 264);
static_assert(offsetof(BatchEntry, result) == 56 && offsetof(BatchEntry, result_to) == 64 &&
              offsetof(BatchEntry, flags) == 72);

// ---- registers -------------------------------------------------------------------------------------------

namespace {

// Values that only the kernel and a tracer see (include/linux/errno.h).
constexpr int64_t kRestartSys = -512, kRestartNoIntr = -513, kRestartNoHand = -514, kRestartBlock = -516;
constexpr uint64_t kCallInstructionBytes = 2;

}  // namespace

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
      rewind_to_call(regs, __NR_restart_syscall);
      break;
    case Interrupted::no:
      // The number of a finished call would make the kernel look at the result as a restart code.
      regs.orig_rax = ~uint64_t{0};
      break;
  }
}

void fail_interrupted_call(Registers& regs) {
  regs.rax = static_cast<uint64_t>(-EINTR);
  regs.orig_rax = ~uint64_t{0};
}

void finish_rewound_call(Registers& regs, int64_t result) {
  regs.rip += kCallInstructionBytes;
  regs.rax = static_cast<uint64_t>(result);
  regs.orig_rax = ~uint64_t{0};
}

bool restart_failed_wait(Registers& regs) {
  if (static_cast<int64_t>(regs.rax) != -EINTR) return false;
  switch (regs.orig_rax) {
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
  regs.rip = loop;
  regs.rbx = first_entry;
  regs.r12 = slot;
  // Not a system call: nothing to restart when the thread is released.
  regs.orig_rax = ~uint64_t{0};
  return regs;
}

uint64_t slot_address(const Registers& regs) {
  return regs.r12;
}

Registers call_registers(const Registers& own, uint64_t reported, uint64_t number, std::span<const uint64_t> args) {
  Registers regs = own;
  decltype(&regs.rdi) const slots[6] = {&regs.rdi, &regs.rsi, &regs.rdx, &regs.r10, &regs.r8, &regs.r9};
  for (size_t i = 0; i < args.size() && i < 6; ++i) *slots[i] = args[i];
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

std::vector<std::byte> heal_code(uint64_t code_address, uint64_t slot) {
  // Plain moves, not rt_sigreturn: that would turn a restartable sleep into EINTR and reset the alternate stack.
  const auto reg = [&](size_t offset) { return slot + offset; };
  Assembler a(code_address);
  a.relative({0x8b, 0x05}, slot + offsetof(SlotHead, mask_is_own));  // mov mask_is_own(%rip), %eax
  a.bytes({0x85, 0xc0});                                             // test %eax, %eax
  const size_t mask_is_own = a.jump_ahead(0x75);                     // jne
  // All signals are blocked: the stack pointer may point anywhere. None of the instructions after popf changes flags;
  // syscall saves and restores them.
  a.relative({0x48, 0x8d, 0x25}, reg(offsetof(Registers, eflags)));        // lea  eflags(%rip), %rsp
  a.bytes({0x9d});                                                         // popf
  a.relative({0x48, 0x8b, 0x25}, reg(offsetof(Registers, rsp)));           // mov  rsp(%rip), %rsp
  a.bytes({0xb8, __NR_rt_sigprocmask, 0, 0, 0});                           // mov  $rt_sigprocmask, %eax
  a.bytes({0xbf, 2, 0, 0, 0});                                             // mov  $SIG_SETMASK, %edi
  a.relative({0x48, 0x8d, 0x35}, slot + offsetof(SlotHead, signal_mask));  // lea mask(%rip), %rsi
  a.bytes({0xba, 0, 0, 0, 0});                                             // mov  $0, %edx
  a.bytes({0x41, 0xba, 8, 0, 0, 0});                                       // mov  $8, %r10d
  a.bytes({0x0f, 0x05});                                                   // syscall
  const size_t mask_is_set = a.jump_ahead(0xeb);                           // jmp
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
  a.relative({0x48, 0x8b, 0x0d}, reg(offsetof(Registers, rcx)));
  a.relative({0x48, 0x8b, 0x15}, reg(offsetof(Registers, rdx)));
  a.relative({0x48, 0x8b, 0x35}, reg(offsetof(Registers, rsi)));
  a.relative({0x48, 0x8b, 0x3d}, reg(offsetof(Registers, rdi)));
  a.relative({0x48, 0x8b, 0x2d}, reg(offsetof(Registers, rbp)));
  a.relative({0x4c, 0x8b, 0x05}, reg(offsetof(Registers, r8)));
  a.relative({0x4c, 0x8b, 0x0d}, reg(offsetof(Registers, r9)));
  a.relative({0x4c, 0x8b, 0x15}, reg(offsetof(Registers, r10)));
  a.relative({0x4c, 0x8b, 0x1d}, reg(offsetof(Registers, r11)));
  a.relative({0x4c, 0x8b, 0x25}, reg(offsetof(Registers, r12)));
  a.relative({0x4c, 0x8b, 0x2d}, reg(offsetof(Registers, r13)));
  a.relative({0x4c, 0x8b, 0x35}, reg(offsetof(Registers, r14)));
  a.relative({0x4c, 0x8b, 0x3d}, reg(offsetof(Registers, r15)));
  a.relative({0xff, 0x25}, reg(offsetof(Registers, rip)));  // jmp  *rip(%rip)
  return a.take();
}

size_t heal_code_size() {
  static const size_t size = heal_code(0x1000, 0x2000).size();
  return size;
}

namespace {

size_t bootstrap_loop_size() {
  return static_cast<size_t>(stasis_bootstrap_loop_end - stasis_bootstrap_loop);
}

constexpr size_t align8(size_t n) {
  return (n + 7) & ~size_t{7};
}

// Layout of the bootstrap piece: loop, heal code, slot, calls.
size_t bootstrap_heal_offset() {
  return align8(bootstrap_loop_size());
}
size_t bootstrap_slot_offset() {
  return align8(bootstrap_heal_offset() + heal_code_size());
}
size_t bootstrap_calls_offset() {
  return align8(bootstrap_slot_offset() + sizeof(SlotHead));
}

}  // namespace

size_t bootstrap_size(size_t calls) {
  return bootstrap_calls_offset() + calls * sizeof(BootstrapCall) + 8;
}

std::span<const std::byte> bootstrap_loop() {
  return {stasis_bootstrap_loop, stasis_bootstrap_loop_end};
}

std::optional<BootstrapCall> first_bootstrap_call(std::span<const std::byte> text) {
  if (text.size() < bootstrap_size(1)) return std::nullopt;
  BootstrapCall call;
  std::memcpy(&call, text.data() + bootstrap_calls_offset(), sizeof call);
  return call;
}

size_t bootstrap_reported_offset() {
  return static_cast<size_t>(stasis_bootstrap_reported - stasis_bootstrap_loop);
}

std::vector<std::byte> bootstrap_code(uint64_t address, const SlotHead& slot, std::span<const BootstrapCall> calls) {
  std::vector<std::byte> out(bootstrap_size(calls.size()));
  std::memcpy(out.data(), stasis_bootstrap_loop, bootstrap_loop_size());
  const uint64_t slot_address = address + bootstrap_slot_offset();
  const auto heal = heal_code(address + bootstrap_heal_offset(), slot_address);
  std::memcpy(out.data() + bootstrap_heal_offset(), heal.data(), heal.size());
  SlotHead head = slot;
  head.heal_code = address + bootstrap_heal_offset();
  std::memcpy(out.data() + bootstrap_slot_offset(), &head, sizeof head);
  std::memcpy(out.data() + bootstrap_calls_offset(), calls.data(), calls.size_bytes());
  std::memcpy(out.data() + out.size() - 8, &kEndOfTable, 8);
  return out;
}

Registers bootstrap_registers(const Registers& own, uint64_t address) {
  return batch_registers(own, address, address + bootstrap_calls_offset(), address + bootstrap_slot_offset());
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

std::span<const std::byte> stub_executable() {
  return {stasis_stub, stasis_stub_end};
}

std::span<const std::byte> init_executable() {
  return {stasis_init, stasis_init_end};
}

std::string_view name() {
  return "x86_64";
}

}  // namespace stasis::arch

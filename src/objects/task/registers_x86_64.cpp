#include <asm/unistd.h>
#include <fmt/format.h>
#include <linux/futex.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "kernel/process.h"
#include "objects/task/registers.h"
#include "objects/task/timed_call.h"
#include "objects/task/xsave_x86_64.h"

namespace stasis {

namespace {

using arch::Registers;

// The calls that end with -ERESTART_RESTARTBLOCK when they are interrupted (kernel/futex/waitwake.c,
// kernel/time/hrtimer.c, kernel/time/posix-timers.c, fs/select.c).
constexpr uint64_t kFutexWait = 455;  // futex_wait(2), Linux 6.7

bool can_have_restart_block(uint64_t number_of_thread, bool compat) {
  const auto form = arch::native_form(number_of_thread, compat);
  const uint64_t number = form ? form->number : uint64_t{__NR_restart_syscall};
  return number == kFutexWait || number == __NR_nanosleep || number == __NR_clock_nanosleep || number == __NR_poll ||
         number == __NR_futex;
}

// With an absolute timeout the call itself can be made again.
bool timeout_is_absolute(const Registers& regs, uint64_t number_of_thread) {
  const auto form = arch::native_form(number_of_thread, arch::is_compat(regs));
  const uint64_t number = form ? form->number : uint64_t{__NR_restart_syscall};
  const uint64_t second = arch::call_argument(regs, 1);
  if (number == __NR_clock_nanosleep) return (second & 1) != 0;  // TIMER_ABSTIME
  if (number == kFutexWait) return true;
  if (number != __NR_futex) return false;
  const uint64_t operation = second & ~uint64_t{FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME};
  return operation != FUTEX_WAIT;
}

// A sleep that was stopped and let go before is now inside restart_syscall, and the number of the original call is gone
// from the registers. Nearly all code loads it right before the call: mov $number, %eax; syscall.
uint64_t number_loaded_before(const Registers& regs, pid_t memory_of) {
  const bool compat = arch::is_compat(regs);
  const uint64_t unknown = arch::restart_call_number(regs);
  constexpr size_t kLoad = 5;  // bytes of mov $number, %eax
  unsigned char code[kLoad + 7] = {};
  const auto number_in = [&](size_t call_bytes) -> uint64_t {
    const unsigned char* load = code + sizeof code - call_bytes - kLoad;
    uint32_t number = 0;
    std::memcpy(&number, load + 1, sizeof number);
    return load[0] == 0xb8 && can_have_restart_block(number, compat) ? number : unknown;
  };
  const auto code_ends_with = [&](std::initializer_list<unsigned char> bytes) {
    return std::equal(bytes.begin(), bytes.end(), code + sizeof code - bytes.size());
  };
  if (process_vm_read_all(memory_of, regs.rip - sizeof code, code, sizeof code) != 0) return unknown;
  if (!compat) return code_ends_with({0x0f, 0x05}) ? number_in(2) : unknown;
  if (!code_ends_with({0xcd, 0x80})) return unknown;
  if (const uint64_t number = number_in(2); number != unknown) return number;
  // The int $0x80 of the vdso, whose caller is above three saved registers: call *%gs:0x10.
  uint32_t caller = 0;
  if (process_vm_read_all(memory_of, regs.rsp + 3 * sizeof caller, &caller, sizeof caller) != 0 ||
      process_vm_read_all(memory_of, caller - sizeof code, code, sizeof code) != 0)
    return unknown;
  return code_ends_with({0x65, 0xff, 0x15, 0x10, 0, 0, 0}) ? number_in(7) : unknown;
}

std::optional<uint64_t> time_left(const Registers& own, uint64_t number, pid_t memory_of,
                                  std::optional<uint64_t> waited_ns) {
  uint64_t args[6];
  for (int i = 0; i < 6; ++i) args[i] = arch::call_argument(own, i);
  const auto form = arch::native_form(number, arch::is_compat(own));
  const auto call =
      waited_ns && form && form->number != __NR_restart_syscall ? relative_timed_call(*form, args) : std::nullopt;
  const auto limit = call ? limit_ns(*call, args, memory_of) : std::nullopt;
  if (!limit) return std::nullopt;
  return *limit - std::min(*limit, *waited_ns);
}

// Segment registers that need a descriptor of the thread's own (LDT, or one of its three slots in the GDT).
bool own_descriptor(uint64_t selector, bool compat) {
  return (selector & 4) != 0 || (!compat && selector >= 0x63 && selector <= 0x73);
}

// A wait that begins again as a whole, in this task as in a restored one.
void shorten_wait_of(const LookView& view) {
  Registers own = view.thread.own_registers();
  if (!view.waited_ns || arch::interrupted_call(own) != arch::Interrupted::restart) return;
  const auto left_ns = time_left(own, arch::interrupted_call_number(own), view.tid, view.waited_ns);
  if (!left_ns) return;
  shorten_wait(own, *left_ns, view.tid);
  view.thread.set_own_registers(own);
}

}  // namespace

void save_registers(const Registers& own, pid_t memory_of, std::optional<uint64_t> waited_ns,
                    CpuRegisters::State& state) {
  Registers& regs = state.general;
  regs = own;
  switch (arch::interrupted_call(own)) {
    case arch::Interrupted::no:
      arch::rewind_interrupted_call(regs);
      break;
    case arch::Interrupted::restart:
      state.restart_code = static_cast<uint32_t>(-static_cast<int64_t>(own.rax));
      arch::rewind_interrupted_call(regs);
      break;
    case arch::Interrupted::restart_block: {
      uint64_t number = arch::interrupted_call_number(own);
      if (number == arch::restart_call_number(own)) number = number_loaded_before(own, memory_of);
      if (timeout_is_absolute(own, number)) {
        arch::rewind_to_call(regs, number);
      } else {
        arch::rewind_interrupted_call(regs);
        regs.orig_rax = number;
        state.wait_left_ns = time_left(own, number, memory_of, waited_ns);
      }
      break;
    }
  }
}

const pb::core_entry::march CpuRegisters::architecture = pb::core_entry::X86_64;

void CpuRegisters::prepare(const ProcStatus&) {
  // Each CPUID instruction is a trap to the hypervisor.
  XsaveLayout::of_this_cpu();
  arch::extended_state_size();
}

void CpuRegisters::look(const LookView& view, State& state) {
  shorten_wait_of(view);
  const Registers& own = view.thread.own_registers();
  if (arch::is_compat(own) != view.compat)
    throw Error(Reason::UNSUPPORTED_STATE, view.compat
                                               ? "its thread is in 64-bit code, and its program is a 32-bit one"
                                               : "its thread is in 32-bit code, and its program is a 64-bit one")
        .object(view.who)
        .remedy("try again: a program that changes to and fro can be saved while it runs the code of its kind");
  for (uint64_t selector : {own.cs, own.ss, own.ds, own.es, own.fs, own.gs})
    if (own_descriptor(selector, view.compat))
      throw Error(Reason::UNSUPPORTED_STATE, fmt::format("it uses the segment descriptor {:#x} of its own", selector))
          .object(view.who)
          .remedy(
              "tasks that use such descriptors of modify_ldt, or of set_thread_area in 64-bit code, cannot be saved");
  save_registers(own, view.tid, view.waited_ns, state);
  state.extended = view.thread.extended_state();
  extra_components(state.extended, XsaveLayout::of_this_cpu());
}

void CpuRegisters::encode(const State& state, pb::core_entry& core) {
  core.set_mtype(architecture);
  const Registers& r = state.general;
  pb::user_x86_regs_entry& out = *core.mutable_thread_info()->mutable_gpregs();
  out.set_r15(r.r15);
  out.set_r14(r.r14);
  out.set_r13(r.r13);
  out.set_r12(r.r12);
  out.set_bp(r.rbp);
  out.set_bx(r.rbx);
  out.set_r11(r.r11);
  out.set_r10(r.r10);
  out.set_r9(r.r9);
  out.set_r8(r.r8);
  out.set_ax(r.rax);
  out.set_cx(r.rcx);
  out.set_dx(r.rdx);
  out.set_si(r.rsi);
  out.set_di(r.rdi);
  out.set_orig_ax(r.orig_rax);
  out.set_ip(r.rip);
  out.set_cs(r.cs);
  out.set_flags(r.eflags);
  out.set_sp(r.rsp);
  out.set_ss(r.ss);
  out.set_fs_base(r.fs_base);
  out.set_gs_base(r.gs_base);
  out.set_ds(r.ds);
  out.set_es(r.es);
  out.set_fs(r.fs);
  out.set_gs(r.gs);
  out.set_mode(arch::is_compat(r) ? pb::COMPAT : pb::NATIVE);
  encode_xsave(state.extended, XsaveLayout::of_this_cpu(), *core.mutable_thread_info()->mutable_fpregs());
}

void CpuRegisters::decode(const pb::core_entry& core, State& state) {
  if (core.mtype() != architecture)
    throw Error(Reason::IMAGE_ARCH, "the thread ran on another architecture")
        .remedy("restore on a machine of the same architecture");
  if (!core.has_thread_info()) throw Error(Reason::IMAGE_CORRUPT, "the core image holds no registers");
  const pb::user_x86_regs_entry& in = core.thread_info().gpregs();
  // The kernel refuses bases outside of the user's half (arch/x86/kernel/ptrace.c).
  constexpr uint64_t kKernelHalf = uint64_t{1} << 63;
  if (((in.fs_base() | in.gs_base() | in.ip()) & kKernelHalf) != 0)
    throw Error(Reason::IMAGE_CORRUPT, "the registers point into the kernel");
  Registers& r = state.general;
  r.r15 = in.r15();
  r.r14 = in.r14();
  r.r13 = in.r13();
  r.r12 = in.r12();
  r.rbp = in.bp();
  r.rbx = in.bx();
  r.r11 = in.r11();
  r.r10 = in.r10();
  r.r9 = in.r9();
  r.r8 = in.r8();
  r.rax = in.ax();
  r.rcx = in.cx();
  r.rdx = in.dx();
  r.rsi = in.si();
  r.rdi = in.di();
  r.orig_rax = in.orig_ax();
  r.rip = in.ip();
  r.cs = in.cs();
  r.eflags = in.flags();
  r.rsp = in.sp();
  r.ss = in.ss();
  r.fs_base = in.fs_base();
  r.gs_base = in.gs_base();
  r.ds = in.ds();
  r.es = in.es();
  r.fs = in.fs();
  r.gs = in.gs();
  if (r.cs != (in.mode() == pb::COMPAT ? arch::kCode32 : arch::kCode64))
    throw Error(Reason::IMAGE_CORRUPT, "the code segment is not that of the thread's mode");
  state.extended = decode_xsave(core.thread_info().fpregs(), XsaveLayout::of_this_cpu());
}

void CpuRegisters::encode_extension(const State& state, pb::extension_task& task) {
  if (state.restart_code != 0) task.mutable_thread()->set_restart_code(state.restart_code);
  if (state.wait_left_ns) task.mutable_thread()->set_wait_left_ns(*state.wait_left_ns);
  for (const ExtraComponent& extra : extra_components(state.extended, XsaveLayout::of_this_cpu())) {
    pb::extension_xstate& out = *task.mutable_thread()->add_xstate();
    out.set_component(extra.number);
    out.set_data(extra.bytes.data(), extra.bytes.size());
  }
}

void CpuRegisters::decode_extension(const pb::extension_task& task, State& state) {
  state.restart_code = task.thread().restart_code();
  if (state.restart_code != 0 && (state.restart_code < 512 || state.restart_code > 514))
    throw Error(Reason::IMAGE_CORRUPT, "no call is interrupted in the way that is told of the thread");
  if (task.thread().has_wait_left_ns()) state.wait_left_ns = task.thread().wait_left_ns();
  for (const pb::extension_xstate& in : task.thread().xstate()) {
    const auto bytes = std::as_bytes(std::span(in.data()));
    place_extra({in.component(), {bytes.begin(), bytes.end()}}, XsaveLayout::of_this_cpu(), state.extended);
  }
}

void CpuRegisters::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  const XsaveLayout& layout = XsaveLayout::of_this_cpu();
  const uint64_t wanted = layout.on_demand & components_in_use(state.extended);
  if (wanted == 0) return;
  size_t bytes = 0;
  for (uint64_t left = wanted; left != 0; left &= left - 1)
    bytes += layout.components[static_cast<size_t>(__builtin_ctzll(left))].bytes;
  const BatchData room = batch.space(arch::touched_state_bytes(bytes));
  batch.must(static_cast<long>(arch::kTouchExtendedState), {room, wanted});
}

std::optional<SleepRestart> pending_sleep(const CpuRegisters::State& state) {
  const Registers& r = state.general;
  const uint64_t restart = arch::restart_call_number(r);
  if (r.rax != restart) return std::nullopt;
  const bool compat = arch::is_compat(r);
  const bool known = can_have_restart_block(r.orig_rax, compat);
  if (!known && r.orig_rax != restart) return std::nullopt;
  SleepRestart sleep{.number = r.orig_rax, .compat = compat, .known = known, .left_ns = state.wait_left_ns};
  for (int i = 0; i < 6; ++i) sleep.args[i] = arch::call_argument(r, i);
  return sleep;
}

void interrupt_by_handler(CpuRegisters::State& state, bool handler_restarts) {
  constexpr uint32_t kRestartSys = 512, kRestartNoHand = 514;
  const bool fails = pending_sleep(state) || state.restart_code == kRestartNoHand ||
                     (state.restart_code == kRestartSys && !handler_restarts);
  if (fails) arch::finish_rewound_call(state.general, -EINTR);
}

void load_registers(const CpuRegisters::State& state, Tracee& thread) {
  Registers regs = state.general;
  // A number here would make the kernel take the result for that of a call and look for restart codes in it.
  regs.orig_rax = ~uint64_t{0};
  thread.set_own_registers(regs);
  thread.set_extended_state(state.extended);
}

bool runs_compat_code(const pb::core_entry& core) {
  return core.thread_info().gpregs().mode() == pb::COMPAT;
}

void encode_clear_tid_address(uint64_t address, pb::core_entry& core) {
  core.mutable_thread_info()->set_clear_tid_addr(address);
}

uint64_t decode_clear_tid_address(const pb::core_entry& core) {
  return core.thread_info().clear_tid_addr();
}

}  // namespace stasis

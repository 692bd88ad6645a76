#include "tracee/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "kernel/uapi.h"

namespace stasis {

std::vector<SeccompFilter> read_seccomp_filters(const Tracee& thread) {
  const auto get_filter = static_cast<__ptrace_request>(uapi::ptrace_seccomp_get_filter);
  const auto get_metadata = static_cast<__ptrace_request>(uapi::ptrace_seccomp_get_metadata);
  std::vector<SeccompFilter> out;
  SeccompProgram longest(BPF_MAXINSNS);
  for (uint64_t index = 0;; ++index) {
    const long count = ptrace(get_filter, thread.tid(), index, longest.data());
    if (count < 0 && errno == ENOENT) return out;
    if (count < 0)
      throw Error(Reason::NO_PRIVILEGE, "its seccomp filters cannot be read")
          .object(thread.describe())
          .error_number(errno)
          .remedy("run with CAP_SYS_ADMIN in the initial user namespace and outside of any seccomp filter");
    SeccompFilter filter{{longest.begin(), longest.begin() + count}, 0};
    uapi::seccomp_metadata metadata{.filter_off = index, .flags = 0};
    // Not there before 4.16.
    if (ptrace(get_metadata, thread.tid(), sizeof metadata, &metadata) > 0)
      filter.flags = static_cast<uint32_t>(metadata.flags);
    out.push_back(std::move(filter));
  }
}

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#endif

// Classic BPF as seccomp allows it (net/core/filter.c, seccomp_check_filter): loads of struct seccomp_data, scratch
// memory, arithmetic without remainders, jumps, return.
class Machine {
 public:
  explicit Machine(const seccomp_data& data) : data_(data) {}

  uint32_t run(std::span<const sock_filter> program) {
    for (size_t pc = 0; pc < program.size(); ++pc) {
      const sock_filter& f = program[pc];
      switch (BPF_CLASS(f.code)) {
        case BPF_LD:
        case BPF_LDX:
          load(f);
          break;
        case BPF_ST:
          memory_[f.k % BPF_MEMWORDS] = a_;
          break;
        case BPF_STX:
          memory_[f.k % BPF_MEMWORDS] = x_;
          break;
        case BPF_ALU:
          // A division by a zero register ends the program with the value 0 (net/core/filter.c, bpf_convert_filter).
          if (BPF_OP(f.code) == BPF_DIV && operand(f) == 0) return SECCOMP_RET_KILL_THREAD;
          a_ = alu(f);
          break;
        case BPF_JMP:
          pc += jump(f);
          break;
        case BPF_RET:
          return BPF_RVAL(f.code) == BPF_A ? a_ : f.k;
        default:  // BPF_MISC
          (BPF_MISCOP(f.code) == BPF_TAX ? x_ : a_) = BPF_MISCOP(f.code) == BPF_TAX ? a_ : x_;
      }
    }
    return SECCOMP_RET_KILL_PROCESS;  // the kernel refuses programs that do not return
  }

 private:
  void load(const sock_filter& f) {
    uint32_t& to = BPF_CLASS(f.code) == BPF_LD ? a_ : x_;
    switch (BPF_MODE(f.code)) {
      case BPF_IMM:
        to = f.k;
        break;
      case BPF_ABS:
        if (f.k + 4 <= sizeof data_) std::memcpy(&to, reinterpret_cast<const char*>(&data_) + f.k, 4);
        break;
      case BPF_MEM:
        to = memory_[f.k % BPF_MEMWORDS];
        break;
      default:  // BPF_LEN
        to = sizeof data_;
    }
  }

  uint32_t operand(const sock_filter& f) const { return BPF_SRC(f.code) == BPF_X ? x_ : f.k; }

  uint32_t alu(const sock_filter& f) const {
    const uint32_t v = operand(f);
    switch (BPF_OP(f.code)) {
      case BPF_ADD:
        return a_ + v;
      case BPF_SUB:
        return a_ - v;
      case BPF_MUL:
        return a_ * v;
      case BPF_DIV:
        return a_ / v;
      case BPF_OR:
        return a_ | v;
      case BPF_AND:
        return a_ & v;
      case BPF_XOR:
        return a_ ^ v;
      case BPF_LSH:
        return a_ << (v & 31);
      case BPF_RSH:
        return a_ >> (v & 31);
      default:  // BPF_NEG
        return 0u - a_;
    }
  }

  // How many instructions are skipped.
  size_t jump(const sock_filter& f) const {
    if (BPF_OP(f.code) == BPF_JA) return f.k;
    const uint32_t v = operand(f);
    bool taken = false;
    switch (BPF_OP(f.code)) {
      case BPF_JEQ:
        taken = a_ == v;
        break;
      case BPF_JGT:
        taken = a_ > v;
        break;
      case BPF_JGE:
        taken = a_ >= v;
        break;
      default:  // BPF_JSET
        taken = (a_ & v) != 0;
    }
    return taken ? f.jt : f.jf;
  }

  seccomp_data data_;
  uint32_t a_ = 0, x_ = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory_{};
};

}  // namespace

uint32_t evaluate_seccomp(std::span<const sock_filter> program, uint64_t number, std::span<const uint64_t> args,
                          uint64_t instruction_pointer) {
  seccomp_data data{};
  data.nr = static_cast<int>(number);
  data.arch = kArch;
  data.instruction_pointer = instruction_pointer;
  for (size_t i = 0; i < args.size() && i < 6; ++i) data.args[i] = args[i];
  return Machine(data).run(program);
}

bool allow_way_home(std::span<const SeccompFilter> filters, const Tracee& thread, ReportSignal report) {
  const uint64_t tgkill[] = {static_cast<uint64_t>(thread.tgid()), static_cast<uint64_t>(thread.tid()),
                             static_cast<uint64_t>(report.number)};
  const uint64_t sigprocmask[] = {SIG_SETMASK, 0, 0, sizeof(uint64_t)};
  const auto allows = [](const SeccompFilter& f, uint64_t number, std::span<const uint64_t> args) {
    const uint32_t answer = evaluate_seccomp(f.program, number, args, 0) & SECCOMP_RET_ACTION_FULL;
    return answer == SECCOMP_RET_ALLOW || answer == SECCOMP_RET_LOG;
  };
  return std::all_of(filters.begin(), filters.end(), [&](const SeccompFilter& f) {
    return allows(f, SYS_tgkill, tgkill) && allows(f, SYS_rt_sigprocmask, sigprocmask);
  });
}

bool may_notify(std::span<const sock_filter> program) {
  // An answer that is computed starts from constants, too.
  return std::any_of(program.begin(), program.end(), [](const sock_filter& f) {
    return (BPF_CLASS(f.code) == BPF_RET || BPF_CLASS(f.code) == BPF_LD || BPF_CLASS(f.code) == BPF_ALU) &&
           (f.k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF;
  });
}

}  // namespace stasis

#include "objects/task/landlock_domain.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <span>
#include <utility>

#include "base/fd.h"
#include "kernel/proc.h"

namespace stasis {

namespace {

// Whether a task, if it is in no domain, may look at this program: its real ids must be all that this program has, and
// it must be permitted as much (PTRACE_MODE_REALCREDS in ptrace(2)).
bool may_look_at_us(const ProcStatus& status) {
  static const ProcStatus own = parse_status(ProcDir(getpid()).read("status"));
  static const bool dumpable = prctl(PR_GET_DUMPABLE) == 1;
  const auto all_are = [](const auto& ids, uint32_t id) {
    return std::ranges::all_of(std::span(ids).first(3), [&](uint32_t i) { return i == id; });
  };
  return dumpable && all_are(own.uid, status.uid[0]) && all_are(own.gid, status.gid[0]) &&
         (own.cap_permitted & ~status.cap_permitted) == 0;
}

// A domain shows in one thing only: its members may not look at processes outside of it that they could otherwise look
// at. So there is a process outside, and the task looks at it by a call that changes nothing. For a task with the ids
// and capabilities of this program that process is this program; for others it is one with their ids and no
// capabilities.
class Witnesses {
 public:
  Witnesses() = default;
  Witnesses(const Witnesses&) = delete;
  Witnesses& operator=(const Witnesses&) = delete;
  ~Witnesses() {
    for (const auto& [ids, pid] : pids_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }
  // -1 if this program may not take the ids.
  pid_t of(const ProcStatus& status) {
    if (may_look_at_us(status)) return getpid();
    const uid_t uid = status.uid[0];
    const gid_t gid = status.gid[0];
    const auto [at, fresh] = pids_.try_emplace({uid, gid}, -1);
    if (fresh) at->second = start(uid, gid);
    return at->second;
  }

 private:
  static pid_t start(uid_t uid, gid_t gid) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    const Fd read_end(ends[0]);
    Fd write_end(ends[1]);
    const pid_t parent = getpid();
    const pid_t pid = _Fork();
    if (pid == 0) stand(parent, uid, gid, ends[1]);
    write_end.reset();
    if (pid < 0) return -1;
    char ready = 0;
    ssize_t got;
    // An interrupt is noticed between the stages.
    do got = read(read_end.get(), &ready, 1);
    while (got < 0 && errno == EINTR);
    if (got == 1) return pid;
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return -1;
  }

  // The child: plain system calls, as it is a copy of one thread of several.
  [[noreturn]] static void stand(pid_t parent, uid_t uid, gid_t gid, int ready_fd) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[2]{};
    // Whoever has these ids may look at this process, and would find the descriptors.
    if (ready_fd > 0) close_range(0, static_cast<unsigned>(ready_fd) - 1, 0);
    close_range(static_cast<unsigned>(ready_fd) + 1, ~0u, 0);
    if (syscall(SYS_setresgid, gid, gid, gid) != 0 || syscall(SYS_setresuid, uid, uid, uid) != 0 ||
        syscall(SYS_capset, &header, none) != 0)
      _exit(1);
    // The changes above took these.
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || write(ready_fd, "", 1) != 1) _exit(1);
    close(ready_fd);
    for (;;) pause();
  }

  std::map<std::pair<uid_t, gid_t>, pid_t> pids_;
};

Witnesses& witnesses() {
  static Witnesses all;
  return all;
}

bool has_landlock() {
  static const bool has =
      syscall(SYS_landlock_create_ruleset, nullptr, 0ul, uint64_t{LANDLOCK_CREATE_RULESET_VERSION}) > 0;
  return has;
}

}  // namespace

void LandlockDomain::prepare(const ProcStatus& root) {
  if (has_landlock()) witnesses().of(root);
}

void LandlockDomain::ask(const LookView& view, SyscallBatch& batch, Ask& ask, State&) {
  if (!has_landlock()) return;
  const pid_t witness = witnesses().of(view.status);
  if (witness < 0) return;
  const BatchData head = batch.space(2 * sizeof(uint64_t));
  ask.look_at_witness = batch.call(SYS_get_robust_list, {witness, head, head.part(sizeof(uint64_t), sizeof(uint64_t))});
}

void LandlockDomain::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.restricted = ask.look_at_witness && batch.result(*ask.look_at_witness) == -EPERM;
}

std::optional<Loss> LandlockDomain::loss(const State& state) {
  if (!state.restricted) return std::nullopt;
  return Loss{"landlock", "it is restricted by a Landlock domain"};
}

}  // namespace stasis

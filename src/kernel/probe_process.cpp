// Probes: tracing, identity, namespaces, attributes of a task.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "kernel/probe_list.h"
#include "kernel/probe_support.h"
#include "kernel/proc.h"
#include "kernel/process.h"

namespace stasis::probes {
namespace {

constexpr unsigned kPtracePokeuser = 6;

int allow_everything_filter() {
  sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  sock_fprog program{1, &allow};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

FeatureResult own_file_exists(const char* path, std::string_view what) {
  return by_errno(::access(path, F_OK), what);
}

FeatureResult on_traced_child(unsigned options, int (*setup)(), FeatureResult (*ask)(const TracedChild&)) {
  return in_child([=] {
    const TracedChild child(options, setup);
    return child.state().supported ? ask(child) : child.state();
  });
}

// A pid that was just in use and is free now.
pid_t free_pid() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  if (child > 0) ::waitpid(child, nullptr, 0);
  return child;
}

}  // namespace

FeatureResult ptrace_seize() {
  return on_traced_child(uapi::ptrace_o_exitkill, nullptr, [](const TracedChild&) { return supported(); });
}

FeatureResult seccomp_suspend() {
  return on_traced_child(uapi::ptrace_o_suspend_seccomp, allow_everything_filter,
                         [](const TracedChild&) { return supported(); });
}

FeatureResult seccomp_filters() {
  return on_traced_child(0, allow_everything_filter, [](const TracedChild& child) {
    const long instructions = child.request(uapi::ptrace_seccomp_get_filter, 0, nullptr);
    if (instructions == 1) return supported();
    return by_result(instructions < 0 ? instructions : -EINVAL, "a filter cannot be read back",
                     "CAP_SYS_ADMIN in the initial user namespace");
  });
}

FeatureResult get_rseq_conf() {
  return on_traced_child(0, nullptr, [](const TracedChild& child) {
    uapi::ptrace_rseq_configuration configuration;
    return by_result(child.request(uapi::ptrace_get_rseq_configuration, sizeof configuration, &configuration),
                     "the kernel does not tell the restartable sequence of a task");
  });
}

FeatureResult breakpoints() {
#ifdef __x86_64__
  return on_traced_child(0, nullptr, [](const TracedChild& child) {
    constexpr unsigned long first = offsetof(user, u_debugreg);
    constexpr unsigned long control = first + 7 * sizeof(long);
    const long placed = child.request(kPtracePokeuser, first, reinterpret_cast<const void*>(&free_pid));
    if (placed < 0) return by_result(placed, "a debug register cannot be set");
    // Local enable of breakpoint 0, on execution, one byte.
    return by_result(child.request(kPtracePokeuser, control, reinterpret_cast<const void*>(1ul)),
                     "a breakpoint cannot be enabled");
  });
#else
  return missing("debug registers are used on x86 only");
#endif
}

FeatureResult clone3_set_tid() {
  // More ids than the kernel nests namespaces: EINVAL where the argument is known, ENOSYS or E2BIG where not.
  uapi::clone_args args;
  pid_t ids[33] = {};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(ids);
  args.set_tid_size = 33;
  const long refused = clone3(args);
  if (refused != -EINVAL) return by_result(refused < 0 ? refused : -EINVAL, "clone3 cannot choose pids");
  return in_child([args]() mutable {
    long made = -EEXIST;
    // Somebody else may take the number meanwhile.
    for (int tries = 0; tries < 5 && made == -EEXIST; ++tries) {
      const pid_t pid = free_pid();
      if (pid < 0) return by_errno(-1, "cannot fork");
      args.set_tid = reinterpret_cast<uint64_t>(&pid);
      args.set_tid_size = 1;
      made = clone3(args);
      if (made == 0) ::_exit(0);
      if (made > 0) ::waitpid(static_cast<pid_t>(made), nullptr, 0);
      if (made > 0 && made != pid) return missing("clone3 made a child with another pid");
    }
    return by_result(made, "a task with a chosen pid cannot be made", "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN");
  });
}

FeatureResult pidfd_getfd() {
  const Fd self(pidfd_open(::getpid()));
  if (!self) return by_result(pidfd_open(::getpid()), "the kernel has no pidfd_open");
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  const int twin = stasis::pidfd_getfd(self.get(), event.get());
  const Fd closes_it(twin);
  return by_result(twin, "pidfd_getfd fails");
}

// Pidfds are kept between pre-dumps as messages in a socket: they must survive the journey and still take signals.
FeatureResult pidfd_store() {
  const Fd self(pidfd_open(::getpid()));
  if (!self) return missing("the kernel has no pidfd_open");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0) return by_errno(-1, "cannot make a socket pair");
  const Fd sender(ends[0]);
  const Fd receiver(ends[1]);
  char byte = 'p';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int sent = self.get();
  __builtin_memcpy(CMSG_DATA(header), &sent, sizeof sent);
  if (::sendmsg(sender.get(), &message, 0) < 0 || ::recvmsg(receiver.get(), &message, MSG_CMSG_CLOEXEC) < 0)
    return by_errno(-1, "a pidfd cannot be sent over a socket");
  header = CMSG_FIRSTHDR(&message);
  if (header == nullptr) return missing("a pidfd is lost in a socket");
  int received = -1;
  __builtin_memcpy(&received, CMSG_DATA(header), sizeof received);
  const Fd closes_it(received);
  return by_result(pidfd_send_signal(received, 0), "a received pidfd takes no signals");
}

FeatureResult kcmp_file() {
  const Fd one(::eventfd(0, EFD_CLOEXEC));
  const Fd twin(::fcntl(one.get(), F_DUPFD_CLOEXEC, 0));
  const int result = kcmp(::getpid(), ::getpid(), uapi::kcmp_file, static_cast<uint64_t>(one.get()),
                          static_cast<uint64_t>(twin.get()));
  return by_result(result > 0 ? -EINVAL : result, "kcmp does not compare files");
}

FeatureResult kcmp_epoll() {
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  epoll_event registration{};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, event.get(), &registration) < 0)
    return by_errno(-1, "cannot register with epoll");
  const uapi::kcmp_epoll_slot slot{static_cast<uint32_t>(epoll.get()), static_cast<uint32_t>(event.get()), 0};
  const int result = stasis::kcmp_epoll(::getpid(), event.get(), ::getpid(), slot);
  return by_result(result > 0 ? -EINVAL : result, "kcmp does not find epoll targets");
}

FeatureResult ns_pid() {
  ProcDir self(::getpid());
  return parse_status(self.read("status")).ns_pid.size() > 0 ? supported() : missing("status has no line NSpid");
}

FeatureResult userns() {
  FeatureResult exists = own_file_exists("/proc/self/ns/user", "the kernel has no user namespaces");
  if (!exists.supported) return exists;
  return in_child([] {
    return by_errno(::unshare(CLONE_NEWUSER), "a user namespace cannot be made (sysctl user.max_user_namespaces)");
  });
}

FeatureResult cgroupns() {
  return own_file_exists("/proc/self/ns/cgroup", "the kernel has no cgroup namespaces");
}

FeatureResult timens() {
  FeatureResult exists = own_file_exists("/proc/self/ns/time", "the kernel has no time namespaces");
  if (!exists.supported) return exists;
  return own_file_exists("/proc/self/timens_offsets", "the kernel has no timens_offsets");
}

// Writing back the value that is there proves that it can be set; an unset one cannot be written over by itself.
FeatureResult loginuid() {
  return in_child([] {
    ProcDir self(::getpid());
    const auto text = self.try_read("loginuid");
    if (!text) return missing("the kernel keeps no login ids");
    const std::string value(*text);
    const Fd file = self.open("loginuid", O_WRONLY);
    return by_errno(::write(file.get(), value.data(), value.size()), "the login id cannot be written",
                    "CAP_AUDIT_CONTROL");
  });
}

FeatureResult apparmor_stacking() {
  const Fd file(::open("/sys/kernel/security/apparmor/features/domain/stack", O_RDONLY | O_CLOEXEC));
  if (!file) return by_errno(-1, "AppArmor does not tell about stacking", "access to securityfs");
  char text[4] = {};
  const ssize_t got = ::read(file.get(), text, sizeof text - 1);
  return got >= 3 && std::string_view(text, 3) == "yes" ? supported() : missing("AppArmor cannot stack profiles");
}

FeatureResult timer_cr_ids() {
  return by_errno(::prctl(uapi::pr_timer_create_restore_ids, 2, 0, 0, 0), "timers cannot be made with chosen ids");
}

}  // namespace stasis::probes

#include "kernel/own_process.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cerrno>

#include "base/error.h"

namespace stasis {

void in_own_process(const std::function<void()>& work) {
  constexpr size_t kStackBytes = 256 << 10;
  void* stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) throw_errno("cannot get memory for a stack", Reason::SYSTEM);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const auto run = [](void* argument) {
    (*static_cast<const std::function<void()>*>(argument))();
    return 0;
  };
  // This thread sleeps until the end of the other one, which uses its thread-local memory (vfork(2)).
  const pid_t pid = ::clone(run, static_cast<char*>(stack) + kStackBytes, CLONE_VM | CLONE_FILES | CLONE_VFORK,
                            const_cast<std::function<void()>*>(&work));
  const int error = errno;
  if (pid >= 0) ::waitpid(pid, nullptr, __WALL);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  ::munmap(stack, kStackBytes);
  errno = error;
  if (pid < 0) throw_errno("cannot make a process", Reason::SYSTEM);
}

}  // namespace stasis

#include "kernel/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/fd.h"

namespace stasis {
namespace {

TEST(Process, ResultsAreNegativeErrnoAndErrnoStays) {
  errno = 77;
  EXPECT_EQ(pidfd_open(-1), -EINVAL);
  EXPECT_EQ(errno, 77);
  try {
    fail_if(-ESRCH, "cannot try", Reason::TASK_VANISHED);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_number(), ESRCH);
    EXPECT_EQ(error.reason(), Reason::TASK_VANISHED);
  }
  EXPECT_EQ(fail_if(5, "cannot try"), 5);
}

TEST(Process, PidfdGivesSignalsAndDescriptors) {
  const Fd self(pidfd_open(getpid()));
  ASSERT_TRUE(self);
  EXPECT_EQ(pidfd_send_signal(self.get(), 0), 0);
  const Fd event(eventfd(0, EFD_CLOEXEC));
  const Fd twin(pidfd_getfd(self.get(), event.get()));
  ASSERT_TRUE(twin);
  EXPECT_EQ(
      kcmp(getpid(), getpid(), uapi::kcmp_file, static_cast<uint64_t>(event.get()), static_cast<uint64_t>(twin.get())),
      0);
  EXPECT_NE(
      kcmp(getpid(), getpid(), uapi::kcmp_file, static_cast<uint64_t>(event.get()), static_cast<uint64_t>(self.get())),
      0);
  EXPECT_EQ(pidfd_getfd(self.get(), 1 << 20), -EBADF);
}

TEST(Process, KcmpEpollFindsTheTarget) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  const Fd event(eventfd(0, EFD_CLOEXEC));
  const Fd other(eventfd(0, EFD_CLOEXEC));
  epoll_event registration{};
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, event.get(), &registration), 0);
  const uapi::kcmp_epoll_slot slot{static_cast<uint32_t>(epoll.get()), static_cast<uint32_t>(event.get()), 0};
  EXPECT_EQ(kcmp_epoll(getpid(), event.get(), getpid(), slot), 0);
  EXPECT_GT(kcmp_epoll(getpid(), other.get(), getpid(), slot), 0);
}

TEST(Process, Clone3MakesAChild) {
  uapi::clone_args args;
  args.exit_signal = SIGCHLD;
  const long child = clone3(args);
  if (child == 0) _exit(7);
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(static_cast<pid_t>(child), &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Process, VmTransfersStopAtHoles) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* area = static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(area, MAP_FAILED);
  ASSERT_EQ(munmap(area + page, page), 0);
  const uint64_t remote = reinterpret_cast<uint64_t>(area);
  std::string text(2 * page, 'x');
  EXPECT_EQ(process_vm_write_all(getpid(), remote, text.data(), page), 0);
  EXPECT_EQ(area[page - 1], 'x');
  area[5] = 'y';
  std::string back(2 * page, '\0');
  EXPECT_EQ(process_vm_read_all(getpid(), remote, back.data(), page), 0);
  EXPECT_EQ(back[5], 'y');
  EXPECT_EQ(process_vm_read_all(getpid(), remote, back.data(), 2 * page), -EFAULT);
  EXPECT_EQ(process_vm_write_all(getpid(), remote, text.data(), 2 * page), -EFAULT);
  munmap(area, page);
}

TEST(Process, AttributesOfThisThread) {
  RobustList list;
  EXPECT_EQ(get_robust_list(gettid(), list), 0);
  EXPECT_EQ(list.length, 24u);
  uapi::sched_attr attr;
  ASSERT_EQ(sched_getattr(gettid(), attr), 0);
  EXPECT_EQ(attr.sched_policy, static_cast<uint32_t>(sched_getscheduler(0)));
  rlimit64 limit{};
  ASSERT_EQ(prlimit64(getpid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  EXPECT_GT(limit.rlim_cur, 0u);
  EXPECT_EQ(prlimit64(getpid(), 1000, nullptr, &limit), -EINVAL);
  EXPECT_EQ(tgkill(getpid(), gettid(), 0), 0);
}

TEST(Process, MapQueriesFindAPage) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* area = static_cast<char*>(mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(area, MAP_FAILED);
  area[0] = 1;
  const uint64_t address = reinterpret_cast<uint64_t>(area);
  const Fd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uapi::page_region region{};
  uapi::pm_scan_arg arg;
  arg.start = address;
  arg.end = address + page;
  arg.vec = reinterpret_cast<uint64_t>(&region);
  arg.vec_len = 1;
  arg.category_mask = uapi::page_is_present;
  arg.return_mask = uapi::page_is_present;
  const long regions = pagemap_scan(pagemap.get(), arg);
  if (regions != -ENOTTY) {
    EXPECT_EQ(regions, 1);
    EXPECT_EQ(region.start, address);
    EXPECT_EQ(region.end, address + page);
  }
  munmap(area, page);
}

TEST(KernelIsAtLeast, ComparesBothNumbers) {
  EXPECT_TRUE(kernel_is_at_least(4, 999));
  EXPECT_FALSE(kernel_is_at_least(999, 0));
  utsname host;
  ASSERT_EQ(uname(&host), 0);
  unsigned major = 0, minor = 0;
  ASSERT_EQ(std::sscanf(host.release, "%u.%u", &major, &minor), 2);
  EXPECT_TRUE(kernel_is_at_least(major, minor));
  EXPECT_FALSE(kernel_is_at_least(major, minor + 1));
  EXPECT_FALSE(kernel_is_at_least(major + 1, 0));
}

}  // namespace
}  // namespace stasis

#include "tracee/puppet.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <set>

#include "kernel/proc.h"
#include "kernel/process.h"
#include "kernel/uapi.h"
#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

constexpr int kChannel = 10;
constexpr int kChannels = 5;
constexpr uint64_t kAreaAt = 0x5000'0000'0000, kMemoryAt = 0x5100'0000'0000;

bool may_choose_ids() {
  const uint64_t caps = status_of(getpid()).cap_effective;
  constexpr int kSysAdmin = 21, kCheckpointRestore = 40;
  return (caps >> kSysAdmin & 1) != 0 || (caps >> kCheckpointRestore & 1) != 0;
}
#define NEEDS_CHOSEN_IDS() \
  if (!may_choose_ids()) GTEST_SKIP() << "clone3(set_tid) needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"

// A pid that nothing has; high, so that the kernel's counter is elsewhere.
pid_t free_pid(int offset) {
  // Far from the next ones of the kernel, and from those that another run of this test takes at the same time.
  static const pid_t most = std::atoi(std::string(read_system_file("sys/kernel/pid_max")).c_str());
  static const pid_t base = 1000 + static_cast<pid_t>(getpid() * 997L % (most - 3000));
  static std::set<pid_t> given;
  pid_t pid = base + offset;
  while (given.contains(pid) || kill(pid, 0) == 0 || errno != ESRCH) ++pid;
  given.insert(pid);
  return pid;
}

class PuppetTest : public ::testing::Test {
 protected:
  std::unique_ptr<Puppet> start(pid_t pid = 0) {
    return Puppet::start_root(
        {.pid = pid, .channels = &channels_},
        {.slots = 4, .first_slot_bytes = 65536, .other_slot_bytes = 8192, .area_address = kAreaAt}, waiter_);
  }
  std::unique_ptr<Puppet> clone(Puppet& parent, pid_t pid) {
    SyscallBatch batch;
    Puppet::clone_process(batch, pid, SIGCHLD);
    parent.run(batch, waiter_);
    return Puppet::adopt_child(parent, pid, waiter_);
  }
  void map_memory(Puppet& p, size_t bytes, int protection = PROT_READ | PROT_WRITE) {
    SyscallBatch batch;
    batch.must(SYS_mmap, {kMemoryAt, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0});
    p.run(batch, waiter_);
  }

  StopWaiter waiter_;
  FdChannels channels_{kChannel, kChannels};
};

// All that a process without memory of its own shows.
bool is_nothing_but_the_kernels(const std::string& maps) {
  return std::ranges::all_of(parse_maps(maps), [](const Mapping& m) { return m.name == "[vsyscall]"; });
}

TEST_F(PuppetTest, RootHasNothingButItsArea) {
  const auto root = start();
  const auto maps = parse_maps(maps_of(root->pid()));
  for (const Mapping& m : maps)
    EXPECT_TRUE(m.name == "[vsyscall]" || (m.start >= kAreaAt && m.end <= root->host().area().end())) << m.name;
  std::vector<int> channels(kChannels);
  std::iota(channels.begin(), channels.end(), kChannel);
  EXPECT_EQ(ProcDir(root->pid()).list("fd"), channels) << "the channels and nothing else";
  EXPECT_EQ(status_of(root->pid()).sig_ignored, 0u);
}

TEST_F(PuppetTest, RunsBatches) {
  const auto root = start();
  SyscallBatch batch;
  const auto pid = batch.must(SYS_getpid, {});
  root->run(batch, waiter_);
  EXPECT_EQ(batch.result(pid), root->pid());
}

TEST_F(PuppetTest, HasThePidAskedFor) {
  NEEDS_CHOSEN_IDS();
  const pid_t wanted = free_pid(100);
  const auto root = start(wanted);
  EXPECT_EQ(root->pid(), wanted);
  EXPECT_EQ(reason_of([&] { start(wanted); }), Reason::PID_TAKEN);
}

TEST_F(PuppetTest, ChildrenHaveChosenPidsAndACopyOfTheMemory) {
  NEEDS_CHOSEN_IDS();
  const auto root = start();
  map_memory(*root, 3 * 4096);
  ASSERT_EQ(process_vm_write_all(root->pid(), kMemoryAt, "root", 4), 0);
  std::vector<pid_t> pids;
  for (int i = 0; i < 20; ++i) pids.push_back(free_pid(200 + i));
  SyscallBatch batch;
  for (pid_t pid : pids) Puppet::clone_process(batch, pid, SIGCHLD);
  root->run(batch, waiter_);
  std::vector<std::unique_ptr<Puppet>> children;
  for (pid_t pid : pids) children.push_back(Puppet::adopt_child(*root, pid, waiter_));

  for (size_t i = 0; i < children.size(); ++i) {
    EXPECT_EQ(stat_of(pids[i]).ppid, root->pid());
    char text[4];
    ASSERT_EQ(process_vm_read_all(pids[i], kMemoryAt, text, 4), 0);
    EXPECT_EQ(std::string(text, 4), "root");
    ASSERT_EQ(process_vm_write_all(pids[i], kMemoryAt, "kids", 4), 0);
    SyscallBatch own;
    const auto pid = own.must(SYS_getpid, {});
    children[i]->run(own, waiter_);
    EXPECT_EQ(own.result(pid), pids[i]);
  }
  char text[4];
  ASSERT_EQ(process_vm_read_all(root->pid(), kMemoryAt, text, 4), 0);
  EXPECT_EQ(std::string(text, 4), "root") << "what children write is theirs";
}

TEST_F(PuppetTest, GrandchildrenAreMadeByTheirParents) {
  NEEDS_CHOSEN_IDS();
  const auto root = start();
  const auto child = clone(*root, free_pid(300));
  const auto grandchild = clone(*child, free_pid(310));
  EXPECT_EQ(stat_of(grandchild->pid()).ppid, child->pid());
}

TEST_F(PuppetTest, ThreadsHaveChosenIds) {
  NEEDS_CHOSEN_IDS();
  const auto root = start();
  std::vector<pid_t> tids;
  for (int i = 0; i < 3; ++i) tids.push_back(free_pid(400 + i));
  SyscallBatch batch;
  for (pid_t tid : tids) Puppet::clone_thread(batch, tid);
  root->run(batch, waiter_);
  for (pid_t tid : tids) root->adopt_thread(tid, waiter_);

  std::vector<SyscallBatch> batches(tids.size());
  std::vector<SyscallBatch::Call> calls;
  for (unsigned i = 0; i < tids.size(); ++i) {
    calls.push_back(batches[i].must(SYS_gettid, {}));
    root->host().start(root->threads()[i + 1], i + 1, batches[i]);
  }
  for (unsigned i = 0; i < tids.size(); ++i) {
    root->host().finish(root->threads()[i + 1], i + 1, batches[i], waiter_);
    EXPECT_EQ(batches[i].result(calls[i]), tids[i]);
  }
  EXPECT_EQ(ProcDir(root->pid()).threads().size(), 4u);
}

TEST_F(PuppetTest, DescriptorsAreHandedOver) {
  const auto root = start();
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC)), zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const int sent[] = {null.get(), zero.get()};
  channels_.send(3, sent);
  SyscallBatch batch;
  channels_.receive(batch, 3, 2);
  root->run(batch, waiter_);
  // The lowest free numbers in order.
  EXPECT_EQ(ProcDir(root->pid()).readlink("fd/0"), "/dev/null");
  EXPECT_EQ(ProcDir(root->pid()).readlink("fd/1"), "/dev/zero");
}

TEST_F(PuppetTest, AFullMessageOfDescriptorsArrives) {
  const auto root = start();
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> sent(FdChannels::kMost, null.get());
  channels_.send(0, sent);
  SyscallBatch batch;
  channels_.receive(batch, 0, sent.size());
  root->run(batch, waiter_);
  EXPECT_EQ(ProcDir(root->pid()).list("fd").size(), FdChannels::kMost + kChannels);
}

TEST_F(PuppetTest, NothingIsLeftOfTheStubOrTheArea) {
  const auto root = start();
  root->start_unmap();
  root->enter_unmap(waiter_);
  root->finish_unmap(waiter_);
  EXPECT_TRUE(is_nothing_but_the_kernels(maps_of(root->pid()))) << maps_of(root->pid());
}

TEST_F(PuppetTest, IsKilledByItsOwner) {
  NEEDS_CHOSEN_IDS();
  pid_t root_pid, child_pid;
  {
    const auto root = start();
    const auto child = clone(*root, free_pid(500));
    root_pid = root->pid();
    child_pid = child->pid();
  }
  EXPECT_TRUE(wait_until([&] { return kill(root_pid, 0) != 0; }));
  EXPECT_TRUE(wait_until([&] { return kill(child_pid, 0) != 0 || stat_of(child_pid).zombie(); }));
}

TEST_F(PuppetTest, AllDieWithTheController) {
  NEEDS_CHOSEN_IDS();
  auto* pids =
      static_cast<std::atomic<pid_t>*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t first = free_pid(600), second = free_pid(601), thread = free_pid(602);
  const pid_t controller = fork();
  if (controller == 0) {
    try {
      const auto root = start();
      const auto a = clone(*root, first), b = clone(*a, second);
      SyscallBatch batch;
      Puppet::clone_thread(batch, thread);
      root->run(batch, waiter_);
      root->adopt_thread(thread, waiter_);
      pids[0] = root->pid();
      for (;;) pause();
    } catch (const Error& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    _exit(1);
  }
  ASSERT_TRUE(wait_until([&] { return pids[0] != 0; }));
  EXPECT_EQ(kill(second, 0), 0);
  kill(controller, SIGKILL);
  waitpid(controller, nullptr, 0);
  for (const pid_t pid : {pids[0].load(), first, second}) {
    EXPECT_TRUE(wait_until([&] {
      waitpid(pid, nullptr, WNOHANG);
      return kill(pid, 0) != 0;
    })) << "puppet "
        << pid << " outlives its controller";
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  munmap(pids, 4096);
}

#if defined(__x86_64__)
// A released puppet runs the code and the registers that it was given.
TEST_F(PuppetTest, RunsItsOwnCodeAfterTheRelease) {
  auto root = start();
  const pid_t pid = root->pid();
  map_memory(*root, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
  // Counts in steps of rbx.
  const unsigned char code[] = {0x48, 0x01, 0x1d, 0x39, 0x00, 0x00, 0x00,  // add %rbx, 0x39(%rip): the word at 64
                                0xf3, 0x90,                                // pause
                                0xeb, 0xf5};                               // jmp to the start
  ASSERT_EQ(process_vm_write_all(pid, kMemoryAt, code, sizeof code), 0);
  arch::Registers regs = root->leader().own_registers();
  arch::set_instruction_pointer(regs, kMemoryAt);
  regs.rbx = 3;
  root->leader().set_own_registers(regs);
  root->leader().set_own_signal_mask(uint64_t{1} << (SIGUSR1 - 1));
  root->start_unmap();
  root->enter_unmap(waiter_);
  root->finish_unmap(waiter_);
  std::vector<std::unique_ptr<Puppet>> all;
  all.push_back(std::move(root));
  release_all(all);
  all.clear();  // a released puppet survives its owner

  uint64_t count = 0;
  EXPECT_TRUE(
      wait_until([&] { return process_vm_read_all(pid, kMemoryAt + 64, &count, sizeof count) == 0 && count > 1000; }));
  EXPECT_EQ(count % 3, 0u);
  EXPECT_EQ(status_of(pid).tracer_pid, 0);
  EXPECT_EQ(status_of(pid).sig_blocked, uint64_t{1} << (SIGUSR1 - 1));
  EXPECT_EQ(parse_maps(maps_of(pid)).front().start, kMemoryAt);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(PuppetTest, CanBeReleasedStopped) {
  auto root = start();
  const pid_t pid = root->pid();
  map_memory(*root, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
  const unsigned char loop[] = {0xeb, 0xfe};
  ASSERT_EQ(process_vm_write_all(pid, kMemoryAt, loop, sizeof loop), 0);
  arch::Registers regs = root->leader().own_registers();
  arch::set_instruction_pointer(regs, kMemoryAt);
  root->leader().set_own_registers(regs);
  root->set_stop_signal(SIGSTOP);
  root->start_unmap();
  root->enter_unmap(waiter_);
  root->finish_unmap(waiter_);
  std::vector<std::unique_ptr<Puppet>> all;
  all.push_back(std::move(root));
  release_all(all);
  EXPECT_TRUE(wait_until([&] { return stat_of(pid).state == 'T'; }));
  kill(pid, SIGCONT);
  EXPECT_TRUE(wait_until([&] { return stat_of(pid).state == 'R'; }));
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}
#endif

}  // namespace
}  // namespace stasis

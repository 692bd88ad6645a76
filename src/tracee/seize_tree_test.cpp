#include "tracee/seize_tree.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <algorithm>
#include <map>

#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

SeizeOptions within_ms(int limit) {
  return {.deadline = Clock::now() + std::chrono::milliseconds(limit)};
}

std::map<pid_t, char> thread_states(pid_t pid) {
  std::map<pid_t, char> out;
  for (const pid_t tid : ProcDir(pid).threads()) out[tid] = parse_stat(ProcDir::of_thread(pid, tid).read("stat")).state;
  return out;
}

// Everything that exists below `root` was seized and stands still.
void expect_complete(const std::vector<SeizedProcess>& tree) {
  for (const SeizedProcess& p : tree) {
    std::vector<pid_t> seized;
    for (const Tracee& t : p.threads) {
      EXPECT_TRUE(t.stopped()) << t.describe();
      seized.push_back(t.tid());
    }
    if (!p.zombie) {
      ASSERT_FALSE(seized.empty());
      EXPECT_EQ(seized.front(), p.pid) << "the leader comes first";
    }
    EXPECT_TRUE(std::is_sorted(seized.begin() + (seized.empty() ? 0 : 1), seized.end()));
    std::sort(seized.begin(), seized.end());
    std::vector<pid_t> there;
    for (const auto& [tid, state] : thread_states(p.pid)) {
      if (p.zombie) continue;
      there.push_back(tid);
      EXPECT_EQ(state, 't') << "thread " << tid;
    }
    EXPECT_EQ(seized, there);
  }
}

void wait_for_children(Board& board) {
  board.ready = 1;
  for (;;) {
    ++board.beats;
    usleep(500);
  }
}

TEST(SeizeTree, ParentsComeBeforeChildren) {
  Victim victim([](Board& board) {
    for (int i = 0; i < 2; ++i)
      if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fork() == 0) {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          ++board.cells[0];
          for (;;) pause();
        }
        for (;;) pause();
      }
    while (board.cells[0] < 2) usleep(100);
    wait_for_children(board);
  });
  StopWaiter waiter;
  std::vector<pid_t> known;
  {
    const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000),
                                 [&](std::span<const pid_t> pids) { known.assign(pids.begin(), pids.end()); });
    ASSERT_EQ(tree.size(), 5u);
    EXPECT_EQ(tree[0].pid, victim.pid());
    EXPECT_EQ(tree[0].parent, 0);
    for (size_t i = 1; i < tree.size(); ++i) {
      const auto before = std::find_if(tree.begin(), tree.begin() + static_cast<ptrdiff_t>(i),
                                       [&](const SeizedProcess& p) { return p.pid == tree[i].parent; });
      EXPECT_NE(before, tree.begin() + static_cast<ptrdiff_t>(i)) << "pid " << tree[i].pid;
    }
    expect_complete(tree);
  }
  EXPECT_EQ(known.size(), 5u) << "what is known right before the first stop";
  EXPECT_TRUE(victim.beats());
}

TEST(SeizeTree, AStormOfNewThreadsIsStopped) {
  Victim victim([](Board& board) {
    // Two threads that make threads that end, one that makes threads that stay.
    for (int i = 0; i < 2; ++i)
      std::thread([&] {
        for (;;) std::thread([&] { ++board.beats; }).join();
      }).detach();
    std::thread([&] {
      for (int i = 0; i < 150; ++i) {
        std::thread([] {
          for (;;) pause();
        }).detach();
        usleep(100);
      }
      for (;;) pause();
    }).detach();
    board.ready = 1;
    for (;;) pause();
  });
  StopWaiter waiter;
  for (int round = 0; round < 5; ++round) {
    usleep(3000);
    {
      const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000));
      ASSERT_EQ(tree.size(), 1u);
      expect_complete(tree);
      const uint64_t beats = victim.board().beats;
      usleep(5000);
      EXPECT_EQ(victim.board().beats, beats) << "something still runs";
    }
    EXPECT_TRUE(victim.beats());
  }
}

TEST(SeizeTree, AStormOfNewProcessesIsStopped) {
  Victim victim([](Board& board) {
    board.ready = 1;
    for (;;) {
      const pid_t child = fork();
      if (child == 0) {
        ++board.beats;
        _exit(0);
      }
      waitpid(child, nullptr, 0);
    }
  });
  StopWaiter waiter;
  for (int round = 0; round < 10; ++round) {
    {
      const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000));
      ASSERT_GE(tree.size(), 1u);
      expect_complete(tree);
      const uint64_t beats = victim.board().beats;
      usleep(3000);
      EXPECT_EQ(victim.board().beats, beats) << "something still runs";
    }
    EXPECT_TRUE(victim.beats());
  }
}

TEST(SeizeTree, ZombiesBelongToTheTree) {
  Victim victim([](Board& board) {
    const pid_t child = fork();
    if (child == 0) _exit(3);
    while (!stat_of(child).zombie()) usleep(100);
    wait_for_children(board);
  });
  StopWaiter waiter;
  const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000));
  ASSERT_EQ(tree.size(), 2u);
  EXPECT_TRUE(tree[1].zombie);
  EXPECT_TRUE(tree[1].threads.empty());
}

TEST(SeizeTree, OwnAncestorsAreRefused) {
  StopWaiter waiter;
  EXPECT_EQ(reason_of([&] { seize_tree(getpid(), waiter, within_ms(1000)); }), Reason::OWN_ANCESTOR);
  EXPECT_EQ(reason_of([&] { seize_tree(getppid(), waiter, within_ms(1000)); }), Reason::OWN_ANCESTOR);
}

TEST(SeizeTree, WhatIsNotThereIsNamed) {
  StopWaiter waiter;
  EXPECT_EQ(reason_of([&] { seize_tree(0x3ffffff, waiter, within_ms(1000)); }), Reason::NO_SUCH_TASK);
  if (geteuid() == 0) {
    // kthreadd; not visible in a pid namespace of its own
    bool kernel_thread = false;
    try {
      kernel_thread = stat_of(2).kernel_thread();
    } catch (const Error&) {
    }
    if (kernel_thread) {
      EXPECT_EQ(reason_of([&] { seize_tree(2, waiter, within_ms(1000)); }), Reason::KERNEL_THREAD);
    }
  }
}

TEST(SeizeTree, AnErrorLetsEverythingGo) {
  Victim victim([](Board& board) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) pause();
    }
    board.cells[0] = child;
    wait_for_children(board);
  });
  StopWaiter waiter;
  // Somebody else traces the child.
  const Tracee taken =
      Tracee::seize(static_cast<pid_t>(victim.board().cells[0]), static_cast<pid_t>(victim.board().cells[0]));
  EXPECT_EQ(reason_of([&] { seize_tree(victim.pid(), waiter, within_ms(2000)); }), Reason::ALREADY_TRACED);
  EXPECT_EQ(status_of(victim.pid()).tracer_pid, 0);
  EXPECT_TRUE(victim.beats());
}

// ---- vfork -----------------------------------------------------------------------------------------------

// The child of a vfork runs in its parent's memory and keeps it asleep.
void vfork_for_ms(Board& board, int before_exec_ms, const char* program = "/bin/sleep") {
  board.ready = 1;
  const pid_t child = vfork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    board.cells[1] = 1;
    const timespec t{before_exec_ms / 1000, before_exec_ms % 1000 * 1'000'000};
    syscall(SYS_nanosleep, &t, nullptr);
    execl(program, "sleep", "30", static_cast<char*>(nullptr));
    _exit(9);
  }
  board.cells[2] = child;
  for (;;) {
    ++board.beats;
    usleep(500);
  }
}

TEST(SeizeTree, AVforkChildIsLetRunToItsExec) {
  Victim victim([](Board& board) { vfork_for_ms(board, 150); });
  ASSERT_TRUE(wait_until([&] { return victim.board().cells[1] == 1; }));
  StopWaiter waiter;
  pid_t child = 0;
  {
    const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000));
    ASSERT_EQ(tree.size(), 2u);
    child = tree[1].pid;
    expect_complete(tree);
    EXPECT_EQ(stat_of(child).comm, "sleep");
  }
  EXPECT_TRUE(victim.beats());
  kill(child, SIGKILL);
}

TEST(SeizeTree, AVforkChildMayEndInstead) {
  Victim victim([](Board& board) { vfork_for_ms(board, 150, "/no/such/program"); });
  ASSERT_TRUE(wait_until([&] { return victim.board().cells[1] == 1; }));
  StopWaiter waiter;
  {
    const auto tree = seize_tree(victim.pid(), waiter, within_ms(5000));
    ASSERT_EQ(tree.size(), 2u);
    EXPECT_TRUE(tree[1].zombie);
    expect_complete(tree);
  }
  EXPECT_TRUE(victim.beats());
}

TEST(SeizeTree, AVforkThatTakesTooLongIsRefused) {
  Victim victim([](Board& board) { vfork_for_ms(board, 1500); });
  ASSERT_TRUE(wait_until([&] { return victim.board().cells[1] == 1; }));
  StopWaiter waiter;
  EXPECT_EQ(reason_of([&] { seize_tree(victim.pid(), waiter, within_ms(5000)); }), Reason::VFORK_PENDING);
  EXPECT_TRUE(victim.beats()) << "and it goes on when the child has its program";
  kill(static_cast<pid_t>(victim.board().cells[2]), SIGKILL);
}

}  // namespace
}  // namespace stasis

// Batches in foreign processes: results, errors, forked copies, many threads, every kind of report.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

TEST(LiveBatch, MakesACallInAForeignProcess) {
  Victim victim(count_for_ever);
  {
    Loan loan(victim.pid());
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    const auto parent = batch.call(SYS_getppid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
    EXPECT_EQ(batch.result(parent), getpid());
  }
  EXPECT_TRUE(victim.beats());
}

TEST(LiveBatch, LeavesTheAddressSpaceAsItWas) {
  Victim victim(count_for_ever);
  const std::string before = maps_of(victim.pid());
  for (int round = 0; round < 3; ++round) {
    Loan loan(victim.pid());
    loan.open(3);
    EXPECT_NE(maps_of(victim.pid()), before);
    loan.close();
    EXPECT_EQ(maps_of(victim.pid()), before);
  }
  EXPECT_TRUE(victim.beats());
}

TEST(LiveBatch, ForwardsResultsIntoLaterCalls) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  const BatchData path = batch.text("/dev/null");
  const auto opened = batch.must(SYS_openat, {AT_FDCWD, path, O_RDONLY});
  const auto duplicated = batch.must(SYS_dup3, {opened, 500, O_CLOEXEC});
  const BatchData st = batch.space(sizeof(struct stat));
  batch.must(SYS_fstat, {500, st});
  loan.run(batch);
  EXPECT_EQ(batch.result(duplicated), 500);
  EXPECT_TRUE(S_ISCHR(batch.value<struct stat>(st).st_mode));
  EXPECT_TRUE(has_descriptor(victim.pid(), 500));
  SyscallBatch after;
  after.must(SYS_close, {500});
  loan.run(after);
  EXPECT_FALSE(has_descriptor(victim.pid(), 500));
}

TEST(LiveBatch, SeveralCallsTakeOneResult) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  const auto opened = batch.must(SYS_openat, {AT_FDCWD, batch.text("/dev/null"), O_RDWR});
  const auto written = batch.must(SYS_write, {opened, batch.text("four"), 4});
  const auto closed = batch.must(SYS_close, {opened});
  const auto again = batch.call(SYS_close, {opened});
  loan.run(batch);
  EXPECT_EQ(batch.result(written), 4);
  EXPECT_EQ(batch.result(closed), 0);
  EXPECT_EQ(batch.result(again), -EBADF);
}

TEST(LiveBatch, StopsAtTheFirstFailureThatCounts) {
  Victim victim(count_for_ever);
  {
    Loan loan(victim.pid());
    loan.open();
    SyscallBatch batch;
    const auto may_fail = batch.call(SYS_close, {998});
    const auto fails = batch.must(SYS_dup3, {997, 500, 0});
    const auto never = batch.must(SYS_getpid, {});
    try {
      loan.run(batch);
      ADD_FAILURE() << "the error is not told";
    } catch (const Error& e) {
      EXPECT_EQ(e.reason(), Reason::BATCH_CALL_FAILED);
      EXPECT_NE(e.report().find("dup3"), std::string::npos) << e.report();
      EXPECT_NE(e.report().find("EBADF"), std::string::npos) << e.report();
    }
    EXPECT_EQ(batch.result(may_fail), -EBADF);
    EXPECT_EQ(batch.result(fails), -EBADF);
    EXPECT_FALSE(batch.was_run(never));
    // The thread is still good for another batch.
    SyscallBatch next;
    const auto pid = next.call(SYS_getpid, {});
    loan.run(next);
    EXPECT_EQ(next.result(pid), victim.pid());
  }
  EXPECT_TRUE(victim.beats());
}

TEST(LiveBatch, ABatchThatDoesNotFitIsRefusedBeforeAnythingHappens) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  batch.space(1 << 20);
  EXPECT_EQ(reason_of([&] { loan.run(batch); }), Reason::INTERNAL);
  SyscallBatch next;
  const auto pid = next.call(SYS_getpid, {});
  loan.run(next);
  EXPECT_EQ(next.result(pid), victim.pid());
}

TEST(LiveBatch, ReadsWhatCallsFillIn) {
  Victim victim([](Board& board) {
    prctl(PR_SET_NAME, "named-victim");
    count_for_ever(board);
  });
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  const BatchData name = batch.space(16);
  batch.must(SYS_prctl, {PR_GET_NAME, name});
  loan.run(batch);
  EXPECT_STREQ(reinterpret_cast<const char*>(batch.bytes(name).data()), "named-victim");
}

TEST(LiveBatch, AForkedCopyLeavesAtOnce) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  const auto child = batch.call(SYS_clone, {SIGCHLD, 0, 0, 0, 0}, arch::kExitIfChild | arch::kStopOnError);
  loan.run(batch);
  const auto pid = static_cast<pid_t>(batch.result(child));
  ASSERT_GT(pid, 0);
  EXPECT_TRUE(wait_until([&] { return stat_of(pid).zombie(); })) << "the copy must not run on as the victim";
  EXPECT_EQ(stat_of(pid).exit_code, 0);
  SyscallBatch reap;
  const auto waited = reap.call(SYS_wait4, {pid, 0, uint64_t{__WALL} | WNOHANG, 0});
  loan.run(reap);
  EXPECT_EQ(reap.result(waited), pid);
}

TEST(LiveBatch, ManyCallsInOneBatch) {
  Victim victim(count_for_ever);
  ProcDir proc(victim.pid());
  StopWaiter waiter;
  Tracee t = Tracee::seize(victim.pid(), victim.pid());
  t.interrupt();
  ASSERT_TRUE(t.await_stop(waiter, Clock::now() + std::chrono::seconds(5)));
  t.save_own_state();
  Borrowed borrowed(victim.pid(), "victim", t, proc.open("mem", O_RDWR));
  borrowed.start_open(parse_maps(proc.read("maps")), {.first_slot_bytes = 1 << 20}, ReportSignal{SIGURG});
  borrowed.finish_open(waiter);
  SyscallBatch batch;
  std::vector<SyscallBatch::Call> calls;
  for (int i = 0; i < 5000; ++i) calls.push_back(batch.must(SYS_getuid, {}));
  borrowed.host().run(t, 0, batch, waiter);
  for (const auto& c : calls) ASSERT_EQ(batch.result(c), getuid());
}

TEST(LiveBatch, AnInterruptLeavesNoReportPending) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  int interrupted = 0;
  for (int round = 0; round < 300; ++round) {
    SyscallBatch batch;
    const timespec pause{.tv_sec = 0, .tv_nsec = round % 3 == 0 ? 0 : round * 1000};
    const auto slept = batch.call(SYS_nanosleep, {batch.object(pause), 0});
    loan.host().start(loan.leader(), 0, batch);
    if (!loan.host().interrupt(loan.leader(), 0, batch, loan.waiter())) {
      ++interrupted;
      loan.leader().resume();
      loan.host().finish(loan.leader(), 0, batch, loan.waiter());
    }
    ASSERT_EQ(batch.result(slept), 0);
    const ProcStatus status = status_of(victim.pid());
    ASSERT_EQ(status.sig_pending | status.shared_pending, 0U) << "round " << round;
  }
  EXPECT_GT(interrupted, 0);
}

// ---- threads ---------------------------------------------------------------------------------------------

TEST(LiveBatch, RunsInTwentyThreadsAtOnce) {
  constexpr size_t kThreads = 20;
  Victim victim([](Board& board) {
    std::vector<std::thread> threads;
    for (size_t i = 1; i < kThreads; ++i)
      threads.emplace_back([&board, i] {
        ++board.ready;
        for (;;) {
          ++board.cells[i];
          usleep(1000);
        }
      });
    while (board.ready < kThreads - 1) usleep(100);
    for (;;) {
      ++board.beats;
      usleep(1000);
    }
  });
  ASSERT_TRUE(wait_until([&] { return victim.board().ready >= kThreads - 1; }));
  {
    Loan loan(victim.pid());
    ASSERT_EQ(loan.threads().size(), kThreads);
    loan.open(kThreads);
    for (int round = 0; round < 5; ++round) {
      std::vector<SyscallBatch> batches(kThreads);
      std::vector<SyscallBatch::Call> calls;
      for (SyscallBatch& b : batches) calls.push_back(b.call(SYS_gettid, {}));
      for (unsigned i = 0; i < kThreads; ++i) loan.host().start(loan.threads()[i], i, batches[i]);
      for (unsigned i = 0; i < kThreads; ++i) loan.host().finish(loan.threads()[i], i, batches[i], loan.waiter());
      for (unsigned i = 0; i < kThreads; ++i) EXPECT_EQ(batches[i].result(calls[i]), loan.threads()[i].tid());
    }
  }
  std::array<int64_t, kThreads> before;
  for (size_t i = 1; i < kThreads; ++i) before[i] = victim.board().cells[i];
  EXPECT_TRUE(victim.beats());
  for (size_t i = 1; i < kThreads; ++i)
    EXPECT_TRUE(wait_until([&] { return victim.board().cells[i] > before[i]; })) << "thread " << i << " is stuck";
}

// ---- reports ---------------------------------------------------------------------------------------------

Board* handler_board;
void count_signal(int signal) {
  ++handler_board->cells[static_cast<size_t>(signal)];
}

TEST(LiveBatch, StepsWhenEverySignalHasAHandler) {
  Victim victim([](Board& board) {
    handler_board = &board;
    for (int s : {SIGURG, SIGWINCH, SIGCHLD}) signal(s, count_signal);
    // The test runner may have ignored others; every one of them would do as a report.
    for (int s = 1; s < SIGRTMAX; ++s)
      if (s != SIGKILL && s != SIGSTOP && s != SIGURG && s != SIGWINCH && s != SIGCHLD) signal(s, SIG_DFL);
    count_for_ever(board);
  });
  {
    Loan loan(victim.pid());
    ASSERT_TRUE(loan.report().stepping());
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    const auto bad = batch.must(SYS_close, {999});
    const auto never = batch.call(SYS_getpid, {});
    EXPECT_EQ(reason_of([&] { loan.run(batch); }), Reason::BATCH_CALL_FAILED);
    EXPECT_EQ(batch.result(pid), victim.pid());
    EXPECT_EQ(batch.result(bad), -EBADF);
    EXPECT_FALSE(batch.was_run(never));
    SyscallBatch again;
    const auto call = again.call(SYS_getppid, {});
    loan.run(again);
    EXPECT_EQ(again.result(call), getpid());
  }
  EXPECT_TRUE(victim.beats());
  for (const auto& count : victim.board().cells) EXPECT_EQ(count, 0) << "no handler may run";
}

TEST(LiveBatch, AForeignReportSignalIsNotMistakenForTheReport) {
  Victim victim(count_for_ever);
  for (int round = 0; round < 20; ++round) {
    Loan loan(victim.pid());
    loan.start_open();
    for (int s : {SIGURG, SIGWINCH, SIGCHLD}) kill(victim.pid(), s);
    loan.borrowed().finish_open(loan.waiter());
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.host().start(loan.leader(), 0, batch);
    kill(victim.pid(), SIGURG);
    loan.host().finish(loan.leader(), 0, batch, loan.waiter());
    EXPECT_EQ(batch.result(pid), victim.pid());
  }
  EXPECT_TRUE(victim.beats());
}

// ---- signals around a batch ------------------------------------------------------------------------------

TEST(LiveBatch, BlockedAndPendingSignalsStayAsTheyWere) {
  Victim victim([](Board& board) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    for (int s : {SIGURG, SIGWINCH, SIGCHLD, SIGUSR1, SIGTERM}) kill(getpid(), s);
    for (int i = 0; i < 3; ++i) sigqueue(getpid(), SIGRTMIN + 5, {.sival_int = 70 + i});
    board.ready = 1;
    while (board.stop == 0) {
      ++board.beats;
      usleep(500);
    }
    sigset_t mask;
    sigprocmask(SIG_SETMASK, nullptr, &mask);
    for (int s = 1; s < SIGRTMAX; ++s)
      if (s != SIGKILL && s != SIGSTOP && s != 32 && s != 33 && sigismember(&mask, s) != 1) ++board.failures;
    siginfo_t info;
    for (int s : {SIGURG, SIGWINCH, SIGCHLD, SIGUSR1, SIGTERM}) {
      sigset_t one;
      sigemptyset(&one);
      sigaddset(&one, s);
      const timespec none{};
      if (sigtimedwait(&one, &info, &none) != s || info.si_pid != getpid()) ++board.failures;
    }
    sigset_t queued;
    sigemptyset(&queued);
    sigaddset(&queued, SIGRTMIN + 5);
    for (int i = 0; i < 3; ++i) {
      const timespec none{};
      if (sigtimedwait(&queued, &info, &none) != SIGRTMIN + 5 || info.si_value.sival_int != 70 + i) ++board.failures;
    }
    const timespec none{};
    if (sigtimedwait(&all, &info, &none) > 0) ++board.failures;
  });
  {
    Loan loan(victim.pid());
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
    EXPECT_EQ(loan.leader().pending_signals(true).size(), 8u);
  }
  EXPECT_TRUE(victim.beats());
  victim.board().stop = 1;
  victim.wait_for_end();
  EXPECT_EQ(victim.board().failures, 0u);
}

TEST(LiveBatch, SignalsThatComeMeanwhileAreHandledAfterwards) {
  Victim victim([](Board& board) {
    handler_board = &board;
    signal(SIGUSR1, count_signal);
    count_for_ever(board);
  });
  {
    Loan loan(victim.pid());
    loan.open();
    kill(victim.pid(), SIGUSR1);
    SyscallBatch batch;
    batch.must(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(victim.board().cells[SIGUSR1], 0);
  }
  EXPECT_TRUE(wait_until([&] { return victim.board().cells[SIGUSR1] == 1; }));
  EXPECT_TRUE(victim.beats());
}

TEST(LiveBatch, AStopSignalInTheMiddleStopsItAfterTheRelease) {
  Victim victim(count_for_ever);
  {
    Loan loan(victim.pid());
    kill(victim.pid(), SIGSTOP);
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
  }
  EXPECT_TRUE(wait_until([&] { return stat_of(victim.pid()).state == 'T'; }));
  kill(victim.pid(), SIGCONT);
  EXPECT_TRUE(victim.beats());
}

TEST(LiveBatch, AStoppedProcessIsBorrowedAndStaysStopped) {
  Victim victim(count_for_ever);
  kill(victim.pid(), SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return stat_of(victim.pid()).state == 'T'; }));
  {
    Loan loan(victim.pid());
    EXPECT_EQ(loan.leader().group_stop_signal(), SIGSTOP);
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
  }
  EXPECT_TRUE(wait_until([&] { return stat_of(victim.pid()).state == 'T'; }));
  const uint64_t beats = victim.board().beats;
  usleep(20000);
  EXPECT_EQ(victim.board().beats, beats);
  kill(victim.pid(), SIGCONT);
  EXPECT_TRUE(victim.beats());
}

// ---- errors ----------------------------------------------------------------------------------------------

TEST(Seize, RefusesWhatIsNotThereOrTaken) {
  Victim victim(count_for_ever);
  const Tracee first = Tracee::seize(victim.pid(), victim.pid());
  EXPECT_EQ(reason_of([&] { Tracee::seize(victim.pid(), victim.pid()); }), Reason::ALREADY_TRACED);
  EXPECT_EQ(reason_of([] { Tracee::seize(0x3ffffff, 0x3ffffff); }), Reason::NO_SUCH_TASK);
}

TEST(Seize, AVictimThatIsKilledIsReportedAsGone) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  loan.open();
  SyscallBatch batch;
  batch.must(SYS_getpid, {});
  kill(victim.pid(), SIGKILL);
  const auto reason = reason_of([&] { loan.run(batch); });
  EXPECT_TRUE(reason == Reason::TASK_VANISHED || reason == Reason::TRACEE_LOST);
}

}  // namespace
}  // namespace stasis

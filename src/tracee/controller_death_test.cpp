// The dead man's switch: a controller is killed at chosen and at random points, and the victim must go on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <time.h>

#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

constexpr int kBorrowedFd = 500;

// Counts in its main thread, computes in a second one and sleeps in a third: every kind of thread must survive.
void busy_victim(Board& board) {
  std::thread computing([&] {
    for (;;) {
      uint64_t a = 1;
      for (uint64_t i = 0; i < 30000; ++i) a = a * 6364136223846793005u + i;
      if (board.cells[0] == 0) board.cells[0] = static_cast<int64_t>(a);
      if (board.cells[0] != static_cast<int64_t>(a)) ++board.failures;
      ++board.cells[1];
    }
  });
  std::thread sleeping([&] {
    for (;;) {
      const timespec t{0, 3'000'000};
      if (nanosleep(&t, nullptr) != 0) ++board.failures;  // EINTR would be ours
      ++board.cells[2];
    }
  });
  sigset_t expected;
  sigemptyset(&expected);
  sigaddset(&expected, SIGUSR2);
  sigprocmask(SIG_BLOCK, &expected, nullptr);
  board.ready = 1;
  for (;;) {
    ++board.beats;
    usleep(300);
    sigset_t mask;
    sigprocmask(SIG_SETMASK, nullptr, &mask);
    if (sigismember(&mask, SIGUSR2) != 1 || sigismember(&mask, SIGTERM) != 0) ++board.failures;
  }
}

void expect_healthy(Victim& victim) {
  Board& b = victim.board();
  const int64_t computed = b.cells[1], slept = b.cells[2];
  EXPECT_TRUE(victim.beats());
  EXPECT_TRUE(wait_until([&] { return b.cells[1] > computed; })) << "the computing thread is stuck";
  EXPECT_TRUE(wait_until([&] { return b.cells[2] > slept + 1; })) << "the sleeping thread is stuck";
  EXPECT_EQ(b.failures, 0u);
  EXPECT_EQ(status_of(victim.pid()).tracer_pid, 0);
}

enum class Point {
  SEIZED,
  BOOTSTRAP_STARTED,
  OPEN,
  BATCH_STARTED,
  BATCH_FINISHED,
  THREADS_IN_BATCHES,
  CLOSING,
  CLOSED,
};

// An open of /dev/null in the victim that the undo table takes back.
void fill_with_undo(SyscallBatch& batch) {
  const auto opened = batch.must(SYS_openat, {AT_FDCWD, batch.text("/dev/null"), O_RDONLY});
  batch.must(SYS_dup3, {opened, kBorrowedFd, 0});
  batch.undo(SYS_close, {kBorrowedFd});
}

[[noreturn]] void die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// Borrows as a dump does and dies at `point`. Exit status 3: not allowed to trace.
[[noreturn]] void control_until(pid_t victim, Point point) try {
  Loan loan(victim);
  if (point == Point::SEIZED) die();
  loan.start_open(3);
  if (point == Point::BOOTSTRAP_STARTED) die();
  loan.borrowed().finish_open(loan.waiter());
  if (point == Point::OPEN) die();
  SyscallBatch batch;
  fill_with_undo(batch);
  loan.host().start(loan.leader(), 0, batch);
  if (point == Point::BATCH_STARTED) die();
  loan.host().finish(loan.leader(), 0, batch, loan.waiter());
  if (!has_descriptor(victim, kBorrowedFd)) _exit(4);
  if (point == Point::BATCH_FINISHED) die();
  SyscallBatch quiet[2];
  for (unsigned i = 0; i < 2; ++i) {
    quiet[i].must(SYS_gettid, {});
    loan.host().start(loan.threads()[i + 1], i + 1, quiet[i]);
  }
  if (point == Point::THREADS_IN_BATCHES) die();
  for (unsigned i = 0; i < 2; ++i) {
    loan.host().finish(loan.threads()[i + 1], i + 1, quiet[i], loan.waiter());
    loan.threads()[i + 1].give_back();
  }
  SyscallBatch tidy;
  tidy.must(SYS_close, {kBorrowedFd});
  loan.run(tidy);
  loan.borrowed().start_close();
  if (point == Point::CLOSING) die();
  loan.borrowed().finish_close(loan.waiter());
  die();
} catch (const Error& e) {
  if (e.reason() == Reason::NO_PRIVILEGE) _exit(3);
  fprintf(stderr, "%s\n", e.report().c_str());
  _exit(5);
}

// The waitpid status of a controller that ran to `point`.
int run_controller(pid_t victim, Point point) {
  const pid_t controller = fork();
  if (controller == 0) control_until(victim, point);
  int status = 0;
  waitpid(controller, &status, 0);
  return status;
}

bool may_not_trace(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == 3;
}

class KilledController : public ::testing::TestWithParam<Point> {};

TEST_P(KilledController, LeavesTheVictimUnharmed) {
  Victim victim(busy_victim);
  const int status = run_controller(victim.pid(), GetParam());
  if (may_not_trace(status)) GTEST_SKIP() << "tracing a sibling needs CAP_SYS_PTRACE here";
  ASSERT_TRUE(WIFSIGNALED(status)) << "the controller did not come so far: " << status;
  expect_healthy(victim);
  EXPECT_TRUE(wait_until([&] { return !has_descriptor(victim.pid(), kBorrowedFd); }))
      << "the undo table closes what the batch had opened";

  // The next controller finds its way, and what the first one left is not touched.
  const std::string left = maps_of(victim.pid());
  {
    Loan loan(victim.pid());
    loan.open(3);
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
  }
  EXPECT_EQ(maps_of(victim.pid()), left);
  expect_healthy(victim);
}

std::string name_of(const ::testing::TestParamInfo<Point>& row) {
  static constexpr const char* kNames[] = {"seized",         "bootstrap_started",  "open",    "batch_started",
                                           "batch_finished", "threads_in_batches", "closing", "closed"};
  return kNames[static_cast<size_t>(row.param)];
}

INSTANTIATE_TEST_SUITE_P(Points, KilledController,
                         ::testing::Values(Point::SEIZED, Point::BOOTSTRAP_STARTED, Point::OPEN, Point::BATCH_STARTED,
                                           Point::BATCH_FINISHED, Point::THREADS_IN_BATCHES, Point::CLOSING,
                                           Point::CLOSED),
                         name_of);

// Each leaves an area and used bootstrap bytes; all that is left is free room further on.
TEST(KilledControllers, OneAfterAnotherFindRoom) {
  Victim victim(busy_victim);
  for (int i = 0; i < 6; ++i) {
    const int status = run_controller(victim.pid(), Point::BATCH_STARTED);
    if (may_not_trace(status)) GTEST_SKIP() << "tracing a sibling needs CAP_SYS_PTRACE here";
    ASSERT_TRUE(WIFSIGNALED(status)) << "controller " << i << ": " << status;
    expect_healthy(victim);
  }
}

TEST(KilledControllers, AtRandomInstants) {
  Victim victim(busy_victim);
  // Not a seed: the machine's timing is the random part.
  for (int i = 0; i < 40; ++i) {
    const pid_t controller = fork();
    if (controller == 0) {
      for (;;) {
        try {
          Loan loan(victim.pid());
          loan.open(3);
          for (int round = 0; round < 3; ++round) {
            SyscallBatch batch;
            fill_with_undo(batch);
            loan.run(batch);
          }
          SyscallBatch tidy;
          tidy.must(SYS_close, {kBorrowedFd});
          loan.run(tidy);
        } catch (const Error& e) {
          _exit(e.reason() == Reason::NO_PRIVILEGE ? 3 : 5);
        }
      }
    }
    usleep(static_cast<useconds_t>(1000 + i * 137));
    kill(controller, SIGKILL);
    int status = 0;
    waitpid(controller, &status, 0);
    if (may_not_trace(status)) GTEST_SKIP() << "tracing a sibling needs CAP_SYS_PTRACE here";
    // Once every hole is in use a controller says NO_ROOM_FOR_BATCH and leaves the victim alone.
    ASSERT_TRUE(victim.alive());
    ASSERT_TRUE(victim.beats()) << "after " << i << " controllers";
    ASSERT_EQ(victim.board().failures, 0u);
  }
  expect_healthy(victim);
}

}  // namespace
}  // namespace stasis

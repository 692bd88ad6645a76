// A borrowed program must not notice: sleeping calls go on, registers and flags are what they were.
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

constexpr int kSleepMs = 250;

int64_t now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// How one blocked call ended: result, errno, time.
enum Cell : size_t { kResult, kErrno, kElapsedMs };

void record(Board& board, const std::function<long()>& sleeping_call) {
  const int64_t begin = now_ms();
  board.ready = 1;
  errno = 0;
  const long result = sleeping_call();
  board.cells[kResult] = result;
  board.cells[kErrno] = errno;
  board.cells[kElapsedMs] = now_ms() - begin;
}

struct SleepCase {
  const char* name;
  std::function<long()> call;
  long result;
  int error_number;
};

class BlockedCall : public ::testing::TestWithParam<SleepCase> {};

// Borrowed twice while it sleeps.
TEST_P(BlockedCall, GoesOnWithTheTimeThatWasLeft) {
  const SleepCase& param = GetParam();
  Victim victim([&](Board& board) { record(board, param.call); });
  for (int round = 0; round < 2; ++round) {
    usleep(60'000);
    Loan loan(victim.pid());
    loan.open();
    SyscallBatch batch;
    const auto pid = batch.call(SYS_getpid, {});
    loan.run(batch);
    EXPECT_EQ(batch.result(pid), victim.pid());
    EXPECT_NE(arch::interrupted_call(loan.leader().own_registers()), arch::Interrupted::no);
  }
  const pid_t pid = victim.pid();
  EXPECT_EQ(victim.wait_for_end(), 0) << pid;
  EXPECT_EQ(victim.board().cells[kResult], param.result);
  EXPECT_EQ(victim.board().cells[kErrno], param.error_number);
  EXPECT_GE(victim.board().cells[kElapsedMs], kSleepMs - 2);
  EXPECT_LT(victim.board().cells[kElapsedMs], kSleepMs + 200) << "it began again instead of going on";
}

INSTANTIATE_TEST_SUITE_P(Calls, BlockedCall,
                         ::testing::Values(SleepCase{"nanosleep",
                                                     [] {
                                                       timespec when{0, kSleepMs * 1'000'000};
                                                       return nanosleep(&when, &when);
                                                     },
                                                     0, 0},
                                           SleepCase{"clock_nanosleep_absolute",
                                                     [] {
                                                       timespec when;
                                                       clock_gettime(CLOCK_MONOTONIC, &when);
                                                       when.tv_nsec += kSleepMs * 1'000'000;
                                                       when.tv_sec += when.tv_nsec / 1'000'000'000;
                                                       when.tv_nsec %= 1'000'000'000;
                                                       return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when,
                                                                              nullptr);
                                                     },
                                                     0, 0},
                                           SleepCase{"poll", [] { return poll(nullptr, 0, kSleepMs); }, 0, 0},
                                           SleepCase{"futex",
                                                     [] {
                                                       uint32_t word = 7;
                                                       const timespec when{0, kSleepMs * 1'000'000};
                                                       return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 7, &when,
                                                                      nullptr, 0);
                                                     },
                                                     -1, ETIMEDOUT},
                                           SleepCase{"read_of_a_timer",
                                                     [] {
                                                       const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
                                                       const itimerspec timer{{}, {0, kSleepMs * 1'000'000}};
                                                       timerfd_settime(fd, 0, &timer, nullptr);
                                                       uint64_t count;
                                                       return read(fd, &count, sizeof count);
                                                     },
                                                     8, 0},
                                           SleepCase{"ppoll_with_a_mask",
                                                     [] {
                                                       sigset_t mask;
                                                       sigemptyset(&mask);
                                                       sigaddset(&mask, SIGUSR1);
                                                       const timespec when{0, kSleepMs * 1'000'000};
                                                       return ppoll(nullptr, 0, &when, &mask);
                                                     },
                                                     0, 0}),
                         [](const auto& row) { return row.param.name; });

// Integer and floating state in registers only, checked without a pause.
TEST(GiveBack, AComputingLoopIsNotDisturbed) {
  Victim victim([](Board& board) {
    board.ready = 1;
    while (board.stop == 0) {
      uint64_t a = 1, b = 2;
      double x = 1.0;
      for (int i = 0; i < 20000; ++i) {
        a = a * 6364136223846793005u + b;
        b ^= a >> 31;
        x = x * 1.0000001 + 1e-9;
      }
      board.cells[0] = static_cast<int64_t>(a ^ b);
      board.cells[1] = static_cast<int64_t>(x * 1e9);
      if (board.cells[2] == 0) {
        board.cells[2].store(board.cells[0]);
        board.cells[3].store(board.cells[1]);
      }
      if (board.cells[0] != board.cells[2] || board.cells[1] != board.cells[3]) ++board.failures;
      ++board.beats;
    }
  });
  ASSERT_TRUE(victim.beats());
  for (int round = 0; round < 60; ++round) {
    Loan loan(victim.pid());
    loan.open();
    SyscallBatch batch;
    batch.must(SYS_getpid, {});
    loan.run(batch);
  }
  EXPECT_TRUE(victim.beats());
  victim.board().stop = 1;
  EXPECT_EQ(victim.wait_for_end(), 0);
  EXPECT_EQ(victim.board().failures, 0u);
}

TEST(GiveBack, RegistersMaskAndExtendedStateAreEqual) {
  Victim victim(count_for_ever);
  Loan loan(victim.pid());
  const auto before = loan.leader().current_registers();
  const auto extended = loan.leader().extended_state();
  const uint64_t mask = loan.leader().own_signal_mask();
  loan.open();
  SyscallBatch batch;
  batch.must(SYS_getpid, {});
  loan.run(batch);
  EXPECT_NE(arch::instruction_pointer(loan.leader().current_registers()), arch::instruction_pointer(before));
  loan.borrowed().start_close();
  loan.borrowed().finish_close(loan.waiter());
  const auto after = loan.leader().current_registers();
  EXPECT_EQ(std::memcmp(&after, &before, sizeof after), 0);
  EXPECT_EQ(loan.leader().extended_state(), extended);
  loan.leader().save_own_state();
  EXPECT_EQ(loan.leader().own_signal_mask(), mask);
}

}  // namespace
}  // namespace stasis

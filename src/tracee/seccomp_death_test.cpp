// Borrowing threads whose filters refuse what a batch needs, and controllers that die meanwhile.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <time.h>

#include <thread>

#include "tracee/seccomp_filter.h"
#include "tracee/test_victim.h"

namespace stasis {
namespace {

using namespace testing;

// All calls but those that the victim makes itself get `answer`.
bool allow_sleep_only(uint32_t answer) {
  std::vector<sock_filter> p{{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)}};
  for (const uint32_t number : {SYS_clock_nanosleep, SYS_nanosleep, SYS_restart_syscall, SYS_rt_sigreturn}) {
    p.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number});
    p.push_back({BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW});
  }
  p.push_back({BPF_RET | BPF_K, 0, 0, answer});
  const sock_fprog filter{static_cast<unsigned short>(p.size()), p.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0;
}

Board* handler_board;

// One thread sleeps, one computes with all flags; a handler counts the signals that were sent.
void sandboxed_victim(Board& board, uint32_t answer) {
  handler_board = &board;
  struct sigaction action {};
  action.sa_handler = [](int) { ++handler_board->cells[3]; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  sigaction(SIGRTMIN, &action, nullptr);
  std::thread computing([&] {
    for (;;) {
      uint64_t a = 1, b = 2, c = 3;
      // Carry, overflow, sign and direction live across many instructions here.
      for (int i = 0; i < 20000; ++i)
        asm volatile(
            "add %1, %0; adc $0, %2; seto %%al; movzbl %%al, %%eax; add %%rax, %2; std; rol $1, %0; cld; sbb $3, %1"
            : "+r"(a), "+r"(b), "+r"(c)::"rax", "cc");
      const int64_t sum = static_cast<int64_t>(a ^ b ^ c);
      if (board.cells[0] == 0) board.cells[0] = sum;
      if (board.cells[0] != sum) ++board.failures;
      ++board.cells[1];
    }
  });
  // What a thread does before its first own instruction is not allowed later.
  while (board.cells[1] == 0) usleep(100);
  if (!allow_sleep_only(answer)) board.failures = 1;
  board.ready = 1;
  for (;;) {
    ++board.beats;
    const timespec t{0, 300'000};
    if (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, nullptr) == EINTR && board.cells[3] == 0) ++board.failures;
  }
}

void expect_healthy(Victim& victim) {
  ASSERT_TRUE(victim.alive());
  const int64_t computed = victim.board().cells[1];
  EXPECT_TRUE(victim.beats());
  EXPECT_TRUE(wait_until([&] { return victim.board().cells[1] > computed; })) << "the computing thread is stuck";
  EXPECT_EQ(victim.board().failures, 0u);
  EXPECT_EQ(status_of(victim.pid()).tracer_pid, 0);
  EXPECT_EQ(status_of(victim.pid()).sig_blocked, 0u);
}

void prepare(Loan& loan) {
  for (Tracee& t : loan.threads()) {
    t.suspend_seccomp();
    EXPECT_FALSE(allow_way_home(read_seccomp_filters(t), t, loan.report()));
    t.keep_mask();
  }
}

// Threads that are stopped, at any of these points.
enum class Rest { SUSPENDED, OPEN, BATCH_FINISHED, THREADS_FINISHED, CLOSED };

[[noreturn]] void control_until(pid_t victim, Rest point) try {
  const auto die_at = [&](Rest here) {
    if (here != point) return;
    kill(getpid(), SIGKILL);
    for (;;) pause();
  };
  Loan loan(victim);
  prepare(loan);
  die_at(Rest::SUSPENDED);
  loan.open(3);
  die_at(Rest::OPEN);
  SyscallBatch batch;
  const auto pid = batch.must(SYS_getpid, {});
  loan.run(batch);
  if (batch.result(pid) != victim) _exit(4);
  die_at(Rest::BATCH_FINISHED);
  SyscallBatch other;
  other.must(SYS_gettid, {});
  loan.run(other, 1, 1);
  die_at(Rest::THREADS_FINISHED);
  loan.threads()[1].give_back();
  loan.borrowed().start_close();
  loan.borrowed().finish_close(loan.waiter());
  die_at(Rest::CLOSED);
  _exit(6);
} catch (const Error& e) {
  if (e.reason() == Reason::NO_PRIVILEGE) _exit(3);
  fprintf(stderr, "%s\n", e.report().c_str());
  _exit(5);
}

class SandboxedVictim : public ::testing::TestWithParam<uint32_t> {};

TEST_P(SandboxedVictim, IsUnharmedByAControllerThatDiesWhileItRests) {
  Victim victim([](Board& board) { sandboxed_victim(board, GetParam()); });
  for (const Rest point : {Rest::SUSPENDED, Rest::OPEN, Rest::BATCH_FINISHED, Rest::THREADS_FINISHED, Rest::CLOSED}) {
    const pid_t controller = fork();
    if (controller == 0) control_until(victim.pid(), point);
    int status = 0;
    waitpid(controller, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3) GTEST_SKIP() << "seccomp cannot be suspended here";
    ASSERT_TRUE(WIFSIGNALED(status)) << "the controller did not come so far: " << status;
    expect_healthy(victim);
  }
}

TEST_P(SandboxedVictim, GetsTheSignalsThatArriveInBatches) {
  Victim victim([](Board& board) { sandboxed_victim(board, GetParam()); });
  int sent = 0;
  try {
    for (int round = 0; round < 20; ++round) {
      Loan loan(victim.pid());
      prepare(loan);
      loan.open(3);
      for (int i = 0; i < 5; ++i) {
        SyscallBatch batch;
        // The signal comes while the batch runs, or before it.
        const auto tid = batch.must(SYS_gettid, {});
        batch.must(SYS_tgkill, {victim.pid(), tid, SIGRTMIN});
        if (round % 2 == 0) kill(victim.pid(), SIGRTMIN), ++sent;
        loan.run(batch);
        ++sent;
      }
      EXPECT_EQ(victim.board().cells[3], sent - (round % 2 == 0 ? 10 : 5)) << "a handler ran in a batch";
      loan.close();
      ASSERT_TRUE(wait_until([&] { return victim.board().cells[3] == sent; }))
          << victim.board().cells[3] << " of " << sent << " signals";
    }
  } catch (const Error& e) {
    if (e.reason() != Reason::NO_PRIVILEGE) throw;
    GTEST_SKIP() << "seccomp cannot be suspended here";
  }
  expect_healthy(victim);
}

INSTANTIATE_TEST_SUITE_P(Answers, SandboxedVictim,
                         ::testing::Values(SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO | EPERM),
                         [](const auto& row) {
                           return row.param == SECCOMP_RET_KILL_PROCESS ? "kill"
                                  : row.param == SECCOMP_RET_TRAP       ? "trap"
                                                                        : "errno";
                         });

TEST(SandboxedVictims, WhatNeedsToBeUndoneIsRefused) {
  Victim victim([](Board& board) { sandboxed_victim(board, SECCOMP_RET_KILL_PROCESS); });
  Loan loan(victim.pid());
  const auto reason = reason_of([&] {
    prepare(loan);
    loan.open(3);
    SyscallBatch batch;
    batch.undo(SYS_close, {500});
    loan.run(batch);
  });
  if (reason == Reason::NO_PRIVILEGE) GTEST_SKIP() << "seccomp cannot be suspended here";
  EXPECT_EQ(reason, Reason::SECCOMP_REFUSES);
  loan.close();
  expect_healthy(victim);
}

}  // namespace
}  // namespace stasis

// Processes for the live tests of this library: a victim to borrow, and the few steps of borrowing one.
//
// The children of a victim are its own business; the victim itself is killed and waited for by its owner.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernel/proc.h"
#include "tracee/borrowed.h"
#include "tracee/tracee.h"

namespace stasis::testing {

// Memory that a victim shares with the test.
struct Board {
  std::atomic<uint64_t> ready, beats, stop, failures;
  std::array<std::atomic<int64_t>, 64> cells;
};

inline bool wait_until(const std::function<bool()>& condition, int limit_ms = 5000) {
  const auto end = Clock::now() + std::chrono::milliseconds(limit_ms);
  while (!condition()) {
    if (Clock::now() > end) return false;
    usleep(200);
  }
  return true;
}

inline ProcStat stat_of(pid_t pid) {
  return parse_stat(ProcDir(pid).read("stat"));
}
inline ProcStatus status_of(pid_t pid) {
  return parse_status(ProcDir(pid).read("status"));
}
inline std::string maps_of(pid_t pid) {
  return std::string(ProcDir(pid).read("maps"));
}
inline bool has_descriptor(pid_t pid, int number) {
  return ProcDir(pid).readlink(("fd/" + std::to_string(number)).c_str()).has_value();
}

class Victim {
 public:
  // `body` runs in a child of this process and sets board.ready; the child ends with its return.
  explicit Victim(const std::function<void(Board&)>& body)
      : board_(static_cast<Board*>(
            mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      try {
        body(*board_);
      } catch (const std::exception& e) {
        fprintf(stderr, "the victim fails: %s\n", e.what());
        _exit(1);
      }
      _exit(0);
    }
    if (!wait_until([&] { return board_->ready != 0; })) ADD_FAILURE() << "the victim does not start";
  }
  ~Victim() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    munmap(board_, sizeof(Board));
  }
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;

  pid_t pid() const { return pid_; }
  Board& board() { return *board_; }
  bool alive() const { return kill(pid_, 0) == 0 && !stat_of(pid_).zombie(); }
  // It makes progress.
  bool beats() {
    const uint64_t before = board_->beats;
    return wait_until([&] { return board_->beats > before + 3; });
  }
  // The exit status of a victim that ends by itself, as waitpid(2) tells.
  int wait_for_end() {
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }

 private:
  Board* board_;
  pid_t pid_;
};

// A victim that counts until it is killed, in its main thread.
inline void count_for_ever(Board& board) {
  board.ready = 1;
  for (;;) {
    ++board.beats;
    usleep(500);
  }
}

// A whole process seized, stopped and borrowed, as a dump does it.
class Loan {
 public:
  explicit Loan(pid_t pid) : pid_(pid) {
    for (const pid_t tid : ProcDir(pid).threads()) threads_.push_back(Tracee::seize(pid, tid));
    for (Tracee& t : threads_) t.interrupt();
    for (Tracee& t : threads_) {
      if (!t.await_stop(waiter_, Clock::now() + std::chrono::seconds(5)))
        throw Error(Reason::FREEZE_TIMEOUT, "it does not stop").object(t.describe());
      t.save_own_state();
    }
  }
  ~Loan() { close(); }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  ReportSignal report() const {
    SignalUse use;
    const ProcStatus leader = status_of(pid_);
    use.ignored = leader.sig_ignored;
    use.caught = leader.sig_caught;
    use.pending = leader.shared_pending;
    for (const Tracee& t : threads_) {
      use.blocked |= t.own_signal_mask();
      use.pending |= parse_status(ProcDir::of_thread(pid_, t.tid()).read("status")).sig_pending;
    }
    return choose_report_signal(use);
  }

  void start_open(unsigned slots = 1) {
    ProcDir proc(pid_);
    borrowed_.emplace(pid_, "victim", threads_.front(), proc.open("mem", O_RDWR));
    borrowed_->start_open(parse_maps(proc.read("maps")), {.slots = slots}, report());
  }
  Loan& open(unsigned slots = 1) {
    start_open(slots);
    borrowed_->finish_open(waiter_);
    return *this;
  }
  void run(SyscallBatch& batch, size_t thread = 0, unsigned slot = 0) {
    borrowed_->host().run(threads_[thread], slot, batch, waiter_);
  }
  // Threads first: their registers go back before the area does.
  void close() {
    for (size_t i = 1; i < threads_.size(); ++i) threads_[i].give_back();
    borrowed_.reset();
    threads_.clear();
  }

  StopWaiter& waiter() { return waiter_; }
  BatchHost& host() { return borrowed_->host(); }
  Borrowed& borrowed() { return *borrowed_; }
  std::vector<Tracee>& threads() { return threads_; }
  Tracee& leader() { return threads_.front(); }

 private:
  pid_t pid_;
  StopWaiter waiter_;
  std::vector<Tracee> threads_;
  std::optional<Borrowed> borrowed_;
};

// The reason of the Error that `action` throws; nothing if it does not throw.
inline std::optional<Reason> reason_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.reason();
  }
  return std::nullopt;
}

}  // namespace stasis::testing

#include "base/workers.h"

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <utility>

namespace stasis {

unsigned usable_processors() {
  static const unsigned count = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1u;
    return std::clamp(static_cast<unsigned>(CPU_COUNT(&set)), 1u, 8u);
  }();
  return count;
}

void Workers::employ(unsigned threads) {
  if (has_threads() || threads == 0) return;
  if (threads == kOnePerProcessor) threads = std::max(usable_processors(), 2u) - 1;
  // Signals are for the thread that drives the tracees.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    jobs_.clear();
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void Workers::post(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void Workers::start(std::vector<std::function<void()>> jobs) {
  {
    const std::lock_guard lock(mutex_);
    for (auto& job : jobs) jobs_.push_back(std::move(job));
  }
  wake_.notify_all();
}

void Workers::run_one(std::unique_lock<std::mutex>& lock) {
  if (jobs_.empty()) {
    done_.wait(lock);
    return;
  }
  const auto job = std::move(jobs_.front());
  jobs_.pop_front();
  ++running_;
  lock.unlock();
  std::exception_ptr failure;
  try {
    job();
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  --running_;
  if (failure && !failure_) failure_ = failure;
  done_.notify_all();
}

void Workers::run_waiting() {
  std::unique_lock lock(mutex_);
  while (!jobs_.empty()) run_one(lock);
}

void Workers::finish() {
  std::unique_lock lock(mutex_);
  while (!jobs_.empty() || running_ != 0) run_one(lock);
  rethrow();
}

void Workers::help_until(const std::atomic<bool>& done) {
  std::unique_lock lock(mutex_);
  while (!done && (!jobs_.empty() || running_ != 0)) run_one(lock);
  rethrow();
}

void Workers::rethrow() {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Workers::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    run_one(lock);
  }
}

}  // namespace stasis

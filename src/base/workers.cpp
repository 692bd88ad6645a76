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

Workers::Workers(unsigned threads) {
  if (threads == 0) threads = std::max(usable_processors(), 2u) - 1;
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
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void Workers::start(std::vector<std::function<void()>> jobs) {
  {
    std::unique_lock lock(mutex_);
    // A worker that woke up late may still be finding out that nothing is left of the set before.
    done_.wait(lock, [&] { return busy_ == 0; });
    jobs_ = std::move(jobs);
    next_ = 0;
    finished_ = 0;
    failure_ = nullptr;
    ++round_;
  }
  wake_.notify_all();
}

void Workers::finish() {
  work();
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return finished_ == jobs_.size() && busy_ == 0; });
  jobs_.clear();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Workers::work() {
  size_t did = 0;
  std::exception_ptr failure;
  for (size_t i; (i = next_.fetch_add(1)) < jobs_.size();) {
    try {
      jobs_[i]();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
    ++did;
  }
  const std::lock_guard lock(mutex_);
  finished_ += did;
  if (failure && !failure_) failure_ = failure;
}

void Workers::serve() {
  uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || round_ != seen; });
      if (stop_) return;
      seen = round_;
      ++busy_;
    }
    work();
    {
      const std::lock_guard lock(mutex_);
      --busy_;
    }
    done_.notify_one();
  }
}

}  // namespace stasis

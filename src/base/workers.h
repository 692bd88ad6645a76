// A few threads for work that can be split, kept ready so that nothing has to be started in the freeze.
#pragma once

#include <atomic>
#include <climits>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace stasis {

// Processors that this process may use, at most 8.
unsigned usable_processors();

class Workers {
 public:
  // `threads` beside the calling one; kOnePerProcessor: as many as there are other usable processors, at least one.
  static constexpr unsigned kOnePerProcessor = UINT_MAX;
  explicit Workers(unsigned threads = kOnePerProcessor) { employ(threads); }
  // Starts threads, if there are none yet. As long as there are none, jobs are done by finish(), help_until() and
  // run_waiting().
  void employ(unsigned threads = kOnePerProcessor);
  bool has_threads() const { return !threads_.empty(); }
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // The job begins as soon as a worker is free.
  void post(std::function<void()> job);
  void start(std::vector<std::function<void()>> jobs);
  // Does the jobs that have not begun, on the calling thread. Failures are told by the others.
  void run_waiting();
  // Takes part until all are done. Rethrows the first exception of a job; the others are still finished.
  void finish();
  // Takes part until `done`, which a job sets as the last thing it does, or until all are finished. Rethrows likewise.
  void help_until(const std::atomic<bool>& done);

 private:
  void serve();
  // Runs one job, or waits for the end of one; `lock` is held before and after.
  void run_one(std::unique_lock<std::mutex>& lock);
  void rethrow();

  std::deque<std::function<void()>> jobs_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  size_t running_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace stasis

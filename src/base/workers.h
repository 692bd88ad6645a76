// A few threads for work that can be split, kept ready so that nothing has to be started in the freeze.
#pragma once

#include <atomic>
#include <condition_variable>
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
  // `threads` beside the calling one; 0: as many as there are other usable processors, at least one.
  explicit Workers(unsigned threads = 0);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // The jobs begin at once, in any order, in the workers. One set at a time.
  void start(std::vector<std::function<void()>> jobs);
  // Takes part until all are done. Rethrows the first exception of a job; the others are still finished.
  void finish();

 private:
  void serve();
  void work();

  std::vector<std::function<void()>> jobs_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  size_t finished_ = 0;
  size_t busy_ = 0;  // threads inside work()
  uint64_t round_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace stasis

#include "memory/write_rate.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace stasis {
namespace {

// A child with 32 MiB of its own that sleeps, or writes all of it again and again.
class Writer {
 public:
  explicit Writer(bool busy) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      constexpr size_t kBytes = 32 << 20;
      auto* area =
          static_cast<char*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      std::memset(area, 1, kBytes);
      if (::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (uint8_t value = 2;; ++value) {
        if (!busy) ::pause();
        for (size_t at = 0; at < kBytes; at += 512) area[at] = static_cast<char>(value);
      }
    }
    char byte;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Writer() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(WriteRate, TellsWhoWritesFromWhoSleeps) {
  const Writer idle(false), busy(true);
  const pid_t pids[] = {idle.pid(), busy.pid()};
  EXPECT_LT(written_a_second(std::span(pids).first(1)), 1);
  EXPECT_GT(written_a_second(std::span(pids).last(1)), 2);
  EXPECT_GT(written_a_second(pids), 1);
}

TEST(WriteRate, OfNobody) {
  const pid_t gone[] = {1 << 22};
  EXPECT_EQ(written_a_second(gone), 0);
  EXPECT_EQ(written_a_second({}), 0);
}

}  // namespace
}  // namespace stasis

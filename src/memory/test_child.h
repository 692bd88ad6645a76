// For tests: a forked child that prepares its memory and then stays stopped until the end of the test.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/page_size.h"
#include "kernel/proc.h"
#include "memory/vma.h"

namespace stasis {

class StoppedChild {
 public:
  template <class Prepare>
  explicit StoppedChild(Prepare&& prepare) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      prepare();
      ::raise(SIGSTOP);
      ::_exit(0);
    }
    int status = 0;
    if (::waitpid(pid_, &status, WUNTRACED) != pid_ || !WIFSTOPPED(status)) ADD_FAILURE() << "the child did not stop";
  }
  StoppedChild(const StoppedChild&) = delete;
  StoppedChild& operator=(const StoppedChild&) = delete;
  ~StoppedChild() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  ProcDir proc() const { return ProcDir(pid_); }
  std::vector<Mapping> smaps() const {
    ProcDir dir(pid_);
    return parse_smaps(dir.read("smaps"));
  }
  // Its areas in [start, start + bytes), cut to that range. Their files may be deleted ones.
  std::vector<Vma> areas(const void* start, size_t bytes) const {
    std::vector<Vma> result;
    const uint64_t first = reinterpret_cast<uint64_t>(start);
    for (Mapping m : smaps()) {
      m.start = std::max(m.start, first);
      m.end = std::min(m.end, first + bytes);
      if (m.start >= m.end) continue;
      if (m.name.starts_with("/tmp/")) m.deleted = false;
      result.push_back(classify(std::span(&m, 1)).front());
    }
    return result;
  }
  Fd open(const char* name, int flags) const { return proc().open(name, flags); }
  std::string read(const void* address, size_t bytes) const {
    std::string out(bytes, '\0');
    const Fd memory = open("mem", O_RDONLY);
    EXPECT_EQ(::pread(memory.get(), out.data(), bytes, static_cast<off_t>(reinterpret_cast<uint64_t>(address))),
              static_cast<ssize_t>(bytes));
    return out;
  }

 private:
  pid_t pid_ = 0;
};

// `pages` pages of this process, without access: a range of addresses for a child to fill. Never unmapped.
inline char* reserve_pages(size_t pages) {
  void* area =
      ::mmap(nullptr, pages * page_size_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) ADD_FAILURE() << "mmap";
  return static_cast<char*>(area);
}

// Maps `pages` anonymous pages over part of such a range.
inline void map_pages(char* at, size_t pages, int prot = PROT_READ | PROT_WRITE,
                      int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, off_t offset = 0) {
  if (::mmap(at, pages * page_size_bytes(), prot, flags | MAP_FIXED, fd, offset) == MAP_FAILED) ::_exit(9);
}

}  // namespace stasis

// Ways to move the pages of a stopped process into a file and back, timed side by side. The choices of page_dump.cpp
// and fill.cpp come from its figures; run it again when the kernel or the machine is of another kind.
//
//   memory_transfer_bench DIRECTORY [MIB] [PASSES]
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "kernel/process.h"

namespace stasis {
namespace {

using Clock = std::chrono::steady_clock;

struct Subject {
  pid_t pid = 0;
  char* base = nullptr;
  size_t bytes = 0;
  Fd memory;
};

// A child with `bytes` of memory at a known address, filled or untouched, that waits for its end.
Subject start_subject(size_t bytes, bool filled, int advice) {
  void* area = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) throw_errno("cannot map the subject's memory");
  ::madvise(area, bytes, advice);
  Subject subject{0, static_cast<char*>(area), bytes, {}};
  int ready[2];
  check(::pipe2(ready, O_CLOEXEC), "cannot make a pipe");
  subject.pid = check(::fork(), "cannot fork");
  if (subject.pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (filled) {
      for (size_t at = 0; at < bytes; at += 8) std::memcpy(subject.base + at, &at, sizeof(at));
    }
    char byte = 'r';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char byte;
  if (::read(ready[0], &byte, 1) != 1) throw_errno("the subject did not start");
  ::close(ready[0]);
  ::munmap(area, bytes);
  subject.memory = Fd(check(::open(fmt::format("/proc/{}/mem", subject.pid).c_str(), O_RDWR | O_CLOEXEC), "mem"));
  return subject;
}

void stop_subject(Subject& subject) {
  ::kill(subject.pid, SIGKILL);
  ::waitpid(subject.pid, nullptr, 0);
}

// One slice [from, from + bytes) of the work, on one thread.
using Slice = std::function<void(const Subject&, int fd, size_t from, size_t bytes)>;

void whole_write(int fd, const char* from, size_t bytes, size_t offset) {
  while (bytes > 0) {
    ssize_t n = check(::pwrite(fd, from, bytes, static_cast<off_t>(offset)), "cannot write");
    from += n, offset += static_cast<size_t>(n), bytes -= static_cast<size_t>(n);
  }
}

void whole_read(int fd, char* to, size_t bytes, size_t offset) {
  while (bytes > 0) {
    ssize_t n = check(::pread(fd, to, bytes, static_cast<off_t>(offset)), "cannot read");
    to += n, offset += static_cast<size_t>(n), bytes -= static_cast<size_t>(n);
  }
}

std::unique_ptr<char, void (*)(char*)> buffer_of(size_t bytes) {
  return {static_cast<char*>(std::aligned_alloc(4096, bytes)), [](char* p) { std::free(p); }};
}

uint64_t remote(const Subject& subject, size_t offset) {
  return reinterpret_cast<uint64_t>(subject.base) + offset;
}

Slice readv_and_write(size_t block) {
  return [block](const Subject& s, int fd, size_t from, size_t bytes) {
    auto buffer = buffer_of(block);
    for (size_t at = from; at < from + bytes; at += block) {
      size_t n = std::min(block, from + bytes - at);
      fail_if(process_vm_read_all(s.pid, remote(s, at), buffer.get(), n), "cannot read the subject");
      whole_write(fd, buffer.get(), n, at);
    }
  };
}

Slice mem_and_write(size_t block) {
  return [block](const Subject& s, int fd, size_t from, size_t bytes) {
    auto buffer = buffer_of(block);
    for (size_t at = from; at < from + bytes; at += block) {
      size_t n = std::min(block, from + bytes - at);
      whole_read(s.memory.get(), buffer.get(), n, remote(s, at));
      whole_write(fd, buffer.get(), n, at);
    }
  };
}

void readv_into_file_mapping(const Subject& s, int fd, size_t from, size_t bytes) {
  void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(from));
  if (map == MAP_FAILED) throw_errno("cannot map the file");
  fail_if(process_vm_read_all(s.pid, remote(s, from), map, bytes), "cannot read the subject");
  ::munmap(map, bytes);
}

Slice readv_into_memory(int advice) {
  return [advice](const Subject& s, int, size_t from, size_t bytes) {
    void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) throw_errno("cannot map memory");
    ::madvise(map, bytes, advice);
    fail_if(process_vm_read_all(s.pid, remote(s, from), map, bytes), "cannot read the subject");
    ::munmap(map, bytes);
  };
}

Slice writev_from_file_mapping(int map_flags, size_t window) {
  return [=](const Subject& s, int fd, size_t from, size_t bytes) {
    for (size_t at = from; at < from + bytes; at += window) {
      size_t n = std::min(window, from + bytes - at);
      void* map = ::mmap(nullptr, n, PROT_READ, map_flags, fd, static_cast<off_t>(at));
      if (map == MAP_FAILED) throw_errno("cannot map the file");
      fail_if(process_vm_write_all(s.pid, remote(s, at), map, n), "cannot write the subject");
      ::munmap(map, n);
    }
  };
}

Slice read_and_writev(size_t block) {
  return [block](const Subject& s, int fd, size_t from, size_t bytes) {
    auto buffer = buffer_of(block);
    for (size_t at = from; at < from + bytes; at += block) {
      size_t n = std::min(block, from + bytes - at);
      whole_read(fd, buffer.get(), n, at);
      fail_if(process_vm_write_all(s.pid, remote(s, at), buffer.get(), n), "cannot write the subject");
    }
  };
}

Slice read_and_mem(size_t block) {
  return [block](const Subject& s, int fd, size_t from, size_t bytes) {
    auto buffer = buffer_of(block);
    for (size_t at = from; at < from + bytes; at += block) {
      size_t n = std::min(block, from + bytes - at);
      whole_read(fd, buffer.get(), n, at);
      whole_write(s.memory.get(), buffer.get(), n, remote(s, at));
    }
  };
}

// What the owner of the memory could do itself in a batch.
void own_read(const Subject&, int fd, size_t from, size_t bytes) {
  void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw_errno("cannot map memory");
  whole_read(fd, static_cast<char*>(map), bytes, from);
  ::munmap(map, bytes);
}

double run(const Subject& subject, int fd, const Slice& slice, size_t threads) {
  auto begin = Clock::now();
  size_t part = subject.bytes / threads;
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; ++i) others.emplace_back([&, i] { slice(subject, fd, i * part, part); });
  slice(subject, fd, 0, part);
  for (auto& t : others) t.join();
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

void report(const char* what, size_t threads, std::vector<double>& times, size_t bytes) {
  std::sort(times.begin(), times.end());
  double median = times[times.size() / 2];
  fmt::print("{:<44} {} thread{}  {:9.3f} ms  {:6.2f} GiB/s\n", what, threads, threads == 1 ? " " : "s", median,
             static_cast<double>(bytes) / 1.073741824e9 / (median / 1e3));
}

int bench(const std::string& directory, size_t bytes, int passes) {
  Fd fd(check(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "cannot make a file"));
  struct Way {
    const char* name;
    Slice slice;
  };
  const Way dumps[] = {
      {"readv, 128 KiB buffer, write", readv_and_write(size_t{128} << 10)},
      {"readv, 512 KiB buffer, write", readv_and_write(size_t{512} << 10)},
      {"readv, 4 MiB buffer, write", readv_and_write(size_t{4} << 20)},
      {"/proc/PID/mem, 128 KiB buffer, write", mem_and_write(size_t{128} << 10)},
      {"readv into a mapping of the file", readv_into_file_mapping},
      {"readv into fresh memory", readv_into_memory(MADV_NOHUGEPAGE)},
      {"readv into fresh memory, huge pages", readv_into_memory(MADV_HUGEPAGE)},
  };
  const Way fills[] = {
      {"writev from a mapping of the file", writev_from_file_mapping(MAP_SHARED, bytes)},
      {"writev from a populated mapping", writev_from_file_mapping(MAP_SHARED | MAP_POPULATE, bytes)},
      {"writev from populated windows of 2 MiB", writev_from_file_mapping(MAP_SHARED | MAP_POPULATE, size_t{2} << 20)},
      {"read, 128 KiB buffer, writev", read_and_writev(size_t{128} << 10)},
      {"read, 512 KiB buffer, writev", read_and_writev(size_t{512} << 10)},
      {"read, 128 KiB buffer, /proc/PID/mem", read_and_mem(size_t{128} << 10)},
      {"read by the owner of the memory", own_read},
  };
  Subject full = start_subject(bytes, true, MADV_NOHUGEPAGE);
  for (const Way& way : dumps) {
    for (size_t threads : {1, 2}) {
      std::vector<double> times;
      for (int i = 0; i < passes; ++i) {
        check(::ftruncate(fd.get(), 0), "cannot truncate");
        if (way.slice.target<void (*)(const Subject&, int, size_t, size_t)>() != nullptr)
          check(::ftruncate(fd.get(), static_cast<off_t>(bytes)), "cannot truncate");
        times.push_back(run(full, fd.get(), way.slice, threads));
      }
      report(way.name, threads, times, bytes);
    }
  }
  check(::ftruncate(fd.get(), 0), "cannot truncate");
  run(full, fd.get(), readv_and_write(size_t{512} << 10), 1);
  stop_subject(full);
  for (int advice : {MADV_NOHUGEPAGE, MADV_HUGEPAGE}) {
    fmt::print("fill, {} pages\n", advice == MADV_HUGEPAGE ? "huge" : "small");
    for (const Way& way : fills) {
      for (size_t threads : {1, 2}) {
        std::vector<double> times;
        for (int i = 0; i < passes; ++i) {
          Subject empty = start_subject(bytes, false, advice);
          times.push_back(run(empty, fd.get(), way.slice, threads));
          stop_subject(empty);
        }
        report(way.name, threads, times, bytes);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace stasis

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: {} DIRECTORY [MIB] [PASSES]\n", argv[0]);
    return 2;
  }
  try {
    size_t mib = argc > 2 ? std::stoul(argv[2]) : 256;
    return stasis::bench(argv[1], mib << 20, argc > 3 ? std::stoi(argv[3]) : 3);
  } catch (const stasis::Error& e) {
    fmt::print(stderr, "{}\n", e.report());
    return 1;
  }
}

#include "memory/write_rate.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "base/page_size.h"
#include "kernel/proc.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

// So many present pages tell a rate of one page in a hundred between two looks.
constexpr size_t kSamples = 512, kTries = 8 * kSamples;
constexpr std::chrono::milliseconds kInterval{4};

struct Range {
  uint64_t start;
  uint64_t pages;
  int memory_fd, pagemap_fd;
};

struct Sample {
  int memory_fd;
  uint64_t address;
  uint64_t hash;
};

bool hash_page(Sample& sample, std::vector<char>& page) {
  if (::pread(sample.memory_fd, page.data(), page.size(), static_cast<off_t>(sample.address)) !=
      static_cast<ssize_t>(page.size()))
    return false;
  sample.hash = XXH3_64bits(page.data(), page.size());
  return true;
}

// Reading a page that was never touched would make the kernel enter the zero page for it.
bool is_present(const Range& range, uint64_t address) {
  uint64_t entry = 0;
  return ::pread(range.pagemap_fd, &entry, sizeof entry,
                 static_cast<off_t>(address / page_size_bytes() * sizeof entry)) == sizeof entry &&
         (entry & (uapi::pm_present | uapi::pm_file)) == uapi::pm_present;
}

}  // namespace

double written_a_second(std::span<const pid_t> pids) {
  std::vector<Fd> files;
  std::vector<Range> ranges;
  std::vector<uint64_t> ends;  // of the ranges, in pages
  for (pid_t pid : pids) {
    try {
      ProcDir dir(pid);
      files.push_back(dir.open("mem", O_RDONLY));
      files.push_back(dir.open("pagemap", O_RDONLY));
      for (const Mapping& m : parse_maps(dir.read("maps"))) {
        if (!m.write || m.shared) continue;
        ranges.push_back(
            {m.start, m.size_bytes() / page_size_bytes(), files[files.size() - 2].get(), files.back().get()});
        ends.push_back((ends.empty() ? 0 : ends.back()) + ranges.back().pages);
      }
    } catch (const Error&) {
      // It has ended.
    }
  }
  if (ends.empty()) return 0;
  std::minstd_rand random(static_cast<unsigned>(::getpid()));
  std::uniform_int_distribution<uint64_t> any(0, ends.back() - 1);
  std::vector<Sample> samples;
  std::vector<char> page(page_size_bytes());
  const auto begin = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kTries && samples.size() < kSamples; ++i) {
    const uint64_t number = any(random);
    const auto at = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), number) - ends.begin());
    const Range& range = ranges[at];
    const uint64_t address = range.start + (number - (ends[at] - range.pages)) * page_size_bytes();
    Sample sample{range.memory_fd, address, 0};
    if (is_present(range, address) && hash_page(sample, page)) samples.push_back(sample);
  }
  if (samples.empty()) return 0;
  const auto half = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(kInterval);
  size_t changed = 0;
  const auto again = std::chrono::steady_clock::now();
  for (Sample& sample : samples) {
    const uint64_t before = sample.hash;
    if (hash_page(sample, page) && sample.hash != before) ++changed;
  }
  const auto end = std::chrono::steady_clock::now();
  // Between the two looks at the average page.
  const double seconds = std::chrono::duration<double>((again - begin + end - half) / 2).count();
  return static_cast<double>(changed) / static_cast<double>(samples.size()) / seconds;
}

}  // namespace stasis

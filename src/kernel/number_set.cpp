#include "kernel/number_set.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "kernel/proc_text.h"

namespace stasis {

NumberSet::NumberSet(std::span<const uint64_t> words) {
  while (!words.empty() && words.back() == 0) words = words.first(words.size() - 1);
  words_.assign(words.begin(), words.end());
}

NumberSet NumberSet::of_bytes(std::span<const std::byte> bytes) {
  std::vector<uint64_t> words(bytes.size() / sizeof(uint64_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint64_t));
  return NumberSet(words);
}

NumberSet NumberSet::all() {
  NumberSet out;
  out.words_.assign(kMostWords, ~uint64_t{0});
  return out;
}

void NumberSet::add(uint32_t number) {
  if (number / 64 >= words_.size()) words_.resize(number / 64 + 1);
  words_[number / 64] |= uint64_t{1} << number % 64;
}

bool NumberSet::contains(const NumberSet& other) const {
  if (other.words_.size() > words_.size()) return false;
  for (size_t i = 0; i < other.words_.size(); ++i)
    if ((other.words_[i] & ~words_[i]) != 0) return false;
  return true;
}

NumberSet NumberSet::common(const NumberSet& other) const {
  std::vector<uint64_t> words(std::min(words_.size(), other.words_.size()));
  for (size_t i = 0; i < words.size(); ++i) words[i] = words_[i] & other.words_[i];
  return NumberSet(words);
}

NumberSet parse_number_list(std::string_view text) {
  NumberSet out;
  proc_text::Cursor cursor(proc_text::trim(text), "list of numbers");
  while (!cursor.at_end()) {
    const auto first = cursor.number<uint32_t>();
    auto last = first;
    if (cursor.peek() == '-') {
      cursor.expect('-');
      last = cursor.number<uint32_t>();
    }
    if (last < first || last >= NumberSet::kMostWords * 64) cursor.fail("a range is none");
    for (uint32_t n = first; n <= last; ++n) out.add(n);
    if (!cursor.at_end()) cursor.expect(',');
  }
  return out;
}

namespace {

// A list below /sys/devices/system; nothing when there is no such file.
std::optional<NumberSet> read_list(const char* path) {
  const Fd fd(open(path, O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t bytes = fd ? read(fd.get(), text.data(), text.size()) : -1;
  if (bytes < 0) return std::nullopt;
  return parse_number_list({text.data(), static_cast<size_t>(bytes)});
}

}  // namespace

NumberSet online_cpus() {
  constexpr const char* kFile = "/sys/devices/system/cpu/online";
  if (auto cpus = read_list(kFile)) return *std::move(cpus);
  throw Error(Reason::SYSTEM, "the list of processors cannot be read")
      .object(kFile)
      .error_number(errno)
      .remedy("mount sysfs on /sys");
}

const NumberSet& nodes_with_memory() {
  static const NumberSet nodes = [] {
    NumberSet only;
    only.add(0);
    return read_list("/sys/devices/system/node/has_memory").value_or(only);
  }();
  return nodes;
}

std::optional<uint32_t> memory_node_limit() noexcept {
  static const std::optional<uint32_t> limit = []() noexcept {
    constexpr uint32_t kMost = 1024;  // 1 << CONFIG_NODES_SHIFT, which is at most 10
    std::array<uint64_t, kMost / 64> nodes;
    const int saved = errno;
    std::optional<uint32_t> found;
    int mode;
    // EINVAL while it is too short, ENOSYS without NUMA.
    for (uint32_t bits = 64; !found && bits <= kMost; bits *= 2)
      if (syscall(SYS_get_mempolicy, &mode, nodes.data(), uint64_t{bits}, nullptr, 0) == 0) found = bits;
    errno = saved;
    return found;
  }();
  return limit;
}

int get_affinity(pid_t tid, NumberSet& out) noexcept {
  std::array<uint64_t, NumberSet::kMostWords> words;
  const int saved = errno;
  const long bytes = syscall(SYS_sched_getaffinity, tid, sizeof words, words.data());
  const int error_number = errno;
  errno = saved;
  if (bytes < 0) return -error_number;
  out = NumberSet(std::span(words).first(static_cast<size_t>(bytes) / sizeof(uint64_t)));
  return 0;
}

int set_affinity(pid_t tid, const NumberSet& cpus) noexcept {
  const int saved = errno;
  const long result = syscall(SYS_sched_setaffinity, tid, cpus.words().size_bytes(), cpus.words().data());
  const int error_number = errno;
  errno = saved;
  return result < 0 ? -error_number : 0;
}

}  // namespace stasis

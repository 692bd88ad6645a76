#include "kernel/cpu_set.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/fd.h"
#include "kernel/proc_text.h"

namespace stasis {

CpuSet::CpuSet(std::span<const uint64_t> words) {
  while (!words.empty() && words.back() == 0) words = words.first(words.size() - 1);
  words_.assign(words.begin(), words.end());
}

CpuSet CpuSet::all() {
  CpuSet out;
  out.words_.assign(kMostWords, ~uint64_t{0});
  return out;
}

void CpuSet::add(uint32_t cpu) {
  if (cpu / 64 >= words_.size()) words_.resize(cpu / 64 + 1);
  words_[cpu / 64] |= uint64_t{1} << cpu % 64;
}

bool CpuSet::contains(const CpuSet& other) const {
  if (other.words_.size() > words_.size()) return false;
  for (size_t i = 0; i < other.words_.size(); ++i)
    if ((other.words_[i] & ~words_[i]) != 0) return false;
  return true;
}

CpuSet parse_cpu_list(std::string_view text) {
  CpuSet out;
  proc_text::Cursor cursor(proc_text::trim(text), "list of processors");
  while (!cursor.at_end()) {
    const auto first = cursor.number<uint32_t>();
    auto last = first;
    if (cursor.peek() == '-') {
      cursor.expect('-');
      last = cursor.number<uint32_t>();
    }
    if (last < first || last >= CpuSet::kMostWords * 64) cursor.fail("a range is none");
    for (uint32_t cpu = first; cpu <= last; ++cpu) out.add(cpu);
    if (!cursor.at_end()) cursor.expect(',');
  }
  return out;
}

CpuSet online_cpus() {
  constexpr const char* kFile = "/sys/devices/system/cpu/online";
  const Fd fd(open(kFile, O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t bytes = fd ? read(fd.get(), text.data(), text.size()) : -1;
  if (bytes < 0)
    throw Error(Reason::SYSTEM, "the list of processors cannot be read")
        .object(kFile)
        .error_number(errno)
        .remedy("mount sysfs on /sys");
  return parse_cpu_list({text.data(), static_cast<size_t>(bytes)});
}

int get_affinity(pid_t tid, CpuSet& out) noexcept {
  std::array<uint64_t, CpuSet::kMostWords> words;
  const int saved = errno;
  const long bytes = syscall(SYS_sched_getaffinity, tid, sizeof words, words.data());
  const int error_number = errno;
  errno = saved;
  if (bytes < 0) return -error_number;
  out = CpuSet(std::span(words).first(static_cast<size_t>(bytes) / sizeof(uint64_t)));
  return 0;
}

int set_affinity(pid_t tid, const CpuSet& cpus) noexcept {
  const int saved = errno;
  const long result = syscall(SYS_sched_setaffinity, tid, cpus.words().size_bytes(), cpus.words().data());
  const int error_number = errno;
  errno = saved;
  return result < 0 ? -error_number : 0;
}

}  // namespace stasis

// Sets of processors, of any number: sched_getaffinity(2) without glibc's limit of 1024.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace stasis {

// Bit 0 of the first word is processor 0; no word of zeros at the end.
class CpuSet {
 public:
  // The largest set that a kernel is built for (NR_CPUS).
  static constexpr size_t kMostWords = 8192 / 64;

  CpuSet() = default;
  explicit CpuSet(std::span<const uint64_t> words);
  static CpuSet all();

  void add(uint32_t cpu);
  bool empty() const { return words_.empty(); }
  bool contains(const CpuSet& other) const;
  std::span<const uint64_t> words() const { return words_; }
  bool operator==(const CpuSet&) const = default;

 private:
  std::vector<uint64_t> words_;
};

// "0-3,8" as /sys writes it. Throws PROC_TEXT.
CpuSet parse_cpu_list(std::string_view text);
// The processors that are online now. Throws SYSTEM.
CpuSet online_cpus();

// 0, or a negative errno.
int get_affinity(pid_t tid, CpuSet& out) noexcept;
// The kernel leaves out processors that are not there, or not in the control group; -EINVAL when none is left.
int set_affinity(pid_t tid, const CpuSet& cpus) noexcept;

}  // namespace stasis

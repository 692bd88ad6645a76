// Sets of processors and of memory nodes, of any number: sched_getaffinity(2) without glibc's limit of 1024.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace stasis {

// Bit 0 of the first word is number 0; no word of zeros at the end.
class NumberSet {
 public:
  // The largest set that a kernel is built for (NR_CPUS; there are fewer nodes).
  static constexpr size_t kMostWords = 8192 / 64;

  NumberSet() = default;
  explicit NumberSet(std::span<const uint64_t> words);
  // What the kernel has filled in: whole words.
  static NumberSet of_bytes(std::span<const std::byte> bytes);
  static NumberSet all();

  void add(uint32_t number);
  bool empty() const { return words_.empty(); }
  bool contains(const NumberSet& other) const;
  NumberSet common(const NumberSet& other) const;
  std::span<const uint64_t> words() const { return words_; }
  bool operator==(const NumberSet&) const = default;

 private:
  std::vector<uint64_t> words_;
};

// "0-3,8" as /sys writes it. Throws PROC_TEXT.
NumberSet parse_number_list(std::string_view text);
// The processors that are online now. Throws SYSTEM.
NumberSet online_cpus();

// The memory nodes that have memory, as the first call finds them; node 0 alone on a kernel without NUMA. Throws
// PROC_TEXT.
const NumberSet& nodes_with_memory();

// 0, or a negative errno.
int get_affinity(pid_t tid, NumberSet& out) noexcept;
// The kernel leaves out processors that are not there, or not in the control group; -EINVAL when none is left.
int set_affinity(pid_t tid, const NumberSet& cpus) noexcept;

// How many bits the set must have that get_mempolicy(2) fills, found out by the first call; nothing on a kernel without
// NUMA.
std::optional<uint32_t> memory_node_limit() noexcept;

}  // namespace stasis

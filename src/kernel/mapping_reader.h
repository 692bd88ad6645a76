// Mappings of many tasks with their flags, faster than /proc/PID/smaps tells them.
//
// smaps walks the page tables of every mapping to count what nobody asked for, and writes 25 lines of text: 4-5 us a
// mapping (Linux 6.18), most of what a dump of many small processes does in the freeze. The only thing that a dump
// needs and no other file has is the line VmFlags. A BPF iterator hands out the kernel's own flag words in 0.25 us a
// mapping, and /proc/PID/maps the rest in 0.9 us.
//
// The bits of the flag word are the kernel's own business: what a word means is learned from smaps, once per word.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "kernel/proc.h"

namespace stasis {

class MappingReader {
 public:
  // Nothing where the kernel has no such iterators (6.1, with CONFIG_DEBUG_INFO_BTF) or does not let this program use
  // them (CAP_BPF and CAP_PERFMON). Reading the kernel's type information takes some milliseconds: worth it from a
  // thousand mappings on.
  static std::unique_ptr<MappingReader> open();

  // What parse_smaps() gives of a process that is stopped, but for the two numbers of KiB where nothing is of
  // hugetlbfs. Any thread, several at once.
  void read(ProcDir& proc, ProcBuffer& buffer, std::vector<Mapping>& out);

 private:
  struct FlagWord {
    uint64_t start, end, flags;
  };
  struct Meaning {
    uint64_t vm_flags;
    std::string unknown_vm_flags;
    int protection_key;
  };

  explicit MappingReader(Fd program) : program_(std::move(program)) {}
  // False if the iterator fails.
  bool iterate(pid_t pid, std::vector<FlagWord>& out) const;
  // False if a word is not known, or the lists are not of the same mappings.
  bool explain(const std::vector<FlagWord>& words, std::vector<Mapping>& mappings) const;
  // Reads smaps up to the last mapping that has a new word.
  void learn(ProcDir& proc, ProcBuffer& buffer, const std::vector<FlagWord>& words);
  void learn(const std::vector<FlagWord>& words, const std::vector<Mapping>& mappings);
  // The last mapping with a new word; nothing if all are known.
  const FlagWord* last_unknown(const std::vector<FlagWord>& words) const;

  Fd program_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, Meaning> meanings_;
};

}  // namespace stasis

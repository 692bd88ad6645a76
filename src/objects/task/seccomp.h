// Seccomp: the mode of each thread, and the filters that threads and processes share by inheritance.
//
// Filters are kernel objects in chains: a new one points to those that its thread had before, and clones share the
// chain. A later SECCOMP_FILTER_FLAG_TSYNC succeeds only among threads whose chains begin with the same objects. No
// call tells whether two filters are one object, so filters that are equal, behind equal ones, are taken for one
// (docs/decisions/0014).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "objects/task_object.h"
#include "proto/seccomp.pb.h"
#include "tracee/seccomp_filter.h"

namespace stasis {

struct Seccomp {
  static constexpr std::string_view name = "seccomp mode";
  static constexpr Scope scope = Scope::thread;
  struct State {
    int mode = 0;                    // SECCOMP_MODE_*
    std::optional<uint32_t> filter;  // the last one of its chain, in SeccompFilters; mode filter only
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  // Strict mode. Filters are installed when processes and threads are cloned, so that they are inherited.
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// Do its filters have SECCOMP_FILTER_FLAG_SPEC_ALLOW? Seen by what they do without it, on machines where that is so.
// `vulnerability`: the sysfs file spec_store_bypass.
bool has_spec_allow(const ProcStatus& status, std::string_view vulnerability);
bool has_spec_allow(const ProcStatus& status);

// All filters of a tree.
class SeccompFilters {
 public:
  struct Node {
    SeccompProgram program;
    uint32_t flags = 0;              // SECCOMP_FILTER_FLAG_*
    std::optional<uint32_t> before;  // the filter that was installed before it
  };

  // Dump: adds what a thread has, the first installed first; the number of the last. Throws UNSUPPORTED_STATE for a
  // filter whose decisions another process takes.
  std::optional<uint32_t> add(std::span<const SeccompFilter> chain, bool spec_allow);
  void encode(pb::seccomp_entry& entry) const;

  // Restore. Throws IMAGE_CORRUPT.
  void decode(const pb::seccomp_entry& entry);
  // Numbers of the filters up to `last`, the first installed first. Throws IMAGE_CORRUPT.
  std::vector<uint32_t> chain(uint32_t last) const;
  // The call that installs a filter in the thread that runs the batch; it has those before it.
  void install(uint32_t number, SyscallBatch& batch) const;

  size_t size() const { return nodes_.size(); }
  const Node& operator[](uint32_t number) const { return nodes_[number]; }

 private:
  using Key = std::tuple<std::optional<uint32_t>, uint32_t, std::string>;
  std::vector<Node> nodes_;
  std::map<Key, uint32_t> known_;  // dump
};

}  // namespace stasis

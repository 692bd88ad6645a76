#include "objects/task/seccomp.h"

#include <fmt/format.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace stasis {

namespace {

// A chain holds 32768 instructions at the most, and each filter counts for four more (MAX_INSNS_PER_PATH in
// kernel/seccomp.c).
constexpr size_t kLongestChain = 32768 / 5;
constexpr uint32_t kKnownFlags = SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
// How filters are installed, not what they are: images may name them.
constexpr uint32_t kOtherFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;

std::string_view text_of(const SeccompProgram& program) {
  return {reinterpret_cast<const char*>(program.data()), program.size() * sizeof(sock_filter)};
}

[[noreturn]] void corrupt_filter(std::string what) {
  throw Error(Reason::IMAGE_CORRUPT, std::move(what)).object("seccomp.img");
}

}  // namespace

void Seccomp::look(const LookView& view, State& state) {
  state.mode = view.status.seccomp;
}

void Seccomp::encode(const State& state, pb::core_entry& core) {
  if (state.mode == SECCOMP_MODE_DISABLED) return;
  core.mutable_thread_core()->set_seccomp_mode(static_cast<pb::seccomp_mode>(state.mode));
  if (state.filter) core.mutable_thread_core()->set_seccomp_filter(*state.filter);
}

void Seccomp::decode(const pb::core_entry& core, State& state) {
  state = {};
  const pb::thread_core_entry& thread = core.thread_core();
  // Older images have it in the part of the process.
  const bool old = !thread.has_seccomp_mode() && core.tc().has_old_seccomp_mode();
  state.mode = old ? core.tc().old_seccomp_mode() : thread.seccomp_mode();
  if (state.mode != SECCOMP_MODE_FILTER) return;
  if (!(old ? core.tc().has_old_seccomp_filter() : thread.has_seccomp_filter()))
    throw Error(Reason::IMAGE_CORRUPT, "it is in seccomp filter mode and has no filter");
  state.filter = old ? core.tc().old_seccomp_filter() : thread.seccomp_filter();
}

void Seccomp::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.mode == SECCOMP_MODE_STRICT) batch.must(SYS_prctl, {PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0});
}

bool has_spec_allow(const ProcStatus& status, std::string_view vulnerability) {
  // "Mitigation: Speculative Store Bypass disabled via prctl and seccomp"
  return status.store_bypass_open && vulnerability.find("seccomp") != std::string_view::npos;
}

bool has_spec_allow(const ProcStatus& status) {
  if (!status.store_bypass_open) return false;
  static const std::string vulnerability = [] {
    try {
      return read_system_file("../sys/devices/system/cpu/vulnerabilities/spec_store_bypass");
    } catch (const Error&) {
      return std::string();
    }
  }();
  return has_spec_allow(status, vulnerability);
}

std::optional<uint32_t> SeccompFilters::add(std::span<const SeccompFilter> chain, bool spec_allow) {
  std::optional<uint32_t> last;
  for (const SeccompFilter& f : chain) {
    const auto [at, fresh] = known_.try_emplace(Key(last, f.flags, text_of(f.program)), nodes_.size());
    if (fresh) {
      if (may_notify(f.program))
        throw Error(Reason::UNSUPPORTED_STATE,
                    "another process decides on its system calls (SECCOMP_RET_USER_NOTIF in a seccomp filter)")
            .remedy("run it without the supervising process before the dump");
      nodes_.push_back({f.program, f.flags, last});
    }
    // One thread that is not restricted shows that none of its filters did it.
    if (spec_allow) nodes_[at->second].flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    last = at->second;
  }
  return last;
}

void SeccompFilters::encode(pb::seccomp_entry& entry) const {
  for (const Node& n : nodes_) {
    pb::seccomp_filter& out = *entry.add_seccomp_filters();
    out.set_filter(std::string(text_of(n.program)));
    if (n.before) out.set_prev(*n.before);
    if (n.flags != 0) out.set_flags(n.flags);
  }
}

void SeccompFilters::decode(const pb::seccomp_entry& entry) {
  nodes_.clear();
  for (const pb::seccomp_filter& in : entry.seccomp_filters()) {
    Node n;
    const std::string& text = in.filter();
    if (text.empty() || text.size() % sizeof(sock_filter) != 0 || text.size() / sizeof(sock_filter) > BPF_MAXINSNS)
      corrupt_filter(fmt::format("filter {} has {} bytes", nodes_.size(), text.size()));
    n.program.resize(text.size() / sizeof(sock_filter));
    std::memcpy(n.program.data(), text.data(), text.size());
    if ((in.flags() & ~(kKnownFlags | kOtherFlags)) != 0)
      throw Error(Reason::IMAGE_UNSUPPORTED,
                  fmt::format("filter {} has the flags {:#x}, which cannot be restored", nodes_.size(), in.flags()))
          .object("seccomp.img");
    n.flags = in.flags() & kKnownFlags;
    if (in.has_prev()) n.before = in.prev();
    nodes_.push_back(std::move(n));
  }
}

std::vector<uint32_t> SeccompFilters::chain(uint32_t last) const {
  std::vector<uint32_t> out;
  for (std::optional<uint32_t> n = last; n; n = nodes_[*n].before) {
    if (*n >= nodes_.size()) corrupt_filter(fmt::format("there is no filter {}", *n));
    if (out.size() == kLongestChain) corrupt_filter(fmt::format("the chain of filter {} has no end", last));
    out.push_back(*n);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

void SeccompFilters::install(uint32_t number, SyscallBatch& batch) const {
  const Node& n = nodes_[number];
  const BatchData program = batch.data(std::as_bytes(std::span(n.program)));
  const BatchData header = batch.object(sock_fprog{static_cast<unsigned short>(n.program.size()), nullptr});
  batch.point(header.part(offsetof(sock_fprog, filter), sizeof(uint64_t)), program);
  batch.must(SYS_seccomp, {SECCOMP_SET_MODE_FILTER, n.flags, header});
}

}  // namespace stasis

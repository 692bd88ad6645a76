// signalfd(2): a set of signals. What can be read are the pending signals of whoever reads.
#pragma once

#include "objects/files/file_kind.h"

namespace stasis {

struct SignalFd {
  static constexpr std::string_view name = "signalfd";
  static constexpr pb::fd_types type = pb::SIGNALFD;
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint64_t signals = 0;  // bit n-1 for signal n

    bool operator==(const State&) const = default;
  };
  struct Shared {};

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

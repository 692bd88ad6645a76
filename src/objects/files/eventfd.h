// eventfd(2): a counter, and whether a read takes one of it (EFD_SEMAPHORE). fdinfo tells both (proc(5)), the latter
// since Linux 6.5; before, it is tried out, and the counter put back.
#pragma once

#include "objects/files/file_kind.h"

namespace stasis {

struct EventFd {
  static constexpr std::string_view name = "eventfd";
  static constexpr pb::fd_types type = pb::EVENTFD;
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint64_t counter = 0;
    bool semaphore = false;

    bool operator==(const State&) const = default;
  };
  struct Shared {};

  // Needs a descriptor that can be read and written, and leaves the counter as it is.
  static bool try_semaphore(int fd, uint64_t counter);

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

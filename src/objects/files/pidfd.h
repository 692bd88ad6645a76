// pidfd_open(2): a process of the tree, or one that has ended and was waited for. Pidfds of the same dead process have
// the same inode (Linux 6.9); at the restore a process is born and ends for each of these.
#pragma once

#include <map>
#include <optional>

#include "objects/files/file_kind.h"

namespace stasis {

struct PidFd {
  static constexpr std::string_view name = "pidfd";
  static constexpr pb::fd_types type = pb::PIDFD;

  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint32_t inode = 0;
    pid_t pid = 0;                 // as the tree sees it; -1: it is gone
    std::optional<int> exit_code;  // of one that is gone, as wait(2) tells it

    bool operator==(const State&) const = default;
  };
  // Lives until its end of the pipe is closed, and is waited for then.
  struct Victim {
    pid_t pid = -1;
    Fd go;
    Victim() = default;
    Victim(const Victim&) = delete;
    Victim& operator=(const Victim&) = delete;
    ~Victim();
  };
  struct Shared {
    std::map<uint32_t, Victim> victims;  // restore, by inode
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

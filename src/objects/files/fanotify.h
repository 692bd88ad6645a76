// fanotify(7): groups for notification, with marks of inodes, mounts and file systems, and what they ignore.
//
// Groups that are asked for permission are refused: while their tasks stand still, every open of a marked file waits
// for them, those of this program, too. Unread events are a loss that the user has to allow, as with inotify. Marks
// are added when everything else is open and closed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "objects/files/file_kind.h"
#include "objects/files/watched_inode.h"

namespace stasis {

struct Fanotify {
  static constexpr std::string_view name = "fanotify";
  static constexpr pb::fd_types type = pb::FANOTIFY;

  struct Mark {
    enum class Of { inode, mount, filesystem };
    Of of = Of::inode;
    uint32_t mflags = 0;  // FAN_MARK_* that say how it ignores
    uint32_t mask = 0, ignored_mask = 0;
    WatchedInode target;  // of a mount: its path; of a file system: one of its mounts
    uint32_t mount_id = 0;

    bool operator==(const Mark&) const = default;
  };
  using Marks = std::vector<Mark>;
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint32_t group_flags = 0, event_flags = 0;  // of fanotify_init(2)
    std::shared_ptr<Marks> marks = std::make_shared<Marks>();
  };
  struct Seen {
    std::shared_ptr<Marks> marks;
    std::string who;
  };
  struct ToMark {
    uint32_t id;
    std::shared_ptr<Marks> marks;
  };
  struct Shared {
    std::vector<Seen> seen;       // dump
    std::vector<ToMark> to_mark;  // restore
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void conclude(DumpFiles& files, Shared& shared);
  static void encode(const State& state, pb::file_entry& out);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode(const pb::file_entry& in, State& state);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

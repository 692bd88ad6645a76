// inotify(7): what it watches, for which events, under which watch descriptors.
//
// A dump finds the path of each watched file: by its handle, by an open file of the tree if it was deleted, or, if the
// user asks for it, by a search. Events that were not read cannot be written back: they are a loss that the user has
// to allow. The restore adds the watches when everything else is open and closed: nothing it does is seen by them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "objects/files/file_kind.h"
#include "objects/files/watched_inode.h"

namespace stasis {

struct Inotify {
  static constexpr std::string_view name = "inotify";
  static constexpr pb::fd_types type = pb::INOTIFY;

  struct Watch {
    uint32_t wd = 0;
    uint32_t mask = 0;
    WatchedInode target;
    uint32_t file = 0;  // an open file of the tree without a path; 0: the path of the target

    bool operator==(const Watch&) const = default;
  };
  using Watches = std::vector<Watch>;
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    std::shared_ptr<Watches> watches = std::make_shared<Watches>();  // by ascending wd, once decoded
  };
  struct Seen {
    std::shared_ptr<Watches> watches;
    std::string who;
  };
  struct ToWatch {
    uint32_t id;
    std::shared_ptr<Watches> watches;
  };
  struct Shared {
    std::vector<Seen> seen;         // dump
    std::vector<ToWatch> to_watch;  // restore
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

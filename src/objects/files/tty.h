// The terminal of a shell job: it belongs to a session outside of the tree, stays there, and is replaced by the
// terminal of whoever restores. Images describe it (tty-info.img) and name its device node (a REG entry).
//
// Refused: terminals of sessions inside the tree, masters of pseudo terminals, and more than one terminal from outside.
// Settings and size are saved for inspection; the caller's terminal keeps its own.
#pragma once

#include <map>
#include <vector>

#include "objects/files/file_kind.h"
#include "proto/tty.pb.h"

namespace stasis {

struct Terminal {
  static constexpr std::string_view name = "terminal";
  static constexpr pb::fd_types type = pb::TTY;

  struct State {
    uint32_t id = 0;
    uint32_t info_id = 0;  // of the record in tty-info.img
    uint32_t flags = 0;
    FileOwner owner;
    uint32_t node_id = 0;  // REG entry of the device node; 0: none

    bool operator==(const State&) const = default;
  };
  struct Shared {
    std::map<uint32_t, pb::tty_info_entry> infos;  // by info id
    // Dump:
    bool sessions_known = false;
    std::vector<uint32_t> tree_terminals;  // devices of the sessions that the tree leads
    uint32_t outside_terminal = 0;         // device of the one from outside; 0: none seen yet
    // Restore:
    bool terminal_checked = false;
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void write_images(Shared& shared, ImageStore& store);
  static void decode(const pb::file_entry& in, State& state);
  static void read_images(const ImageStore& store, Shared& shared);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

// What inotify and fanotify watch. The kernel tells inode, device and perhaps a file handle; a restore wants a path.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dump_options.h"
#include "kernel/proc_mounts.h"
#include "objects/files/file_kind.h"
#include "proto/fh.pb.h"

namespace stasis {

struct WatchedInode {
  uint64_t inode = 0;
  uint32_t device = 0;  // as the kernel writes it (20 bits for the minor number)
  uint32_t handle_type = 0;
  std::string handle;  // empty: the file system has none
  std::string path;    // empty: none is known

  bool operator==(const WatchedInode&) const = default;
};

// "fhandle-bytes:8 fhandle-type:1 f_handle:1ac5030000000000" of fdinfo.
void parse_handle(std::string_view text, WatchedInode& inode);
void encode_handle(const WatchedInode& inode, pb::fh_entry& out);
// Throws IMAGE_CORRUPT.
void decode_handle(const pb::fh_entry& in, WatchedInode& inode);

// Finds paths without opening anything, which could be watched itself.
class WatchedPaths {
 public:
  struct Found {
    // Of a file that has no name any more.
    std::optional<struct stat> deleted;
  };
  WatchedPaths();

  // Fills the paths that are empty, as far as there are any. One result for each.
  std::vector<Found> resolve(std::span<WatchedInode* const> inodes) const;
  // Where a device or a mount of this program is mounted; empty: nowhere.
  std::string mount_of_device(uint32_t device) const;
  std::string mount_of_id(int id) const;

 private:
  Found resolve_one(WatchedInode& inode) const;

  std::vector<MountInfo> mounts_;
};

// Below the directories that the user names, or where watched files usually are. Reads directories.
void scan_for(std::span<WatchedInode* const> inodes, const DumpOptions& options);

// Dump. Finds paths, or open files, for all. `file_of` takes the id of an open file for the n-th. Throws
// UNSUPPORTED_FILE naming `who`.
void find_targets(std::span<WatchedInode* const> inodes, const WatchedPaths& paths, DumpFiles& files,
                  const std::string& who, const std::function<void(size_t, uint32_t)>& file_of);
// Dump. Adds a loss if `view` has events that nobody has read.
void look_for_unread_events(const FileView& view, DumpFiles& files);
// Restore. Throws FILE_MISSING if nothing is at the path, naming `nameless` if none is known.
void require_path(const WatchedInode& inode, const std::string& nameless);

}  // namespace stasis

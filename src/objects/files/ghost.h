// A ghost: an inode that no name leads to any more, kept alive by whoever has it open, mapped, or as working directory.
//
// This is the one place that saves such an inode and makes it again, of whatever type: regular file, directory,
// symbolic link, device node, fifo. Which names it had, and who refers to it, is known by RemapTable (dump) and
// RestoredRemaps. A kind of file that meets deleted inodes needs neither: it asks for DumpFiles::remaps.path_of(),
// which saves the inode once, and at the restore takes RestoreFiles::remaps.reopen(), or the O_PATH descriptor that
// this returns.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/address_range.h"
#include "base/fd.h"
#include "image/streamed.h"
#include "proto/extension.pb.h"
#include "proto/ghost-file.pb.h"

namespace stasis {

struct Xattr {
  std::string name;
  std::string value;

  bool operator==(const Xattr&) const = default;
};

struct GhostInode {
  uint32_t uid = 0, gid = 0;
  uint32_t mode = 0;  // as in struct stat
  uint64_t dev = 0, ino = 0;
  uint64_t rdev = 0;
  timespec atime{}, mtime{};
  uint64_t size_bytes = 0;
  std::string target;  // of a symbolic link
  std::vector<Xattr> xattrs;

  bool is_file() const noexcept { return S_ISREG(mode); }
  bool is_directory() const noexcept { return S_ISDIR(mode); }
};

// Dump ---------------------------------------------------------------------------------------------------

// Everything but the contents. `fd` may be O_PATH. Throws UNSUPPORTED_FILE for what cannot be made again.
GhostInode look_at_ghost(int fd, const struct stat& st, const std::string& who);

// Where a regular file has contents, ascending; the rest are holes. `by_extents`: from the extent map of the file
// system, if it has one, which brings the file to the disk. `fd` is open for reading; its position changes.
std::vector<AddressRange> file_data(int fd, uint64_t size_bytes, bool by_extents, const std::string& who);

// Writes the image. `content`: a regular file, open for reading.
void write_ghost(const GhostInode& inode, int content, bool by_extents, StreamWriter& out, const std::string& who);
void encode_extension(const GhostInode& inode, pb::extension_ghost& out);

// Restore ------------------------------------------------------------------------------------------------

// The head of the image; passes over the contents and checks them. `reader` then stands at the end.
GhostInode read_ghost(StreamReader& reader);
void decode_extension(const pb::extension_ghost& in, GhostInode& inode);

// Makes a directory, symbolic link, device node, fifo or socket; for a regular file an empty one. The name must be
// free: false with EEXIST. Throws RESTORE_CALL_FAILED naming `shown`.
bool make_inode(const GhostInode& inode, int directory, const std::string& name, const std::string& shown);
// Contents of a new regular file, open for writing. `reader` is new, too.
void fill_ghost(StreamReader& reader, int fd, const std::string& shown);
// Owner, mode, extended attributes; times, which come last of all. `fd` may be O_PATH.
void set_attributes(const GhostInode& inode, int fd, const std::string& shown);
void set_times(const GhostInode& inode, int fd, const std::string& shown);

}  // namespace stasis

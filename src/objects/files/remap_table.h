// Dump: files whose name does not lead to them any more, and what stands in for the name.
//
//   string path = leads_to_file(link, fd, st) ? link : remaps.path_of({id, fd, st, link, who});
//
// No name is left: a ghost, the inode itself goes into the images. Another name is left, but nobody knows which: a
// temporary hard link beside the old name, where --link-remap permits it; the restore removes it. Whoever refers to one
// inode, by whatever descriptor or mapping, meets one ghost or link. A file of /proc of a dead process: its pid, for
// which the restore makes a process for a moment.
//
// Owns the temporary links until keep_links(), and an open description of each deleted regular file until its contents
// are copied. Contents are copied while the tasks stand still, in a dump that lets them run on, too: a clone that costs
// nothing would need images on the same file system, one that can clone, and most deleted files are on tmpfs.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dump_options.h"
#include "base/fd.h"
#include "image/store.h"
#include "objects/files/ghost.h"
#include "proto/extension.pb.h"
#include "proto/remap-file-path.pb.h"

namespace stasis {

// The text of a link of /proc is the name of the file, and will be when the tasks are gone.
bool leads_to_file(const std::string& link, int fd, const struct stat& st);

// The directory in which an absolute path names something.
std::string directory_of(const std::string& path);

struct NamedFile {
  uint32_t id = 0;  // of the REG entry
  int fd = -1;      // O_PATH will do
  const struct stat& st;
  const std::string& link;
  std::string who;
};

class RemapTable {
 public:
  // Links get ids like any file with a path.
  RemapTable(const DumpOptions& options, uint32_t& next_file_id) : options_(options), next_file_id_(next_file_id) {}
  RemapTable(const RemapTable&) = delete;
  RemapTable& operator=(const RemapTable&) = delete;
  ~RemapTable();

  // The path that the image gives to a file whose name does not lead to it. Throws FILE_UNREACHABLE and
  // UNSUPPORTED_FILE.
  std::string path_of(const NamedFile& file);

  // Every file is known, and the tasks stand still. Writes ghost-file-N.img.
  void copy_contents(ImageStore& store);
  // Adds the REG entries of links to `files`, and writes remap-fpath.img.
  void encode(ImageStore& store, ImageWriter& files) const;
  void encode_extension(pb::extension_head& head) const;
  // The dump is complete.
  void keep_links() { links_.clear(); }

 private:
  using Inode = std::pair<dev_t, ino_t>;
  struct Ghost {
    GhostInode inode;
    Fd content;
    std::string who;
  };
  struct Link {
    uint32_t file_id;
    std::string path;
    uint32_t mode;
    uint64_t size_bytes;
  };

  uint32_t ghost_of(const NamedFile& file);
  uint32_t link_of(const NamedFile& file, const std::string& path);
  std::string make_link(const NamedFile& file, const std::string& path, uint32_t id) const;
  void add(uint32_t file_id, pb::remap_type type, uint32_t stand_in);
  void check_limit(const NamedFile& file) const;

  const DumpOptions& options_;
  uint32_t& next_file_id_;
  std::vector<pb::remap_file_path_entry> remaps_;
  std::map<Inode, uint32_t> ghost_ids_, link_ids_;
  std::vector<Ghost> ghosts_;  // the first has id 1
  std::vector<Link> links_;
};

}  // namespace stasis

// Restore: files whose name does not lead to them, made or found again, and held until the tasks have them.
//
// A deleted file comes back without leaving anything behind, however the restore ends. It is made without a name
// (O_TMPFILE), gets its contents, and then for a moment the name it had, so that links of /proc read as before:
// "/dir/name (deleted)". A name that somebody else has taken meanwhile is not touched: the file is then called
// "name.ghost.1", which its link shows. One that never had a name is made as it was, and stays linkable.
// Directories are made before what they contained, and removed after it. Parents that are gone are made, too, for as
// long. A file of /proc of a process that is dead is opened while a process with that pid stands in.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "image/store.h"
#include "objects/files/ghost.h"
#include "proto/extension.pb.h"
#include "proto/remap-file-path.pb.h"

namespace stasis {

class RestoredRemaps {
 public:
  RestoredRemaps() = default;
  RestoredRemaps(const RestoredRemaps&) = delete;
  RestoredRemaps& operator=(const RestoredRemaps&) = delete;
  ~RestoredRemaps();

  // Reads and checks remap-fpath.img and the ghosts. Throws IMAGE_CORRUPT, IMAGE_MISSING, IMAGE_UNSUPPORTED.
  void read(const ImageStore& store);
  void read_extension(const pb::extension_head& head);
  // The files that something stands in for, and what stands in for them; then what the images say of each.
  struct Remap {
    uint32_t file_id = 0;
    pb::remap_type type{};
    uint32_t stand_in = 0;  // a ghost; the REG entry of a temporary link; the pid of a dead process
  };
  const std::vector<Remap>& remaps() const { return remaps_; }
  void set_name(const Remap& remap, const std::string& path, uint32_t flags, const std::string& link_path);

  bool contains(uint32_t file_id) const { return places_by_file_.contains(file_id); }
  // Before anything is opened. Throws RESTORE_CALL_FAILED.
  void create(const ImageStore& store);
  // A new description of the file; empty and errno on failure.
  Fd open(uint32_t file_id, int flags) const;
  // The one description that only its own making gives: by its flags (O_TMPFILE, O_NOFOLLOW), or of a dead process.
  // Empty: open() does.
  Fd take(uint32_t file_id);
  // All are opened and mapped, which sets access times: sets those of the images.
  void finish() const;
  // The restore is complete: the temporary links go.
  void remove_links();

 private:
  struct User {
    uint32_t file_id;
    uint32_t flags;
  };
  // One name of an inode.
  struct Place {
    std::string path;
    std::vector<User> users;
    Fd fd;  // O_PATH
  };
  struct Ghost {
    GhostInode inode;
    std::map<std::string, Place> places;
  };
  struct Link {
    std::string path;  // of the temporary link
    std::map<std::string, Place> places;
  };
  // A name that must not stay.
  struct Name {
    Fd directory;
    std::string name;
    std::string shown;
    bool is_directory = false;
    dev_t dev = 0;
    ino_t ino = 0;
  };

  void open_dead_process(pid_t pid, std::map<std::string, Place>& places);
  Fd directory_at(const std::string& path);
  Name name_at(const std::string& path);
  void note(Name name);
  void make_directories();
  void make_file(const ImageStore& store, uint32_t id, Ghost& ghost);
  Fd make_unnamed(const Ghost& ghost, const Place& place);
  Fd make_spare(const std::string& path);
  void make_node(Ghost& ghost);
  void give_names(int fd, const char* source, std::span<Place* const> places);
  void open_place(Place& place, const Name& name);
  void remove_names(size_t from) noexcept;

  std::vector<Remap> remaps_;
  std::map<uint32_t, Ghost> ghosts_;
  std::map<uint32_t, Link> links_;  // by the file id of the link
  std::map<pid_t, std::map<std::string, Place>> dead_processes_;
  std::map<uint32_t, Place*> places_by_file_;
  std::map<uint32_t, Fd> descriptions_;
  std::vector<Name> names_;  // that are there now, removed in reverse
};

}  // namespace stasis

// All open files of the dumped tree: which descriptor of which process refers to which open file.
//
// Owns what was found out; duplicates of descriptors are closed as soon as they were looked at. The caller guarantees
// that every task of the tree stays stopped from the first add_process() to conclude(). encode() needs no tasks.
#pragma once

#include <sys/types.h>

#include <any>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kernel/proc_maps.h"
#include "objects/files/file_kind.h"
#include "objects/files/file_locks.h"
#include "objects/files/held_locks.h"
#include "objects/files/regular.h"

namespace stasis {

struct DescriptorNumber {
  int number = -1;
  bool cloexec = false;
};

class FileTable final : public DumpFiles {
 public:
  explicit FileTable(const DumpOptions& options);

  // The tree stands still, and has so many descriptors: begins what takes a while.
  void expect(size_t descriptors);

  // The descriptors of one table, as a task has it; a table that tasks share is added once. `comm` is for messages.
  // Throws UNSUPPORTED_FILE and whatever the kinds refuse.
  void add_process(uint32_t files_id, pid_t pid, int pidfd, std::string_view comm,
                   std::span<const DescriptorNumber> descriptors);
  uint32_t add_path_file(const PathFile& file) override;
  std::optional<WatchedFile> watched_file(const Watch& watch) override;
  uint32_t deleted_file(dev_t dev, ino_t ino) override;
  uint32_t file_at(pid_t pid, int number) override;
  // A file without a path that a task maps or executes, by any descriptor of this program; the same object with the
  // same flags has one id. The caller fills fd, flags, pid and owner.
  uint32_t add_mapped_file(FileView& view);
  // The file behind a mapping of a kind that a task has to make. Throws UNSUPPORTED_MAPPING if no descriptor of the
  // tree leads to it, or if the mapping could not be made again.
  uint32_t mapping_of_task_made(const Mapping& m, std::string_view owner) const;
  bool has_task_made() const { return !task_made_.empty(); }
  // Every process was added: what can only be said of the whole tree, and what is copied while it stands still. What no
  // image can hold.
  std::span<const FileLoss> conclude(ImageStore& store);

  // Writes files.img, fdinfo-N.img and the images of the kinds.
  void encode(ImageStore& store);
  // What their messages have no place for.
  void encode_extension(pb::extension_head& head) const;

  size_t files() const { return files_.size(); }

 private:
  struct File {
    const FileKind* kind;
    uint32_t id;
    std::any state;
  };
  struct Slot {
    uint32_t id;
    pb::fd_types type;
    int number;
    bool cloexec;
  };
  struct Table {
    uint32_t files_id;
    pid_t pid;
    std::vector<Slot> slots;
  };
  // One holder of an open file, to compare others with.
  struct Holder {
    pid_t pid;
    int number;
    size_t file;  // index into files_
  };
  // Open files that may be the same, in the order of kcmp. Nearly always one.
  using Candidates = std::vector<Holder>;
  struct Key {
    dev_t dev;
    ino_t ino;
    uint32_t flags;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const noexcept;
  };

  struct Looked {
    Fd fd;
    FileView view;
  };

  void look_at(Fd fd, int number, pid_t pid, std::string_view owner, bool early, Looked& out) const;
  // Index into files_.
  size_t find_or_dump(FileView& view);
  size_t dump(FileView& view);

  std::vector<File> files_;
  std::vector<Table> tables_;
  std::vector<std::any> shared_;  // parallel to file_kinds()
  std::unordered_map<Key, Candidates, KeyHash> candidates_;
  std::map<std::pair<dev_t, ino_t>, uint32_t> deleted_;  // without a name, by the first open file
  std::map<std::pair<dev_t, ino_t>, size_t> task_made_;  // index into files_
  std::map<std::tuple<dev_t, ino_t, uint32_t>, uint32_t> mapped_ids_;
  std::map<std::tuple<dev_t, ino_t, uint32_t, std::string>, uint32_t> path_ids_;
  std::vector<RegularFile::State> path_files_;
  HeldLocks locks_;
  DumpedLocks dumped_locks_;
  Fd own_links_;  // /proc/self/fd
};

// "a socket", "an eventfd", "a character device (10:229)": for errors about files without a kind.
std::string describe_unknown_file(const FileView& view);

}  // namespace stasis

// All open files of the images: made once, in this process, and handed to the tasks by number.
//
//   RestoredFiles files(store, options, files_ids);     // reads and checks the images
//   files.plan();                                       // refuses what cannot work; nothing is made yet
//   files.create_deleted(store);                        // files without a name are there, for mappings, too
//   files.create();                                     // every description exists in this process
//   ... hand out fd_of(slot.id) for each slot of descriptors(files_id) ...
//   files.finish();                                     // every task exists
//   ... each task calls fcntl(number, F_SETFL, flags) for async_slots() ...
//
// Owns the descriptors until it is destroyed; that must be before a task runs, because an end of a pipe held here hides
// its closing. The limit of open files is raised meanwhile.
#pragma once

#include <sys/resource.h>

#include <any>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "objects/files/file_kind.h"
#include "objects/files/file_locks.h"
#include "objects/files/regular.h"

namespace stasis {

class RestoredFiles {
 public:
  // One id for each descriptor table. `extension`: null for dumps of other programs. `options` and nothing else must
  // outlive the object. Throws IMAGE_CORRUPT and IMAGE_UNSUPPORTED.
  RestoredFiles(const ImageStore& store, const RestoreOptions& options, std::span<const uint32_t> files_ids,
                const pb::extension_head* extension = nullptr);
  RestoredFiles(const RestoredFiles&) = delete;
  RestoredFiles& operator=(const RestoredFiles&) = delete;
  ~RestoredFiles();

  // Tells when the clocks of the restored tasks began, by CLOCK_MONOTONIC of this program; before finish().
  void set_clocks_began(uint64_t at_ns) { context_.clocks_began_at_ns = at_ns; }
  void plan();
  void create_deleted(const ImageStore& store);
  // For the leader of a session, when it has become that; nothing if it has none. Before create().
  std::optional<SessionTerminal> session_terminal(pid_t session);
  void create();
  // Files that only a task can make: create() leaves them out.
  bool made_by_task(uint32_t id) const;
  pid_t maker(uint32_t id) const;
  void make(uint32_t id, MakingTask& task);
  void finish();
  // The restore is complete: temporary links of the images go.
  void remove_links() { context_.remaps.remove_links(); }

  // Descriptors of a table, by ascending number.
  const std::vector<DescriptorSlot>& descriptors(uint32_t files_id) const;
  int fd_of(uint32_t id) const;
  // Those that can be handed over: the others are made in the task.
  std::vector<DescriptorSlot> given_descriptors(uint32_t files_id) const;

  // The slots of a table whose owner must set O_ASYNC itself, with the flags for F_SETFL: siginfo carries the number
  // with which that was called. Only one slot for each open file, over all tables.
  struct AsyncSlot {
    int number;
    uint32_t flags;
  };
  std::vector<AsyncSlot> async_slots(uint32_t files_id) const;

  // Adds what a task has to do itself when it has the descriptors of its table. Once for a table.
  void call(uint32_t files_id, SyscallBatch& batch);

  // File locks. `owners`: the tasks and their tables. Throws FILE_LOCKS_HELD without the option, IMAGE_CORRUPT.
  struct TableOwner {
    pid_t task;
    uint32_t files_id;
  };
  struct Lock {
    SavedLock saved;
    uint32_t file_id;
  };
  void plan_locks(std::span<const TableOwner> owners);
  // Those that a task has to take, when no temporary descriptor is left in any (O-31, O-32).
  std::span<const Lock> locks_of(pid_t task) const;
  void take(const Lock& lock, SyscallBatch& batch) const;
  // When all are taken.
  void finish_leases() const;

  // Executables, directories, mapped files with a path. Throws IMAGE_CORRUPT when `id` is not that of a file with a
  // path.
  const RegularFile::State& path_file(uint32_t id) const;
  Fd open_path(uint32_t id, std::optional<int> other_flags = std::nullopt) const;
  // A new description of an executable or a mapped file, also of one without a path. Throws like path_file().
  Fd open_mapped(uint32_t id, int flags);

 private:
  struct File {
    const FileKind* kind;
    size_t kind_index;
    uint32_t id;
    std::any state;
    Fd fd;
    bool used = false;  // some descriptor refers to it
  };
  struct Table {
    uint32_t files_id;
    std::vector<DescriptorSlot> slots;
  };

  void read_files(const ImageStore& store);
  void read_remaps(const ImageStore& store, const pb::extension_head* extension);
  void read_extension(const pb::extension_head& head);
  void read_table(const ImageStore& store, uint32_t files_id);
  void plan(File& file);
  void create(File& file);
  void raise_limit();
  uint32_t file_beside(uint32_t id, int number) const;
  const File& file(uint32_t id) const;
  FileOwner owner_of(uint32_t id) const;

  RestoreFiles context_;
  std::vector<std::any> shared_;  // parallel to file_kinds()
  std::vector<File> files_;       // in the order of the images
  std::unordered_map<uint32_t, size_t> by_id_;
  std::unordered_set<uint32_t> device_nodes_;  // REG entries that only describe a terminal
  std::vector<Table> tables_;
  std::vector<Lock> locks_;  // by task
  std::optional<rlimit> old_limit_;
};

}  // namespace stasis

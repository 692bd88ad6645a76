// Files that are opened by their path: regular files, directories, plain devices such as /dev/null, and whatever a task
// holds by O_PATH. Also files used without a descriptor: executable, working and root directory, mapped files.
//
// An image holds the path and what recognises the file (size, mode, build id), not its contents: the file must be there
// at the restore, unchanged. What its path does not lead to any more, deleted files above all, is up to RemapTable.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "objects/files/file_kind.h"

namespace stasis {

// A POSIX message queue, which looks like a small file.
bool is_message_queue(const FileView& view);

struct RegularFile {
  static constexpr std::string_view name = "file with a path";
  static constexpr pb::fd_types type = pb::REG;
  static constexpr bool independent = true;

  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    uint64_t pos = 0;
    FileOwner owner;
    std::string path;
    int32_t mount_id = -1;               // only for tasks with their own mounts
    std::optional<uint64_t> size_bytes;  // absent for files that may grow: O_WRONLY|O_APPEND
    std::optional<uint32_t> mode;        // as in struct stat
    std::vector<uint32_t> build_id;
    std::optional<uint64_t> device;  // of a device node
    bool external = false;           // `path` is a name to look up among the files that the caller gives

    bool operator==(const State&) const = default;
  };
  struct Shared {};

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared&, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode(const pb::file_entry& in, State& state);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void plan(const State& state, RestoreFiles& files, Shared&);
  static Fd create(const State& state, RestoreFiles& files, Shared&);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared&);
};

// The state of a file that is used without a descriptor: position 0, nobody's signals. Throws FILE_UNREACHABLE.
RegularFile::State describe_path_file(const PathFile& file, uint32_t id, DumpFiles& files);

// Restore: the path leads to the file that was saved. Throws FILE_MISSING or FILE_CHANGED. Files of processes that do
// not exist yet (/proc/42/stat) are passed over, and those that something stands in for.
void verify_path_file(const RegularFile::State& state, const RestoreFiles& files);

// Restore: the REG entry with that id, which belongs to a file of another kind, or to none. Throws IMAGE_CORRUPT when
// there is none.
const RegularFile::State& path_file_state(const RestoreFiles& files, uint32_t id);

// Restore: opens the file, with these flags and at position 0. The one throws FILE_MISSING, the other gives nothing and
// errno.
Fd open_path_file(const RegularFile::State& state, const RestoreFiles& files, int flags);
Fd try_open_path_file(const RegularFile::State& state, const RestoreFiles& files, int flags);

}  // namespace stasis

// Named pipes, opened by their path, with the data in them.
//
// Dump: as with pipes the data is copied, not taken. Data that nobody of the tree can read is saved as well: whoever
// opens the name finds it. Ends outside of the tree are no hindrance: they are met again by the name.
//
// Restore: the first end is opened for reading or writing at once, or for both, so that no open ever waits. A fifo that
// others have open keeps what it holds by then, as a file would.
#pragma once

#include <sys/stat.h>

#include <map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "objects/files/file_kind.h"
#include "objects/files/pipe_content.h"
#include "objects/files/regular.h"

namespace stasis {

struct Fifo {
  static constexpr std::string_view name = "fifo";
  static constexpr pb::fd_types type = pb::FIFO;

  // Flags, owner and path are those of the REG entry.
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;    // of the dump alone; the restore has those of the REG entry
    uint32_t pipe_id = 0;  // the same for all ends
    uint32_t node_id = 0;  // the REG entry
    // A reading end that was opened before any writer: poll() does not say that it was hung up.
    bool expects_writer = false;

    bool operator==(const State&) const = default;
  };

  // A fifo that is being made. Both are held until all ends are there: without a reader the data would be lost.
  struct Made {
    struct stat st {};
    Fd reader, writer;
  };
  struct Ends {
    bool reader = false, writer = false;
  };
  // A slot whose task sets O_ASYNC: siginfo has the number with which that was done.
  struct Async {
    uint32_t id, flags;
  };
  struct Shared {
    PipeContents contents;
    std::map<uint32_t, Ends> ends;
    // dump
    std::map<std::pair<dev_t, ino_t>, uint32_t> ids;
    std::unordered_set<uint32_t> taken_ids;
    PipeCopier copier;
    // restore
    std::map<uint32_t, Made> made;
    std::vector<Async> async;
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void write_images(Shared& shared, ImageStore& store);
  static void decode(const pb::file_entry& in, State& state);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void read_images(const ImageStore& store, Shared& shared);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles& files, Shared& shared);
  static void call(std::span<const DescriptorSlot> table, SyscallBatch& batch, Shared& shared);
};

}  // namespace stasis

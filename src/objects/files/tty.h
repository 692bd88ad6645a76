// Terminals. Images describe each side of one (tty-info.img), what waits in it (tty-data.img, tty_queue.h), and name
// its device node (a REG entry).
//
// A pseudo terminal whose master is in the tree is made again, with its number (tty_pairs.h). Slaves whose master is
// closed come back hung up. Others come from outside of the tree: one that the user declared external
// ("tty[RDEV:DEV]") is replaced by the descriptor that the caller gives under this name; the terminal of a shell job by
// that of whoever restores it; consoles and serial lines that control nothing here are opened by their names.
//
// Not seen: input that was written to a terminal whose slave nobody has ever opened, and echoes that wait while output
// is stopped.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "objects/files/file_kind.h"
#include "objects/files/tty_pairs.h"
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
    uint32_t node_id = 0;        // REG entry of the device node; 0: none
    uint32_t stands_for = 0;     // of an open /dev/tty: the record of the terminal that it was; 0: not known
    std::shared_ptr<Pty> pty{};  // of a master

    bool operator==(const State&) const = default;
  };

  // Dump: a side of a terminal.
  struct Master {
    Fd fd;
    uint32_t index = 0;
    std::string who, path;
    bool packet = false;
    std::shared_ptr<Pty> pty;
  };
  struct Slave {
    std::string who, key;
    std::optional<dev_t> node_device;  // of its file system, if not only /dev/tty is open
    pid_t pid = 0;
    uint32_t info_id = 0;
    uint32_t device = 0;    // as /proc/PID/stat has it
    bool external = false;  // declared so
    bool by_name = false;   // can be opened again by its name
  };
  struct Shared {
    std::map<uint32_t, pb::tty_info_entry> infos;                    // by info id
    std::map<uint32_t, std::pair<std::string, std::string>> queues;  // input and output, by info id of the slave
    // Dump:
    std::map<uint32_t, Master> masters;            // by info id of the slave
    std::map<uint32_t, Slave> slaves;              // by info id
    std::map<std::string, uint32_t> external_ids;  // info ids by key
    // Restore:
    PtyPairs pairs;
    bool terminal_checked = false;
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void conclude(DumpFiles& files, Shared& shared);
  static void encode(const State& state, pb::file_entry& out);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void write_images(Shared& shared, ImageStore& store);
  static void decode(const pb::file_entry& in, State& state);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void read_images(const ImageStore& store, Shared& shared);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static std::optional<SessionTerminal> session_terminal(pid_t session, RestoreFiles& files, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles& files, Shared& shared);
};

}  // namespace stasis

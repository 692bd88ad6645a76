// The verbs of a kind of open file: everything behind a descriptor number.
//
// A kind is a struct with static members, in its own file; absent verbs are not called:
//
//   struct Pipe {
//     static constexpr std::string_view name = "pipe";
//     static constexpr pb::fd_types type = pb::PIPE;
//     struct State { ... };                                        // plain data, what an image holds of one open file
//     struct Shared { ... };                                       // scratch of the kind for the run: by pipe id ...
//
//     static bool match(const FileView&);                          // is this open file mine?
//     static void dump(const FileView&, DumpFiles&, Shared&, State&);      // may refuse by throwing
//     static void conclude(DumpFiles&, Shared&);                   // all files of the tree are in, tasks still frozen
//     static void encode(const State&, pb::file_entry&);           // fills type, id and its own member
//     static void encode_extension(const State&, pb::extension_file&);  // what file_entry has no place for
//     static void decode_extension(const pb::extension_file&, State&);  // after decode()
//     static void write_images(Shared&, ImageStore&);              // the kind's own image files; outside of the freeze
//     static void decode(const pb::file_entry&, State&);
//     static void read_images(const ImageStore&, Shared&);
//     static void plan(const State&, RestoreFiles&, Shared&);      // restore: nothing is made yet, may refuse
//     static Fd create(const State&, RestoreFiles&, Shared&);      // restore: made once, by the controller
//     // restore: for what has no descriptor, a mapping or an executable; before any create()
//     static Fd open_mapped(const State&, int flags, RestoreFiles&, Shared&);
//     static void finish(const State&, int fd, RestoreFiles&, Shared&);    // after all files and tasks exist
//     static void complete(RestoreFiles&, Shared&);                // once, after finish() of all files
//     // restore: for its leader; before any create()
//     static std::optional<SessionTerminal> session_terminal(pid_t session, RestoreFiles&, Shared&);
//     // restore: what a task has to do itself, with the descriptors of its table
//     static void call(std::span<const DescriptorSlot>, SyscallBatch&, Shared&);
//     // restore: of a kind that only a task can make (`static constexpr bool made_by_task = true;`), in the place of
//     // create(); all threads exist, and all other files. Mappings of such files are made when the file is there.
//     static void make(const State&, MakingTask&, RestoreFiles&);
//     static pid_t maker(const State&);                            // restore: the thread that has to do it; 0: any
//     static bool maps_at(uint64_t offset);                        // dump: can a mapping of it be made again?
//   };
//
// A kind whose files have nothing to do with each other, and no Shared, may say so: `static constexpr bool independent
// = true;`. Then plan() and create() are called by several threads.
//
// A State has at least `id` and `flags`. Files are identified by kcmp: one State for each open file description,
// however many descriptors share it.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <any>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/dump_options.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/restore_options.h"
#include "image/store.h"
#include "memory/shmem.h"
#include "objects/files/remap_table.h"
#include "objects/files/restored_remaps.h"
#include "proto/extension.pb.h"
#include "proto/fdinfo.pb.h"
#include "proto/fown.pb.h"
#include "tracee/batch.h"

namespace stasis {

class KernelMemory;

struct DescriptorSlot {
  int number = -1;
  uint32_t id = 0;  // of the open file
  bool cloexec = false;
};

constexpr std::string_view deleted_mark = " (deleted)";  // behind the text of a /proc link whose name is gone
constexpr mode_t permission_bits = 07777;

// An open file of a dumped task.
struct FileView {
  uint32_t id = 0;  // of the file_entry to make
  int fd = -1;      // a duplicate in this process; closed when dump() returns
  struct stat st {};
  std::string link;        // text of the /proc link: "/path", "pipe:[4711]", "/path (deleted)"
  uint32_t flags = 0;      // open flags of the description (F_GETFL)
  pid_t pid = 0;           // a task that holds it
  int number = -1;         // its descriptor number there; -1: a mapping or the executable of the task
  std::string_view owner;  // "pid 42 (name)"
  bool leased = false;     // holds a lease: opening the file would break it

  bool path_only() const noexcept;  // opened with O_PATH: names a file, and can do nothing else
  std::string who() const;          // "fd 7 (/path) of pid 42 (name)", for errors
  // What cannot be asked of the file, with the errno of the call (0: none).
  Error failed(std::string what_failed, int error_number = errno) const;
};

// Owner and signal for SIGIO (F_SETOWN_EX, F_SETSIG), shared by all kinds. O_ASYNC is among the flags of the file.
struct FileOwner {
  uint32_t uid = 0, euid = 0, signal = 0;
  uint32_t type = 0;  // 0 thread, 1 process, 2 process group, as F_SETOWN_EX and the images have it
  pid_t pid = 0;      // as the tree sees it; 0: nobody

  bool operator==(const FileOwner&) const = default;
};

// A file that has a path and is used without a descriptor: the executable, working and root directory, a mapped file,
// the device node of a terminal. Or the part of a fifo that is a file.
struct PathFile {
  int fd = -1;  // O_PATH will do; only looked at
  struct stat st {};
  std::string link;
  uint32_t flags = 0;      // to open it with at the restore
  std::string who;         // "the executable of pid 42 (name)", for errors
  bool must_exist = true;  // false: the restore does not open it by this name
  FileOwner owner = {};
};

// A registration of an epoll descriptor.
struct Watch {
  pid_t pid = 0;         // a task with the epoll descriptor,
  int poll_number = -1;  // its number there,
  int number = -1;       // and the number that was registered,
  uint32_t offset = 0;   // as the n-th with that number
  uint64_t inode = 0;    // of the file
};
struct WatchedFile {
  uint32_t id = 0;
  pb::fd_types type{};
  bool at_its_number = false;  // the task has it under the number that was registered
};

// A session whose leader is in the tree.
struct TreeSession {
  pid_t leader = 0;
  uint32_t terminal = 0;  // its controlling terminal, as /proc/PID/stat encodes the device; 0: none
  pid_t foreground = 0;   // the process group there
};
// The controlling terminal of a session that is being made.
struct SessionTerminal {
  int fd = -1;  // not owned
  pid_t foreground = 0;
};

// What a file has that no image can hold: refused, unless the user gives it up.
struct FileLoss {
  std::string_view name;  // of kLosses
  std::string what, who;
};

// What dumping a file may use.
class DumpFiles {
 public:
  explicit DumpFiles(const DumpOptions& options) : options_(options) {}
  DumpFiles(const DumpFiles&) = delete;
  DumpFiles& operator=(const DumpFiles&) = delete;
  virtual ~DumpFiles() = default;

  const DumpOptions& options() const { return options_; }
  uint32_t next_id() { return next_id_++; }
  // A pid as the tree itself sees it (identity while the tree shares our pid namespace).
  pid_t inner_pid(pid_t outer) const { return outer; }
  // The id of the REG entry for `file`; equal files share one.
  virtual uint32_t add_path_file(const PathFile& file) = 0;
  // Nothing if no descriptor of the tree refers to it. For conclude().
  virtual std::optional<WatchedFile> watched_file(const Watch&) { return std::nullopt; }
  // An open file of the tree with that inode, which has a name no more; 0: none. For conclude().
  virtual uint32_t deleted_file(dev_t, ino_t) { return 0; }
  // The user said that this resource stays outside of the dump: exact string, "pipe:[4711]".
  bool is_external(std::string_view key) const;

  // CLOCK_MONOTONIC of this program when the clocks of the image were read: times that are left count from there.
  uint64_t clocks_read_at_ns = 0;
  // A terminal of another session comes from outside.
  std::vector<TreeSession> tree_sessions;
  // All processes of the tree, as this program sees them, dead ones too.
  std::unordered_set<pid_t> tree_pids;
  // The file that a task of the tree has under that number; 0: none. For conclude().
  virtual uint32_t file_at(pid_t, int) { return 0; }
  // What only the kernel's own memory tells. Throws NO_PRIVILEGE or FEATURE_MISSING. Getting ready takes milliseconds.
  const KernelMemory& kernel_memory();

  // Memory behind files, whose pages are stored once for the tree.
  std::vector<MemoryObject> memory_objects;
  std::vector<FileLoss> losses;

 private:
  std::shared_ptr<KernelMemory> kernel_memory_;
  const DumpOptions& options_;
  uint32_t next_id_ = 1;

 public:
  // Files whose name does not lead to them any more.
  RemapTable remaps{options_, next_id_};
};

class RestoreFiles {
 public:
  explicit RestoreFiles(const RestoreOptions& options) : options_(options) {}
  const RestoreOptions& options() const { return options_; }
  // A pid of the images as this program sees it.
  pid_t outer_pid(pid_t inner) const { return inner; }
  // The descriptor that the caller gives in place of the resource; -1: none.
  int inherited(std::string_view key) const;
  // Throws TERMINAL_MISSING when open_caller_terminal() would.
  void require_caller_terminal() const;
  // A new description of the caller's terminal: of the first of fd 0, 1, 2 that is one, else of /dev/tty.
  Fd open_caller_terminal(uint32_t flags) const;

  // CLOCK_MONOTONIC of this program when the clocks of the restored tasks read what the image says; 0: they have those
  // of the host.
  uint64_t clocks_began_at_ns = 0;
  // Of a file of the images: its descriptor in this program (-1: no such file), and its kind. From finish() on.
  std::function<int(uint32_t id)> fd_of;
  std::function<pb::fd_types(uint32_t id)> type_of;
  // What was decoded of a file; null: no such file.
  std::function<const std::any*(uint32_t id)> state_of;
  // The file that has `number` in the first table which has a descriptor of file `id`; 0: none.
  std::function<uint32_t(uint32_t id, int number)> file_beside;
  // Files whose name does not lead to them.
  RestoredRemaps remaps;

 private:
  const RestoreOptions& options_;
};

// A task that makes a file itself, by batches.
class MakingTask {
 public:
  virtual ~MakingTask() = default;
  // Bytes that a batch may have.
  size_t batch_bytes = 0;
  pid_t pid = 0;
  std::string who;
  int number = -1;                        // the descriptor to make
  std::span<const DescriptorSlot> table;  // all of the task, ascending by number
  virtual void run(SyscallBatch& batch) = 0;
  virtual Fd duplicate(int number) = 0;
};

FileOwner dump_file_owner(const FileView& view, const DumpFiles& files);
void encode_file_owner(const FileOwner& owner, pb::fown_entry& out);
FileOwner decode_file_owner(const pb::fown_entry& in);
// Sets signal and owner on `fd` if there are any; every task of the tree exists (O-25).
void restore_file_owner(const FileOwner& owner, int fd, const RestoreFiles& files, std::string_view what);

// What the State and the message of nearly every kind have: id, flags and owner.
template <class State>
void dump_open_file(const FileView& view, const DumpFiles& files, State& state) {
  state.id = view.id;
  state.flags = view.flags;
  state.owner = dump_file_owner(view, files);
}
// `entry`: the kind's own part of `out`.
template <class State, class Entry>
void encode_open_file(const State& state, pb::fd_types type, pb::file_entry& out, Entry& entry) {
  out.set_type(type);
  out.set_id(state.id);
  entry.set_id(state.id);
  entry.set_flags(state.flags);
  encode_file_owner(state.owner, *entry.mutable_fown());
}
template <class Entry, class State>
void decode_open_file(const Entry& entry, State& state) {
  state.id = entry.id();
  state.flags = entry.flags();
  state.owner = decode_file_owner(entry.fown());
}

// /proc/self/fdinfo of an open file of this program, and a line of it (not the first): the number behind "NAME:".
std::string own_fdinfo(int fd);
std::optional<uint64_t> fdinfo_number(std::string_view fdinfo, std::string_view name, int base = 10);

// Gives a description that was made without flags those of the saved one which fcntl(F_SETFL) can set, but O_ASYNC.
void restore_status_flags(int fd, uint32_t saved, std::string_view what);

// The kernel's O_LARGEFILE, which the C library hides on 64-bit machines: set in every description that open(2) made
// there, absent in those of pipe(2).
#if defined(__aarch64__)
inline constexpr uint32_t kLargeFile = 0400000;
#elif defined(__powerpc64__)
inline constexpr uint32_t kLargeFile = 0200000;
#else
inline constexpr uint32_t kLargeFile = 0100000;
#endif

// Open flags of a saved description for opening it anew: without those that act only once or that the task must set.
int reopen_flags(uint32_t saved);
// A new description of what `fd` refers to; works for files without a path too (pipes). Empty and errno on failure.
Fd reopen(int fd, int flags);

// One row of the registry.
struct FileKind {
  std::string_view name;
  pb::fd_types type;
  bool independent;
  bool made_by_task;
  void (*make_state)(std::any&);
  void (*make_shared)(std::any&);
  uint32_t (*flags)(const std::any& state);
  bool (*match)(const FileView&);
  void (*dump)(const FileView&, DumpFiles&, std::any& shared, std::any& state);
  void (*conclude)(DumpFiles&, std::any& shared);
  void (*encode)(const std::any& state, pb::file_entry&);
  void (*encode_extension)(const std::any& state, pb::extension_file&);
  void (*decode_extension)(const pb::extension_file&, std::any& state);
  void (*write_images)(std::any& shared, ImageStore&);
  void (*decode)(const pb::file_entry&, std::any& state);
  void (*read_images)(const ImageStore&, std::any& shared);
  void (*plan)(const std::any& state, RestoreFiles&, std::any& shared);
  Fd (*create)(const std::any& state, RestoreFiles&, std::any& shared);
  Fd (*open_mapped)(const std::any& state, int flags, RestoreFiles&, std::any& shared);
  void (*finish)(const std::any& state, int fd, RestoreFiles&, std::any& shared);
  void (*complete)(RestoreFiles&, std::any& shared);
  void (*call)(std::span<const DescriptorSlot>, SyscallBatch&, std::any& shared);
  void (*make)(const std::any& state, MakingTask&, RestoreFiles&);
  pid_t (*maker)(const std::any& state);
  bool (*maps_at)(uint64_t offset);
  std::optional<SessionTerminal> (*session_terminal)(pid_t session, RestoreFiles&, std::any& shared);
};

// All kinds, in the order in which match() is asked: the first that says yes has it.
const std::vector<FileKind>& file_kinds();

namespace detail {

template <class K>
typename K::State& state_of(std::any& a) {
  return std::any_cast<typename K::State&>(a);
}
template <class K>
const typename K::State& state_of(const std::any& a) {
  return std::any_cast<const typename K::State&>(a);
}
// std::any wants copyable values; scratch data may own descriptors.
template <class K>
typename K::Shared& shared_of(std::any& a) {
  return *std::any_cast<std::shared_ptr<typename K::Shared>&>(a);
}

}  // namespace detail

template <class K>
FileKind file_kind() {
  using detail::shared_of;
  using detail::state_of;
  FileKind row{};
  row.name = K::name;
  row.type = K::type;
  if constexpr (requires { K::independent; }) row.independent = K::independent;
  row.make_state = [](std::any& st) { st.emplace<typename K::State>(); };
  row.make_shared = [](std::any& sh) { sh = std::make_shared<typename K::Shared>(); };
  row.flags = [](const std::any& st) { return state_of<K>(st).flags; };
  row.match = K::match;
  row.dump = [](const FileView& v, DumpFiles& d, std::any& sh, std::any& st) {
    K::dump(v, d, shared_of<K>(sh), state_of<K>(st));
  };
  row.encode = [](const std::any& st, pb::file_entry& e) { K::encode(state_of<K>(st), e); };
  row.decode = [](const pb::file_entry& e, std::any& st) { K::decode(e, state_of<K>(st)); };
  if constexpr (requires { K::made_by_task; }) {
    row.made_by_task = K::made_by_task;
    row.make = [](const std::any& st, MakingTask& t, RestoreFiles& r) { K::make(state_of<K>(st), t, r); };
    row.maker = [](const std::any& st) { return K::maker(state_of<K>(st)); };
    row.maps_at = K::maps_at;
  } else {
    row.create = [](const std::any& st, RestoreFiles& r, std::any& sh) {
      return K::create(state_of<K>(st), r, shared_of<K>(sh));
    };
  }
  if constexpr (requires { &K::conclude; })
    row.conclude = [](DumpFiles& d, std::any& sh) { K::conclude(d, shared_of<K>(sh)); };
  if constexpr (requires { &K::encode_extension; }) {
    row.encode_extension = [](const std::any& st, pb::extension_file& e) { K::encode_extension(state_of<K>(st), e); };
    row.decode_extension = [](const pb::extension_file& e, std::any& st) { K::decode_extension(e, state_of<K>(st)); };
  }
  if constexpr (requires { &K::write_images; })
    row.write_images = [](std::any& sh, ImageStore& s) { K::write_images(shared_of<K>(sh), s); };
  if constexpr (requires { &K::read_images; })
    row.read_images = [](const ImageStore& s, std::any& sh) { K::read_images(s, shared_of<K>(sh)); };
  if constexpr (requires { &K::plan; })
    row.plan = [](const std::any& st, RestoreFiles& r, std::any& sh) { K::plan(state_of<K>(st), r, shared_of<K>(sh)); };
  if constexpr (requires { &K::open_mapped; })
    row.open_mapped = [](const std::any& st, int flags, RestoreFiles& r, std::any& sh) {
      return K::open_mapped(state_of<K>(st), flags, r, shared_of<K>(sh));
    };
  if constexpr (requires { &K::complete; })
    row.complete = [](RestoreFiles& r, std::any& sh) { K::complete(r, shared_of<K>(sh)); };
  if constexpr (requires { &K::call; })
    row.call = [](std::span<const DescriptorSlot> table, SyscallBatch& b, std::any& sh) {
      K::call(table, b, shared_of<K>(sh));
    };
  if constexpr (requires { &K::session_terminal; })
    row.session_terminal = [](pid_t session, RestoreFiles& r, std::any& sh) {
      return K::session_terminal(session, r, shared_of<K>(sh));
    };
  if constexpr (requires { &K::finish; })
    row.finish = [](const std::any& st, int fd, RestoreFiles& r, std::any& sh) {
      K::finish(state_of<K>(st), fd, r, shared_of<K>(sh));
    };
  return row;
}

}  // namespace stasis

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
//     static void encode(const State&, pb::file_entry&);           // fills type, id and its own member
//     static void write_images(Shared&, ImageStore&);              // the kind's own image files, at the end of a dump
//     static void decode(const pb::file_entry&, State&);
//     static void read_images(const ImageStore&, Shared&);
//     static Fd create(const State&, RestoreFiles&, Shared&);      // restore: made once, by the controller
//     static void finish(const State&, int fd, RestoreFiles&, Shared&);    // after all files exist
//   };
//
// Files are identified by kcmp: one State for each open file description, however many descriptors share it.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <any>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/dump_options.h"
#include "base/fd.h"
#include "base/restore_options.h"
#include "image/store.h"
#include "proto/fdinfo.pb.h"
#include "proto/fown.pb.h"

namespace stasis {

// An open file of a dumped task. `fd` is a duplicate in this process (from pidfd_getfd), -1 where there is none (root,
// cwd and exe are O_PATH-like views opened through /proc).
struct FileView {
  uint32_t id = 0;        // of the file_entry to make
  int fd = -1;
  struct stat st {};
  std::string link;       // text of the /proc link: "/path", "pipe:[4711]", "/path (deleted)"
  uint32_t flags = 0;     // open flags of the description (F_GETFL)
  pid_t pid = 0;          // a task that holds it
  int number = -1;        // its descriptor number there; -1 for cwd, root, exe, mapping
  std::string who;        // "fd 7 (/path) of pid 42 (name)", for errors
};

// What dumping a file may use.
class DumpFiles {
 public:
  explicit DumpFiles(const DumpOptions& options) : options_(options) {}
  const DumpOptions& options() const { return options_; }
  uint32_t next_id() { return next_id_++; }
  // A pid as the tree itself sees it (identity while the tree shares our pid namespace).
  pid_t inner_pid(pid_t outer) const { return outer; }
  // Sessions of the tree; a terminal of another session comes from outside.
  std::vector<pid_t> tree_sessions;

 private:
  const DumpOptions& options_;
  uint32_t next_id_ = 1;
};

class RestoreFiles {
 public:
  explicit RestoreFiles(const RestoreOptions& options) : options_(options) {}
  const RestoreOptions& options() const { return options_; }
  // The caller's terminal, for files of a shell job: opened on first use with the given flags. Throws TERMINAL_MISSING.
  Fd open_caller_terminal(uint32_t flags);

 private:
  const RestoreOptions& options_;
};

// Owner and signal for SIGIO (F_SETOWN_EX, F_SETSIG, O_ASYNC), shared by all kinds.
struct FileOwner {
  uint32_t uid = 0, euid = 0, signal = 0, type = 0;
  pid_t pid = 0;
};
FileOwner dump_file_owner(const FileView& view);
void encode_file_owner(const FileOwner& owner, pb::fown_entry& out);
FileOwner decode_file_owner(const pb::fown_entry& in);
// Sets signal and owner on `fd` if there is an owner; every task of the tree exists.
void restore_file_owner(const FileOwner& owner, int fd, const std::string& who);

// One row of the registry.
struct FileKind {
  std::string_view name;
  pb::fd_types type;
  void (*make_state)(std::any&);
  void (*make_shared)(std::any&);
  bool (*match)(const FileView&);
  void (*dump)(const FileView&, DumpFiles&, std::any& shared, std::any& state);
  void (*encode)(const std::any& state, pb::file_entry&);
  void (*write_images)(std::any& shared, ImageStore&);
  void (*decode)(const pb::file_entry&, std::any& state);
  void (*read_images)(const ImageStore&, std::any& shared);
  Fd (*create)(const std::any& state, RestoreFiles&, std::any& shared);
  void (*finish)(const std::any& state, int fd, RestoreFiles&, std::any& shared);
};

// All kinds, in the order in which match() is asked: the first that says yes has it.
const std::vector<FileKind>& file_kinds();

template <class K>
FileKind file_kind() {
  using State = typename K::State;
  using Shared = typename K::Shared;
  FileKind row{};
  row.name = K::name;
  row.type = K::type;
  row.make_state = [](std::any& a) { a.emplace<State>(); };
  row.make_shared = [](std::any& a) { a.emplace<Shared>(); };
  row.match = K::match;
  row.dump = [](const FileView& v, DumpFiles& d, std::any& sh, std::any& st) {
    K::dump(v, d, *std::any_cast<Shared>(&sh), *std::any_cast<State>(&st));
  };
  row.encode = [](const std::any& st, pb::file_entry& e) { K::encode(*std::any_cast<State>(&st), e); };
  row.decode = [](const pb::file_entry& e, std::any& st) { K::decode(e, *std::any_cast<State>(&st)); };
  row.create = [](const std::any& st, RestoreFiles& r, std::any& sh) {
    return K::create(*std::any_cast<State>(&st), r, *std::any_cast<Shared>(&sh));
  };
  if constexpr (requires { &K::write_images; })
    row.write_images = [](std::any& sh, ImageStore& s) { K::write_images(*std::any_cast<Shared>(&sh), s); };
  if constexpr (requires { &K::read_images; })
    row.read_images = [](const ImageStore& s, std::any& sh) { K::read_images(s, *std::any_cast<Shared>(&sh)); };
  if constexpr (requires { &K::finish; })
    row.finish = [](const std::any& st, int fd, RestoreFiles& r, std::any& sh) {
      K::finish(*std::any_cast<State>(&st), fd, r, *std::any_cast<Shared>(&sh));
    };
  return row;
}

}  // namespace stasis

#include "objects/files/restored_remaps.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <unordered_set>

#include "base/error.h"
#include "base/log.h"
#include "base/scope_guard.h"
#include "kernel/process.h"
#include "objects/files/file_kind.h"
#include "objects/files/remap_table.h"

namespace stasis {
namespace {

constexpr uint32_t kTmpfile = O_TMPFILE & ~O_DIRECTORY;
constexpr uint32_t kGhostBit = 1u << 31;  // of remap_id, in images of before there was a type
constexpr int kPathOnly = O_PATH | O_NOFOLLOW | O_CLOEXEC;

Error failed(std::string what_failed, const std::string& path) {
  Error error = Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(path).error_number(errno);
  if (errno == ENOSPC || errno == EDQUOT || errno == EROFS || errno == EACCES)
    error.default_remedy("make room for the deleted file where it was: it is made there again");
  return error;
}

std::string_view last_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}
// A name beside one that is taken; the same for a file that has been through it before.
std::string spare_name(std::string_view name, int n) {
  constexpr std::string_view kMark = ".ghost.";
  constexpr size_t kLongest = 200;  // with the mark and a number it is a name yet
  name = name.substr(0, std::min(name.rfind(kMark), kLongest));
  return fmt::format("{}{}{}", name, kMark, n);
}

// What open(O_TMPFILE) made is called after its inode.
bool was_unnamed(const GhostInode& inode, std::string_view path) {
  return inode.ino != 0 && last_name(path) == fmt::format("#{}", inode.ino);
}

// Parents before what they contain.
bool path_less(std::string_view a, std::string_view b) {
  return std::ranges::lexicographical_compare(
      a, b, {}, [](char c) { return c == '/' ? 0 : int{static_cast<unsigned char>(c)}; },
      [](char c) { return c == '/' ? 0 : int{static_cast<unsigned char>(c)}; });
}

}  // namespace

RestoredRemaps::~RestoredRemaps() {
  remove_names(0);
}

// Images -------------------------------------------------------------------------------------------------

void RestoredRemaps::read(const ImageStore& store) {
  std::optional<ImageReader> reader = store.reader(ImageKind::REMAP_FPATH);
  if (!reader) return;
  std::unordered_set<uint32_t> seen;
  pb::remap_file_path_entry entry;
  while (reader->next(entry)) {
    const bool old_ghost = !entry.has_remap_type() && (entry.remap_id() & kGhostBit) != 0;
    const uint32_t id = old_ghost ? entry.remap_id() & ~kGhostBit : entry.remap_id();
    const pb::remap_type type = old_ghost ? pb::GHOST : entry.remap_type();
    if (!seen.insert(entry.orig_id()).second)
      reader->corrupt(fmt::format("two things stand in for file {}", entry.orig_id()));
    if (id == 0 || id > INT_MAX || (type == pb::LINKED && id == entry.orig_id()))
      reader->corrupt(fmt::format("nothing stands in for file {}", entry.orig_id()));
    remaps_.push_back({entry.orig_id(), type, id});
    if (type != pb::GHOST || ghosts_.contains(id)) continue;
    std::optional<StreamReader> image = StreamReader::open(store, ImageKind::GHOST_FILE, id);
    if (!image)
      throw Error(Reason::IMAGE_MISSING, "an image file is missing")
          .object(store.shown_name(ImageKind::GHOST_FILE, id));
    ghosts_[id].inode = read_ghost(*image);
  }
}

void RestoredRemaps::read_extension(const pb::extension_head& head) {
  for (const pb::extension_ghost& entry : head.ghosts()) {
    const auto at = ghosts_.find(entry.id());
    if (at == ghosts_.end())
      throw Error(Reason::IMAGE_CORRUPT, "the extension speaks of a deleted file that is not there")
          .object(fmt::format("deleted file {}", entry.id()));
    decode_extension(entry, at->second.inode);
  }
}

void RestoredRemaps::set_name(const Remap& remap, const std::string& path, uint32_t flags,
                              const std::string& link_path) {
  std::map<std::string, Place>& places = remap.type == pb::GHOST ? ghosts_.at(remap.stand_in).places
                                         : remap.type == pb::LINKED
                                             ? links_[remap.stand_in].places
                                             : dead_processes_[static_cast<pid_t>(remap.stand_in)];
  if (remap.type == pb::LINKED) links_[remap.stand_in].path = link_path;
  if (last_name(path).empty())
    throw Error(Reason::IMAGE_CORRUPT, "a deleted file has no name").object(fmt::format("file {}", remap.file_id));
  Place& place = places[path];
  place.path = path;
  place.users.push_back({remap.file_id, flags});
  places_by_file_[remap.file_id] = &place;
}

// Names --------------------------------------------------------------------------------------------------

// That directory: made if it is not there, the one above if something else has taken its name.
Fd RestoredRemaps::directory_at(const std::string& path) {
  Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (fd) return fd;
  if (errno == ENOTDIR) return directory_at(directory_of(path));
  if (errno != ENOENT) throw failed("cannot open the directory of a deleted file", path);
  Name name = name_at(path);
  // A dangling link of that name is somebody else's.
  if (::mkdirat(name.directory.get(), name.name.c_str(), 0700) < 0 && errno == EEXIST) return std::move(name.directory);
  fd = Fd(::openat(name.directory.get(), name.name.c_str(), kPathOnly | O_DIRECTORY));
  if (!fd) throw failed("cannot make the directory of a deleted file", path);
  name.is_directory = true;
  note(std::move(name));
  return fd;
}

RestoredRemaps::Name RestoredRemaps::name_at(const std::string& path) {
  Name name;
  name.directory = directory_at(directory_of(path));
  name.name = last_name(path);
  name.shown = path;
  return name;
}

// It exists now.
void RestoredRemaps::note(Name name) {
  struct stat st;
  if (::fstatat(name.directory.get(), name.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) < 0)
    throw failed("cannot look at a deleted file that was made again", name.shown);
  name.dev = st.st_dev;
  name.ino = st.st_ino;
  names_.push_back(std::move(name));
}

void RestoredRemaps::remove_names(size_t from) noexcept {
  while (names_.size() > from) {
    const Name& name = names_.back();
    struct stat st;
    // Whatever somebody else has put there is not ours to remove.
    if (::fstatat(name.directory.get(), name.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == name.dev &&
        st.st_ino == name.ino &&
        ::unlinkat(name.directory.get(), name.name.c_str(), name.is_directory ? AT_REMOVEDIR : 0) < 0)
      log_warning("the temporary name {} in the directory of {} stays behind: {}", name.name, name.shown,
                  errno_text(errno));
    names_.pop_back();
  }
}

// The name leads to the file: opens what can be opened by a name only.
void RestoredRemaps::open_place(Place& place, const Name& name) {
  place.fd = Fd(::openat(name.directory.get(), name.name.c_str(), kPathOnly));
  struct stat st;
  if (!place.fd || ::fstat(place.fd.get(), &st) < 0)
    throw failed("cannot open a deleted file that was made again", place.path);
  for (const User& user : place.users) {
    // Only files that open at once, without a second end or a driver.
    const bool opens = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || (user.flags & O_PATH) != 0;
    if ((user.flags & O_NOFOLLOW) == 0 || !opens) continue;
    Fd fd(::openat(name.directory.get(), name.name.c_str(), reopen_flags(user.flags)));
    if (!fd) throw failed("cannot open a deleted file that was made again", place.path);
    descriptions_[user.file_id] = std::move(fd);
  }
}

// Gives the file each of its names, opens it by each, and takes them away. The file is `fd`, or has the path `source`.
void RestoredRemaps::give_names(int fd, const char* source, std::span<Place* const> places) {
  const size_t before = names_.size();
  for (Place* place : places) {
    Name name = name_at(place->path);
    const auto link = [&] {
      const bool by_path = source != nullptr;
      const int result = ::linkat(by_path ? AT_FDCWD : fd, by_path ? source : "", name.directory.get(),
                                  name.name.c_str(), by_path ? 0 : AT_EMPTY_PATH);
      return result < 0 ? errno : 0;
    };
    int error = link();
    for (int n = 1; error == EEXIST; ++n) {
      name.name = spare_name(last_name(place->path), n);
      error = link();
    }
    // The same directory by another mount: the first name has to do.
    if (error == EXDEV && place != places.front()) {
      place->fd = Fd(::fcntl(places.front()->fd.get(), F_DUPFD_CLOEXEC, 3));
      continue;
    }
    errno = error;
    if (error != 0) throw failed("cannot give a deleted file its name for a moment", place->path);
    note(std::move(name));
    open_place(*place, names_.back());
  }
  remove_names(before);
}

// Inodes -------------------------------------------------------------------------------------------------

void RestoredRemaps::make_directories() {
  std::vector<std::pair<Place*, Ghost*>> sorted;
  for (auto& [id, ghost] : ghosts_)
    if (ghost.inode.is_directory())
      for (auto& [path, place] : ghost.places) sorted.emplace_back(&place, &ghost);
  std::ranges::sort(sorted, path_less, [](const auto& entry) -> std::string_view { return entry.first->path; });
  for (size_t i = 0; i < sorted.size(); ++i) {
    auto& [place, ghost] = sorted[i];
    if (Place& first = ghost->places.begin()->second; &first != place && first.fd) {
      place->fd = Fd(::fcntl(first.fd.get(), F_DUPFD_CLOEXEC, 3));  // the same directory by another mount
      continue;
    }
    const size_t before = names_.size();
    Name name = name_at(place->path);
    for (int n = 1; !make_inode(ghost->inode, name.directory.get(), name.name, place->path); ++n)
      name.name = spare_name(last_name(place->path), n);
    name.is_directory = true;
    note(std::move(name));
    open_place(*place, names_.back());
    // Another was made under the name when this was gone: what else was in there is looked for in the last.
    if (i + 1 < sorted.size() && sorted[i + 1].first->path == place->path) remove_names(before);
  }
}

// An empty file without a name; empty where the file system cannot do that.
Fd RestoredRemaps::make_unnamed(const Ghost& ghost, const Place& place) {
  const Fd directory = directory_at(directory_of(place.path));
  int flags = O_RDWR | O_CLOEXEC;
  if (was_unnamed(ghost.inode, place.path))
    for (const User& user : place.users)
      if ((user.flags & kTmpfile) != 0) flags = reopen_flags(user.flags) & ~O_NOFOLLOW;
  Fd fd(::openat(directory.get(), ".", flags | O_TMPFILE, 0600));
  if (!fd && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
    throw failed("cannot make a deleted file again", place.path);
  return fd;
}

// An empty file with a name that is noted.
Fd RestoredRemaps::make_spare(const std::string& path) {
  Name name = name_at(path);
  Fd fd;
  for (int n = 1; !fd; ++n) {
    name.name = spare_name(last_name(path), n);
    fd = Fd(::openat(name.directory.get(), name.name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd && errno != EEXIST) throw failed("cannot make a deleted file again", path);
  }
  note(std::move(name));
  return fd;
}

void RestoredRemaps::make_file(const ImageStore& store, uint32_t id, Ghost& ghost) {
  Place& first = ghost.places.begin()->second;
  const size_t before = names_.size();
  Fd made = make_unnamed(ghost, first);
  const bool can_be_unnamed = static_cast<bool>(made);
  if (!made) made = make_spare(first.path);
  {
    // Not by a description that a task gets, which may append. Closed before a program is run from it.
    const Fd writer = reopen(made.get(), O_WRONLY | O_CLOEXEC);
    if (!writer) throw failed("cannot open a deleted file that was made again", first.path);
    std::optional<StreamReader> image = StreamReader::open(store, ImageKind::GHOST_FILE, id);
    if (!image)
      throw Error(Reason::IMAGE_MISSING, "an image file is gone").object(store.shown_name(ImageKind::GHOST_FILE, id));
    fill_ghost(*image, writer.get(), first.path);
  }
  set_attributes(ghost.inode, made.get(), first.path);
  std::vector<Place*> named;
  uint32_t maker = 0;
  for (auto& [path, place] : ghost.places) {
    if (!can_be_unnamed || !was_unnamed(ghost.inode, path)) {
      named.push_back(&place);
      continue;
    }
    place.fd = reopen(made.get(), O_PATH | O_CLOEXEC);
    if (!place.fd) throw failed("cannot open a deleted file that was made again", path);
    for (const User& user : place.users)
      if ((user.flags & kTmpfile) != 0) maker = user.file_id;
  }
  give_names(made.get(), nullptr, named);
  remove_names(before);
  if (maker != 0) descriptions_[maker] = std::move(made);
}

void RestoredRemaps::make_node(Ghost& ghost) {
  const size_t before = names_.size();
  const std::string& path = ghost.places.begin()->first;
  Name name = name_at(path);
  for (int n = 1; !make_inode(ghost.inode, name.directory.get(), name.name, path); ++n)
    name.name = spare_name(last_name(path), n);
  note(std::move(name));
  const Fd made(::openat(names_.back().directory.get(), names_.back().name.c_str(), kPathOnly));
  if (!made) throw failed("cannot open a deleted file that was made again", path);
  set_attributes(ghost.inode, made.get(), path);
  open_place(ghost.places.begin()->second, names_.back());
  std::vector<Place*> others;
  for (auto at = std::next(ghost.places.begin()); at != ghost.places.end(); ++at) others.push_back(&at->second);
  give_names(made.get(), nullptr, others);
  remove_names(before);
}

// Files of /proc of a process that is dead: opened while a stand-in has its pid.
void RestoredRemaps::open_dead_process(pid_t pid, std::map<std::string, Place>& places) {
  pid_t wanted = pid;
  uapi::clone_args args{};
  args.set_tid = reinterpret_cast<uint64_t>(&wanted);
  args.set_tid_size = 1;
  const pid_t parent = ::getpid();
  const long child = clone3(args);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (::getppid() == parent) ::pause();
    ::_exit(0);
  }
  if (child == -EEXIST)
    throw Error(Reason::PID_TAKEN, "the pid of a dead process, whose directory in /proc is in use, belongs to another")
        .object(fmt::format("pid {}", pid));
  fail_if(child, "cannot make a process that stands in for a dead one", Reason::RESTORE_CALL_FAILED);
  const ScopeGuard end([&] {
    ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
    }
  });
  for (auto& [path, place] : places) {
    place.fd = Fd(::open(path.c_str(), kPathOnly));
    if (!place.fd) throw failed("cannot open a file of a process that stands in for a dead one", path);
    for (const User& user : place.users) {
      Fd fd(::open(path.c_str(), reopen_flags(user.flags)));
      if (!fd) throw failed("cannot open a file of a process that stands in for a dead one", path);
      descriptions_[user.file_id] = std::move(fd);
    }
  }
}

void RestoredRemaps::create(const ImageStore& store) {
  for (auto& [pid, places] : dead_processes_) open_dead_process(pid, places);
  make_directories();
  for (auto& [id, ghost] : ghosts_) {
    if (ghost.places.empty() || ghost.inode.is_directory()) continue;
    if (ghost.inode.is_file()) {
      make_file(store, id, ghost);
    } else {
      make_node(ghost);
    }
  }
  for (auto& [id, link] : links_) {
    std::vector<Place*> places;
    for (auto& [path, place] : link.places) places.push_back(&place);
    give_names(-1, link.path.c_str(), places);
  }
  for (auto& [id, ghost] : ghosts_)
    if (ghost.inode.is_directory())
      for (auto& [path, place] : ghost.places) set_attributes(ghost.inode, place.fd.get(), path);
  remove_names(0);
}

void RestoredRemaps::finish() const {
  for (const auto& [id, ghost] : ghosts_)
    if (!ghost.places.empty())
      set_times(ghost.inode, ghost.places.begin()->second.fd.get(), ghost.places.begin()->first);
}

// Use ----------------------------------------------------------------------------------------------------

Fd RestoredRemaps::open(uint32_t file_id, int flags) const {
  const Place& place = *places_by_file_.at(file_id);
  // A symbolic link can be had in no other way than the one in which it is held; "do not follow" would stop at the link
  // of /proc.
  return reopen(place.fd.get(), (flags & ~O_NOFOLLOW) | O_CLOEXEC);
}

Fd RestoredRemaps::take(uint32_t file_id) {
  const auto own = descriptions_.find(file_id);
  return own == descriptions_.end() ? Fd() : std::move(own->second);
}

void RestoredRemaps::remove_links() {
  for (const auto& [id, link] : links_)
    if (::unlink(link.path.c_str()) < 0)
      log_warning("the temporary link {} stays behind: {}", link.path, errno_text(errno));
}

}  // namespace stasis

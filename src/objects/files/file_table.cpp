#include "objects/files/file_table.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>

#include "base/error.h"
#include "base/log.h"
#include "base/workers.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {
namespace {

// Duplicates that are open at a time: those of one piece are looked at while those before are dumped.
constexpr size_t kPiece = 128;

// The text is what the task would see: the links of a duplicate are those of the original, in our own root.
void read_link(int links_fd, FileView& view) {
  char name[16], text[PATH_MAX];
  *fmt::format_to_n(name, sizeof name - 1, "{}", view.fd).out = '\0';
  const ssize_t length = ::readlinkat(links_fd, name, text, sizeof text);
  if (length < 0 || static_cast<size_t>(length) == sizeof text) {
    const int error = length < 0 ? errno : ENAMETOOLONG;
    throw Error(Reason::FILE_UNREACHABLE, "the path of an open file cannot be read")
        .object(fmt::format("fd {} of {}", view.number, view.owner))
        .error_number(error)
        .remedy("shorten the path, which may have 4095 bytes at most");
  }
  view.link.assign(text, static_cast<size_t>(length));
}

Fd duplicate(int pidfd, int number, std::string_view owner) {
  const int fd = pidfd_getfd(pidfd, number);
  if (fd >= 0) return Fd(fd);
  const bool gone = fd == -EBADF || fd == -ESRCH;
  throw Error(gone ? Reason::TASK_VANISHED : Reason::SYSTEM, "cannot get a duplicate of a descriptor")
      .object(fmt::format("fd {} of {}", number, owner))
      .error_number(-fd);
}

int compare_files(pid_t pid1, int fd1, pid_t pid2, int fd2, std::string_view owner) {
  const int order = kcmp(pid1, pid2, uapi::kcmp_file, static_cast<uint64_t>(fd1), static_cast<uint64_t>(fd2));
  if (order >= 0) return order;
  throw Error(order == -ENOSYS ? Reason::FEATURE_MISSING : Reason::SYSTEM, "cannot compare open files by kcmp")
      .object(fmt::format("fd {} of {}", fd1, owner))
      .error_number(-order)
      .remedy(order == -ENOSYS ? "use a kernel built with CONFIG_KCMP" : "");
}

[[noreturn]] void refuse_locks(std::span<const FileLock> locks, const FileView& view) {
  throw Error(
      Reason::FILE_LOCKS_HELD,
      fmt::format("the descriptor holds {}{}", describe(saved_lock(locks.front(), view.pid, view.number, view.who())),
                  locks.size() > 1 ? fmt::format(" and {} more", locks.size() - 1) : std::string()))
      .object(view.who())
      .remedy("add --file-locks to the dump and to the restore, or let the task release its locks");
}

// "[io_uring]" of "anon_inode:[io_uring]".
std::string_view bracketed(std::string_view link) {
  const size_t open = link.find('['), close = link.rfind(']');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return link;
  return link.substr(open + 1, close - open - 1);
}

}  // namespace

std::string describe_unknown_file(const FileView& view) {
  const std::string_view link = view.link;
  if (link.starts_with("anon_inode:")) {
    if (link == "anon_inode:[perf_event]") return "a performance event, whose counts nobody can set,";
    if (link == "anon_inode:[userfaultfd]") return "a userfaultfd, behind which are the mappings it serves,";
    const bool named = link.find('[') != std::string_view::npos;
    return fmt::format("an anonymous file of kind {}", named ? bracketed(link) : link.substr(11));
  }
  if (link.starts_with("/secretmem")) return "memory of memfd_secret(), which nobody else may read,";
  if (is_message_queue(view)) return "a POSIX message queue";
  switch (view.st.st_mode & S_IFMT) {
    case S_IFSOCK:
      return "a socket";
    case S_IFBLK:
      return fmt::format("a block device ({}:{})", major(view.st.st_rdev), minor(view.st.st_rdev));
    case S_IFCHR:
      return fmt::format("a character device ({}:{})", major(view.st.st_rdev), minor(view.st.st_rdev));
    default:
      break;
  }
  if (link.starts_with('/')) return "a file that no path leads to";
  return fmt::format("a file of kind {}", link.substr(0, link.find(':')));
}

FileTable::FileTable(const DumpOptions& options)
    : DumpFiles(options), own_links_(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  check(own_links_.get(), "cannot open /proc/self/fd");
  for (const FileKind& kind : file_kinds()) kind.make_shared(shared_.emplace_back());
}

size_t FileTable::KeyHash::operator()(const Key& key) const noexcept {
  uint64_t h = key.ino * 0x9e3779b97f4a7c15u;
  h ^= key.dev + (h >> 29);
  h *= 0xbf58476d1ce4e5b9u;
  return static_cast<size_t>(h ^ (h >> 32) ^ key.flags);
}

void FileTable::expect(size_t descriptors) {
  locks_.expect(descriptors);
}

void FileTable::add_process(uint32_t files_id, pid_t pid, int pidfd, std::string_view comm,
                            std::span<const DescriptorNumber> descriptors) {
  const std::string owner = fmt::format("pid {} ({})", pid, comm);
  Table& table = tables_.emplace_back(Table{.files_id = files_id, .pid = pid, .slots = {}});
  table.slots.reserve(descriptors.size());
  // With a second processor two threads take turns: one looks at the next piece while the other dumps.
  const bool share = descriptors.size() >= 4 * kPiece && usable_processors() > 1;
  std::array<std::vector<Looked>, 2> pieces;
  const auto look = [&](size_t first) {
    std::vector<Looked>& piece = pieces[first / kPiece % 2];
    piece.clear();
    for (const DescriptorNumber& d : descriptors.subspan(first, std::min(kPiece, descriptors.size() - first)))
      look_at(duplicate(pidfd, d.number, owner), d.number, pid, owner, share, piece.emplace_back());
  };
  Workers helper(share ? 1 : 0);  // the last: it is done before anything goes that it uses
  if (!descriptors.empty()) look(0);
  for (size_t first = 0; first < descriptors.size(); first += kPiece) {
    const size_t next = first + kPiece;
    if (next < descriptors.size()) helper.post([&, next] { look(next); });
    for (size_t i = 0; i < pieces[first / kPiece % 2].size(); ++i) {
      FileView& view = pieces[first / kPiece % 2][i].view;
      const std::vector<FileLock> locks = locks_.held(view.fd, view.st, pid, view.number);
      if (!locks.empty() && !options().file_locks) refuse_locks(locks, view);
      view.leased = std::ranges::find(locks, FileLock::Kind::lease, &FileLock::kind) != locks.end();
      const File& file = files_[find_or_dump(view)];
      for (const FileLock& lock : locks) dumped_locks_.add(lock, files_id, file.id, view, *this);
      table.slots.push_back({file.id, file.kind->type, view.number, descriptors[first + i].cloexec});
    }
    helper.finish();
  }
}

// What is asked of every descriptor; the link is asked for early where another thread has the time. Called by several
// threads.
void FileTable::look_at(Fd fd, int number, pid_t pid, std::string_view owner, bool early, Looked& out) const {
  out.fd = std::move(fd);
  FileView& view = out.view;
  view.pid = pid;
  view.owner = owner;
  view.fd = out.fd.get();
  view.number = number;
  const int flags = ::fcntl(view.fd, F_GETFL);
  if (flags < 0 || ::fstat(view.fd, &view.st) < 0)
    throw Error(Reason::SYSTEM, "cannot look at an open file")
        .object(fmt::format("fd {} of {}", view.number, owner))
        .error_number(errno);
  view.flags = static_cast<uint32_t>(flags);
  if (early) read_link(own_links_.get(), view);
}

size_t FileTable::find_or_dump(FileView& view) {
  Candidates& candidates = candidates_[Key{view.st.st_dev, view.st.st_ino, view.flags}];
  size_t low = 0;
  for (size_t high = candidates.size(); low < high;) {
    const size_t middle = (low + high) / 2;
    const Holder& other = candidates[middle];
    const int order = compare_files(view.pid, view.number, other.pid, other.number, view.owner);
    if (order == 0) return other.file;
    if (order == 1) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const size_t index = dump(view);
  candidates.insert(candidates.begin() + static_cast<ptrdiff_t>(low), Holder{view.pid, view.number, index});
  return index;
}

size_t FileTable::dump(FileView& view) {
  if (view.link.empty()) read_link(own_links_.get(), view);
  const std::vector<FileKind>& kinds = file_kinds();
  const auto kind = std::ranges::find_if(kinds, [&](const FileKind& k) { return k.match(view); });
  if (kind == kinds.end())
    throw Error(Reason::UNSUPPORTED_FILE,
                fmt::format("{} cannot be saved by this version", describe_unknown_file(view)))
        .object(view.who())
        .remedy("let the task close it before the dump");
  view.id = next_id();
  // A kind may add path files while it is asked; the new entry goes in when it is complete.
  File file{.kind = &*kind, .id = view.id, .state = {}};
  kind->make_state(file.state);
  kind->dump(view, *this, shared_[static_cast<size_t>(kind - kinds.begin())], file.state);
  log_debug("fd {} of {}: file {}, {}, {}", view.number, view.owner, view.id, kind->name, view.link);
  const bool file_made_by_task = kind->made_by_task;
  files_.push_back(std::move(file));
  if (file_made_by_task) task_made_.try_emplace({view.st.st_dev, view.st.st_ino}, files_.size() - 1);
  if (view.st.st_nlink == 0) deleted_.try_emplace({view.st.st_dev, view.st.st_ino}, view.id);
  return files_.size() - 1;
}

uint32_t FileTable::file_at(pid_t pid, int number) {
  const auto table = std::ranges::find(tables_, pid, &Table::pid);
  if (table == tables_.end()) return 0;
  const auto at = std::ranges::lower_bound(table->slots, number, {}, &Slot::number);
  return at == table->slots.end() || at->number != number ? 0 : at->id;
}

uint32_t FileTable::mapping_of_task_made(const Mapping& m, std::string_view owner) const {
  const auto refused = [&](std::string_view why, std::string_view remedy) {
    return Error(Reason::UNSUPPORTED_MAPPING, std::string(why))
        .object(fmt::format("mapping {:x}-{:x} {} of {}", m.start, m.end, m.name, owner))
        .remedy(std::string(remedy));
  };
  const auto at = task_made_.find({makedev(m.dev_major, m.dev_minor), m.inode});
  if (at == task_made_.end())
    throw refused("no descriptor of the tree leads to what it is a mapping of",
                  "let the program keep the descriptor, or unmap it before the dump");
  const File& file = files_[at->second];
  if (!m.shared || !file.kind->maps_at(m.offset))
    throw refused("it is a part of a mapping, or of memory of its file that this version does not save",
                  "let the program map the file as a whole, and leave the protection as it is");
  return file.id;
}

uint32_t FileTable::add_mapped_file(FileView& view) {
  if (::fstat(view.fd, &view.st) < 0)
    throw Error(Reason::SYSTEM, "cannot look at a mapped file").object(std::string(view.owner)).error_number(errno);
  view.number = -1;
  const auto [at, fresh] = mapped_ids_.try_emplace({view.st.st_dev, view.st.st_ino, view.flags}, uint32_t{0});
  if (fresh) at->second = files_[dump(view)].id;
  return at->second;
}

uint32_t FileTable::add_path_file(const PathFile& file) {
  dumped_locks_.check_lease(file.st.st_dev, file.st.st_ino);
  // An id is taken even if the file is refused: the dump ends then.
  const auto add = [&] {
    path_files_.push_back(describe_path_file(file, next_id(), *this));
    return path_files_.back().id;
  };
  if (file.owner != FileOwner{}) return add();
  const auto [at, fresh] =
      path_ids_.try_emplace(std::tuple(file.st.st_dev, file.st.st_ino, file.flags, file.link), uint32_t{0});
  if (fresh) at->second = add();
  return at->second;
}

std::optional<WatchedFile> FileTable::watched_file(const Watch& watch) {
  const uapi::kcmp_epoll_slot slot{.efd = static_cast<uint32_t>(watch.poll_number),
                                   .tfd = static_cast<uint32_t>(watch.number),
                                   .toff = watch.offset};
  const auto table = std::ranges::find(tables_, watch.pid, &Table::pid);
  if (table != tables_.end()) {
    const auto at = std::ranges::lower_bound(table->slots, watch.number, {}, &Slot::number);
    if (at != table->slots.end() && at->number == watch.number &&
        kcmp_epoll(watch.pid, watch.number, watch.pid, slot) == 0)
      return WatchedFile{at->id, at->type, true};
  }
  for (const auto& [key, candidates] : candidates_) {
    if (key.ino != watch.inode) continue;
    for (const Holder& holder : candidates)
      if (kcmp_epoll(holder.pid, holder.number, watch.pid, slot) == 0) {
        const File& file = files_[holder.file];
        return WatchedFile{file.id, file.kind->type, false};
      }
  }
  return std::nullopt;
}

uint32_t FileTable::deleted_file(dev_t dev, ino_t ino) {
  const auto at = deleted_.find({dev, ino});
  return at == deleted_.end() ? 0 : at->second;
}

std::span<const FileLoss> FileTable::conclude(ImageStore& store) {
  dumped_locks_.check_leases([&](dev_t dev, ino_t ino) {
    const auto at = path_ids_.lower_bound({dev, ino, 0, {}});
    return at != path_ids_.end() && std::get<0>(at->first) == dev && std::get<1>(at->first) == ino;
  });
  const std::vector<FileKind>& kinds = file_kinds();
  for (size_t i = 0; i < kinds.size(); ++i)
    if (kinds[i].conclude) kinds[i].conclude(*this, shared_[i]);
  // Nothing is written before all is accepted.
  remaps.copy_contents(store);
  return losses;
}

void FileTable::encode_extension(pb::extension_head& head) const {
  remaps.encode_extension(head);
  for (const File& file : files_) {
    if (file.kind->encode_extension == nullptr) continue;
    pb::extension_file entry;
    file.kind->encode_extension(file.state, entry);
    if (entry.ByteSizeLong() == 0) continue;
    entry.set_id(file.id);
    *head.add_files() = std::move(entry);
  }
}

void FileTable::encode(ImageStore& store) {
  ImageWriter& files = store.writer(ImageKind::FILES);
  for (const RegularFile::State& state : path_files_) {
    pb::file_entry entry;
    RegularFile::encode(state, entry);
    files.write(entry);
  }
  for (const File& file : files_) {
    pb::file_entry entry;
    file.kind->encode(file.state, entry);
    files.write(entry);
  }
  remaps.encode(store, files);
  for (const Table& table : tables_) {
    ImageWriter& writer = store.writer(ImageKind::FDINFO, table.files_id);
    for (const Slot& slot : table.slots) {
      pb::fdinfo_entry entry;
      entry.set_id(slot.id);
      entry.set_flags(slot.cloexec ? FD_CLOEXEC : 0);
      entry.set_type(slot.type);
      entry.set_fd(static_cast<uint32_t>(slot.number));
      writer.write(entry);
    }
  }
  dumped_locks_.encode(store);
  const std::vector<FileKind>& kinds = file_kinds();
  for (size_t i = 0; i < kinds.size(); ++i)
    if (kinds[i].write_images) kinds[i].write_images(shared_[i], store);
}

}  // namespace stasis

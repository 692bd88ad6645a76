#include "objects/files/remap_table.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "objects/files/regular.h"

namespace stasis {
namespace {

constexpr std::string_view kDeletedMark = " (deleted)";
constexpr uint64_t kBlockBytes = 512;  // of st_blocks

// Network file systems rename a deleted file that is open, and remove it with the last close. Its name leads to it, but
// not for long.
bool renamed_until_closed(std::string_view link, int fd) {
  constexpr uint32_t kFuseMagic = 0x65735546;
  const std::string_view name = link.substr(link.rfind('/') + 1);
  const bool nfs = name.starts_with(".nfs"), fuse = name.starts_with(".fuse_hidden");
  struct statfs fs;
  if ((!nfs && !fuse) || ::fstatfs(fd, &fs) < 0) return false;
  return static_cast<uint32_t>(fs.f_type) == (nfs ? uint32_t{NFS_SUPER_MAGIC} : kFuseMagic);
}

std::optional<uint64_t> mount_of(int directory, const char* path, int flags) {
  struct statx info {};
  if (::statx(directory, path, flags, STATX_MNT_ID, &info) < 0 || (info.stx_mask & STATX_MNT_ID) == 0)
    return std::nullopt;
  return info.stx_mnt_id;
}

// The file is on the mount that its path leads to, as far as the path still leads.
void check_mount(const NamedFile& file, const std::string& path) {
  const std::optional<uint64_t> own = mount_of(file.fd, "", AT_EMPTY_PATH);
  for (std::string above = directory_of(path);; above = directory_of(above)) {
    const std::optional<uint64_t> mount = mount_of(AT_FDCWD, above.c_str(), AT_NO_AUTOMOUNT);
    if (!mount && above != "/") continue;
    if (!own || !mount || own == mount) return;
    throw Error(Reason::FILE_UNREACHABLE, "the file was deleted, and is on another mount than its path leads to now")
        .object(file.who)
        .remedy("mount its file system there again, or unmount what covers it; or let the task close the file");
  }
}

// Of "/proc/42/..." on the file system of /proc. Throws UNSUPPORTED_FILE for what a process that does nothing lacks.
std::optional<pid_t> dead_process_of(std::string_view path, const NamedFile& file) {
  constexpr std::string_view kProc = "/proc/";
  struct statfs fs;
  pid_t pid = 0;
  if (!path.starts_with(kProc)) return std::nullopt;
  path.remove_prefix(kProc.size());
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), pid);
  if (error != std::errc() || ::fstatfs(file.fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC) return std::nullopt;
  path.remove_prefix(static_cast<size_t>(end - path.data()));
  for (const std::string_view own : {"/task/", "/fd/", "/fdinfo/", "/map_files/", "/net/"})
    if (path.starts_with(own))
      throw Error(Reason::UNSUPPORTED_FILE,
                  "the process is dead that this file belonged to, and no other has one like it")
          .object(file.who)
          .remedy("let the task close it before the dump");
  return pid;
}

Fd open_content(int fd, const std::string& who) {
  // No new access time; never wait for the holder of a lease.
  constexpr int kQuiet = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  Fd out = reopen(fd, kQuiet | O_NOATIME);
  if (!out && errno == EPERM) out = reopen(fd, kQuiet);
  if (!out)
    throw Error(Reason::SYSTEM, "cannot open a deleted file to read it")
        .object(who)
        .error_number(errno)
        .remedy(errno == EMFILE ? "raise the hard limit of open files (ulimit -Hn)" : "");
  return out;
}

}  // namespace

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool leads_to_file(const std::string& link, int fd, const struct stat& st) {
  if (st.st_nlink == 0) return false;
  struct stat found;
  // The text is final: a name in it is not a symbolic link, or the link itself was opened.
  return ::fstatat(AT_FDCWD, link.c_str(), &found, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0 &&
         found.st_dev == st.st_dev && found.st_ino == st.st_ino && !renamed_until_closed(link, fd);
}

RemapTable::~RemapTable() {
  for (const Link& link : links_)
    if (::unlink(link.path.c_str()) < 0 && errno != ENOENT)
      log_warning("the temporary link {} stays behind: {}", link.path, errno_text(errno));
}

std::string RemapTable::path_of(const NamedFile& file) {
  const bool marked = file.link.ends_with(kDeletedMark);
  std::string path = file.link.substr(0, file.link.size() - (marked ? kDeletedMark.size() : 0));
  if (file.link.starts_with('/')) check_mount(file, path);
  // Of these the directory alone is marked.
  if (const std::optional<pid_t> pid = dead_process_of(path, file)) {
    add(file.id, pb::PROCFS, static_cast<uint32_t>(*pid));
    return path;
  }
  const bool renamed = !marked && renamed_until_closed(file.link, file.fd);
  if (!file.link.starts_with('/') || (!marked && !renamed))
    throw Error(Reason::FILE_UNREACHABLE,
                fmt::format("the path {} does not lead to the open file any more: it is mounted over, or was changed "
                            "from another machine",
                            file.link))
        .object(file.who)
        .remedy("unmount what covers the file, or let the task open it again");
  // A directory has one name only, whatever its file system counts.
  const bool ghost = file.st.st_nlink == 0 || S_ISDIR(file.st.st_mode) || renamed;
  add(file.id, ghost ? pb::GHOST : pb::LINKED, ghost ? ghost_of(file) : link_of(file, path));
  return path;
}

void RemapTable::add(uint32_t file_id, pb::remap_type type, uint32_t stand_in) {
  pb::remap_file_path_entry& entry = remaps_.emplace_back();
  entry.set_orig_id(file_id);
  entry.set_remap_id(stand_in);
  entry.set_remap_type(type);
  log_debug("file {}: {} {} stands in", file_id, pb::remap_type_Name(type), stand_in);
}

void RemapTable::check_limit(const NamedFile& file) const {
  const uint64_t bytes = static_cast<uint64_t>(file.st.st_blocks) * kBlockBytes;
  if (!options_.ghost_limit_bytes || bytes <= *options_.ghost_limit_bytes) return;
  throw Error(Reason::FILE_UNREACHABLE,
              fmt::format("the file was deleted and has {} bytes on the disk, more than the limit of {}", bytes,
                          *options_.ghost_limit_bytes))
      .object(file.who)
      .remedy(fmt::format("give a larger --ghost-limit ({}), or none", bytes));
}

uint32_t RemapTable::ghost_of(const NamedFile& file) {
  const auto [at, fresh] = ghost_ids_.try_emplace({file.st.st_dev, file.st.st_ino}, 0u);
  if (!fresh) return at->second;
  if (S_ISREG(file.st.st_mode)) check_limit(file);
  Ghost ghost{.inode = look_at_ghost(file.fd, file.st, file.who), .content = Fd(), .who = file.who};
  if (ghost.inode.is_file()) ghost.content = open_content(file.fd, file.who);
  ghosts_.push_back(std::move(ghost));
  return at->second = static_cast<uint32_t>(ghosts_.size());
}

std::string RemapTable::make_link(const NamedFile& file, const std::string& path, uint32_t id) const {
  const std::string directory = directory_of(path);
  const std::string first = fmt::format("{}{}link_remap.{}", directory, directory == "/" ? "" : "/", id);
  std::string name = first;
  // Links of earlier dumps may be there, which wait for their restore.
  for (int n = 1; ::linkat(file.fd, "", AT_FDCWD, name.c_str(), AT_EMPTY_PATH) < 0; ++n) {
    if (errno != EEXIST)
      throw Error(Reason::FILE_UNREACHABLE, "cannot make a temporary hard link beside the name that is gone")
          .object(file.who)
          .error_number(errno)
          .remedy(fmt::format("make {} a directory that can be written to, or let the task close the file", directory));
    name = fmt::format("{}.{}", first, n);
  }
  return name;
}

uint32_t RemapTable::link_of(const NamedFile& file, const std::string& path) {
  if (!options_.link_remap)
    throw Error(Reason::FILE_UNREACHABLE,
                fmt::format("its name is gone, but the file has {} other{}: to find it, a temporary name is needed",
                            file.st.st_nlink, file.st.st_nlink == 1 ? "" : "s"))
        .object(file.who)
        .remedy("add --link-remap, or give the file its name back");
  const auto [at, fresh] = link_ids_.try_emplace({file.st.st_dev, file.st.st_ino}, 0u);
  if (!fresh) return at->second;
  const uint32_t id = next_file_id_++;
  links_.push_back({id, make_link(file, path, id), file.st.st_mode, static_cast<uint64_t>(file.st.st_size)});
  return at->second = id;
}

void RemapTable::copy_contents(ImageStore& store) {
  for (size_t i = 0; i < ghosts_.size(); ++i) {
    Ghost& ghost = ghosts_[i];
    StreamWriter out(store, ImageKind::GHOST_FILE, i + 1);
    write_ghost(ghost.inode, ghost.content.get(), options_.ghost_fiemap, out, ghost.who);
    out.close();
    ghost.content.reset();
  }
}

void RemapTable::encode(ImageStore& store, ImageWriter& files) const {
  for (const Link& link : links_) {
    RegularFile::State state;
    state.id = link.file_id;
    state.path = link.path;
    state.mode = link.mode;
    if (S_ISREG(link.mode)) state.size_bytes = link.size_bytes;
    pb::file_entry entry;
    RegularFile::encode(state, entry);
    files.write(entry);
  }
  ImageWriter& writer = store.writer(ImageKind::REMAP_FPATH);
  for (const pb::remap_file_path_entry& entry : remaps_) writer.write(entry);
}

void RemapTable::encode_extension(pb::extension_head& head) const {
  for (size_t i = 0; i < ghosts_.size(); ++i) {
    pb::extension_ghost entry;
    stasis::encode_extension(ghosts_[i].inode, entry);
    if (entry.ByteSizeLong() == 0) continue;
    entry.set_id(static_cast<uint32_t>(i + 1));
    *head.add_ghosts() = std::move(entry);
  }
}

}  // namespace stasis

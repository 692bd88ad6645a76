#include "objects/files/ghost.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "base/error.h"

namespace stasis {
namespace {

// The format: regular files from here on are stored in chunks, smaller ones as a whole (docs/image-format.md).
constexpr uint64_t kChunkedBytes = 12288;
constexpr uint32_t kMessageQueueMagic = 0x19800202;

Error dump_failed(std::string what_failed, const std::string& who) {
  return Error(Reason::SYSTEM, std::move(what_failed)).object(who).error_number(errno);
}

Error restore_failed(std::string what_failed, const std::string& shown) {
  Error error = Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(shown).error_number(errno);
  if (errno == ENOSPC || errno == EDQUOT) error.default_remedy("free space on the file system where the file was");
  if (errno == EROFS) error.default_remedy("make the file system writable on which the file was");
  return error;
}

std::string own_link(int fd) {
  return fmt::format("/proc/self/fd/{}", fd);
}

// Their files are views of the kernel: nobody can make one.
void refuse_virtual_files(int fd, const std::string& who) {
  constexpr std::array<long, 14> magics = {PROC_SUPER_MAGIC, SYSFS_MAGIC,     CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                           DEBUGFS_MAGIC,    TRACEFS_MAGIC,   SECURITYFS_MAGIC,   DEVPTS_SUPER_MAGIC,
                                           BPF_FS_MAGIC,     HUGETLBFS_MAGIC, kMessageQueueMagic, EFIVARFS_MAGIC,
                                           PSTOREFS_MAGIC,   0x62656570 /* configfs */};
  struct statfs fs;
  if (::fstatfs(fd, &fs) < 0) throw dump_failed("cannot get the file system of a deleted file", who);
  if (std::ranges::find(magics, static_cast<long>(fs.f_type)) == magics.end()) return;
  throw Error(Reason::UNSUPPORTED_FILE,
              fmt::format("it was deleted, and a restore cannot make such a file again (file system {:#x})",
                          static_cast<unsigned long>(fs.f_type)))
      .object(who)
      .remedy("let the task close or leave it before the dump");
}

void refuse_protected_files(int fd, const std::string& who) {
  struct statx info {};
  if (::statx(fd, "", AT_EMPTY_PATH, 0, &info) < 0) throw dump_failed("cannot look at a deleted file", who);
  if ((info.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY)) ==
      0)
    return;
  throw Error(Reason::UNSUPPORTED_FILE,
              "it was deleted, and is immutable, append-only, encrypted or verified by its file system")
      .object(who)
      .remedy("take these attributes from it with chattr through /proc/PID/fd, or let the task close it");
}

std::vector<Xattr> read_xattrs(int fd, const std::string& who) {
  std::vector<Xattr> out;
  const std::string path = own_link(fd);
  std::string names(XATTR_LIST_MAX, '\0');
  const ssize_t length = ::listxattr(path.c_str(), names.data(), names.size());
  if (length < 0 && (errno == EOPNOTSUPP || errno == EPERM)) return out;
  if (length < 0) throw dump_failed("cannot list the extended attributes of a deleted file", who);
  names.resize(static_cast<size_t>(length));
  for (size_t at = 0; at < names.size(); at += out.back().name.size() + 1) {
    Xattr& x = out.emplace_back(names.c_str() + at, std::string(XATTR_SIZE_MAX, '\0'));
    const ssize_t bytes = ::getxattr(path.c_str(), x.name.c_str(), x.value.data(), x.value.size());
    if (bytes < 0)
      throw dump_failed(fmt::format("cannot read the extended attribute {} of a deleted file", x.name), who);
    x.value.resize(static_cast<size_t>(bytes));
  }
  return out;
}

std::string read_target(int fd, const std::string& who) {
  std::string target(PATH_MAX, '\0');
  const ssize_t length = ::readlinkat(fd, "", target.data(), target.size());
  if (length < 0) throw dump_failed("cannot read a deleted symbolic link", who);
  target.resize(static_cast<size_t>(length));
  return target;
}

// Adds a range, which begins not before the end of the last one.
void add_range(std::vector<AddressRange>& ranges, uint64_t start, uint64_t end) {
  if (start >= end) return;
  if (!ranges.empty() && ranges.back().end >= start) {
    ranges.back().end = std::max(ranges.back().end, end);
  } else {
    ranges.push_back({start, end});
  }
}

// False when the file system has no extent map.
bool data_by_extents(int fd, uint64_t size_bytes, std::vector<AddressRange>& out) {
  constexpr uint32_t kExtents = 256;
  std::vector<std::byte> space(sizeof(fiemap) + kExtents * sizeof(fiemap_extent));
  auto& map = *reinterpret_cast<fiemap*>(space.data());
  for (uint64_t from = 0; from < size_bytes;) {
    map = {};
    map.fm_start = from;
    map.fm_length = size_bytes - from;
    map.fm_flags = FIEMAP_FLAG_SYNC;  // what is in memory only has no place yet
    map.fm_extent_count = kExtents;
    if (::ioctl(fd, FS_IOC_FIEMAP, &map) < 0) return false;
    if (map.fm_mapped_extents == 0) break;
    bool last = false;
    for (uint32_t i = 0; i < map.fm_mapped_extents; ++i) {
      const fiemap_extent& e = map.fm_extents[i];
      from = e.fe_logical + e.fe_length;
      last = (e.fe_flags & FIEMAP_EXTENT_LAST) != 0;
      // Reserved, never written: reads as zeros, like a hole.
      if ((e.fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0) continue;
      add_range(out, e.fe_logical, std::min(from, size_bytes));
    }
    if (last) break;
  }
  return true;
}

timespec time_of(const pb::timeval& in) {
  return {static_cast<time_t>(in.tv_sec()), static_cast<long>(in.tv_usec() * 1000)};
}

void encode_time(const timespec& in, pb::timeval& out) {
  out.set_tv_sec(static_cast<uint64_t>(in.tv_sec));
  out.set_tv_usec(static_cast<uint64_t>(in.tv_nsec / 1000));
}

pb::ghost_file_entry encode_head(const GhostInode& inode, bool chunks) {
  pb::ghost_file_entry entry;
  entry.set_uid(inode.uid);
  entry.set_gid(inode.gid);
  entry.set_mode(inode.mode);
  entry.set_dev(static_cast<uint32_t>(major(inode.dev) << 20 | minor(inode.dev)));
  entry.set_ino(inode.ino);
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) entry.set_rdev(static_cast<uint32_t>(inode.rdev));
  encode_time(inode.atime, *entry.mutable_atim());
  encode_time(inode.mtime, *entry.mutable_mtim());
  if (S_ISLNK(inode.mode)) entry.set_symlnk_target(inode.target);
  if (!chunks) return entry;
  entry.set_chunks(true);
  entry.set_size(inode.size_bytes);
  return entry;
}

// Calls `chunk` with the offset of each part of the contents and its length; the reader stands before its bytes.
template <class Chunk>
void walk_contents(StreamReader& reader, const pb::ghost_file_entry& head, Chunk chunk) {
  if (!head.chunks()) {
    chunk(uint64_t{0}, reader.left_bytes());
    return;
  }
  pb::ghost_chunk_entry entry;
  for (uint64_t end = 0; reader.next(entry); end = entry.off() + entry.len()) {
    if (entry.off() < end || entry.len() > head.size() || entry.off() > head.size() - entry.len())
      reader.corrupt("a part of a deleted file overlaps another, or lies beyond its end");
    chunk(entry.off(), entry.len());
  }
}

}  // namespace

// Dump ---------------------------------------------------------------------------------------------------

GhostInode look_at_ghost(int fd, const struct stat& st, const std::string& who) {
  refuse_virtual_files(fd, who);
  refuse_protected_files(fd, who);
  GhostInode inode;
  inode.uid = st.st_uid;
  inode.gid = st.st_gid;
  inode.mode = st.st_mode;
  inode.dev = st.st_dev;
  inode.ino = st.st_ino;
  inode.rdev = st.st_rdev;
  inode.atime = st.st_atim;
  inode.mtime = st.st_mtim;
  inode.size_bytes = inode.is_file() ? static_cast<uint64_t>(st.st_size) : 0;
  // Those of a symbolic link are out of reach: every call would follow it.
  if (S_ISLNK(st.st_mode)) {
    inode.target = read_target(fd, who);
  } else {
    inode.xattrs = read_xattrs(fd, who);
  }
  return inode;
}

std::vector<AddressRange> file_data(int fd, uint64_t size_bytes, bool by_extents, const std::string& who) {
  std::vector<AddressRange> out;
  if (by_extents && data_by_extents(fd, size_bytes, out)) return out;
  const auto size = static_cast<off_t>(size_bytes);
  for (off_t end = 0; end < size;) {
    const off_t start = ::lseek(fd, end, SEEK_DATA);
    if (start < 0 && errno == ENXIO) break;
    end = start < 0 ? -1 : ::lseek(fd, start, SEEK_HOLE);
    if (end < 0) throw dump_failed("cannot find the holes of a deleted file", who);
    end = std::min(end, size);
    add_range(out, static_cast<uint64_t>(start), static_cast<uint64_t>(end));
  }
  return out;
}

void write_ghost(const GhostInode& inode, int content, bool by_extents, StreamWriter& out, const std::string& who) {
  std::vector<AddressRange> data;
  if (inode.is_file()) data = file_data(content, inode.size_bytes, by_extents, who);
  const bool whole = inode.size_bytes == 0 || (data.size() == 1 && data[0] == AddressRange{0, inode.size_bytes});
  const bool chunks = inode.is_file() && (inode.size_bytes >= kChunkedBytes || !whole);
  out.write(encode_head(inode, chunks));
  for (const AddressRange& range : data) {
    if (chunks) {
      pb::ghost_chunk_entry entry;
      entry.set_off(range.start);
      entry.set_len(range.end - range.start);
      out.write(entry);
    }
    out.copy(content, range.start, range.end - range.start, who);
  }
}

void encode_extension(const GhostInode& inode, pb::extension_ghost& out) {
  if (const long ns = inode.atime.tv_nsec % 1000; ns != 0) out.set_atime_ns(static_cast<uint32_t>(ns));
  if (const long ns = inode.mtime.tv_nsec % 1000; ns != 0) out.set_mtime_ns(static_cast<uint32_t>(ns));
  for (const Xattr& x : inode.xattrs) {
    pb::extension_xattr& entry = *out.add_xattrs();
    entry.set_name(x.name);
    entry.set_value(x.value);
  }
}

// Restore ------------------------------------------------------------------------------------------------

GhostInode read_ghost(StreamReader& reader) {
  pb::ghost_file_entry head;
  if (!reader.next(head)) reader.corrupt("the file has no record");
  GhostInode inode;
  inode.uid = head.uid();
  inode.gid = head.gid();
  inode.mode = head.mode();
  inode.dev = head.dev();
  inode.ino = head.ino();
  inode.rdev = head.rdev();
  inode.atime = time_of(head.atim());
  inode.mtime = time_of(head.mtim());
  inode.target = head.symlnk_target();
  constexpr std::array<mode_t, 7> kTypes = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
  if (std::ranges::find(kTypes, inode.mode & S_IFMT) == kTypes.end() || (inode.mode & ~(S_IFMT | 07777)) != 0)
    reader.corrupt(fmt::format("a deleted file has the mode {:#o}", inode.mode));
  if (S_ISLNK(inode.mode) != head.has_symlnk_target() || inode.target.find('\0') != std::string::npos ||
      (S_ISLNK(inode.mode) && inode.target.empty()))
    reader.corrupt("the target of a symbolic link");
  if (head.atim().tv_usec() > 999999 || head.mtim().tv_usec() > 999999) reader.corrupt("impossible times");
  if (head.chunks() && (!head.has_size() || head.size() > INT64_MAX)) reader.corrupt("an impossible size");
  if (!inode.is_file() && reader.left_bytes() != 0) reader.corrupt("only regular files have contents");
  inode.size_bytes = head.chunks() ? head.size() : reader.left_bytes();
  walk_contents(reader, head, [&](uint64_t, uint64_t bytes) { reader.skip(bytes); });
  return inode;
}

void decode_extension(const pb::extension_ghost& in, GhostInode& inode) {
  if (in.atime_ns() > 999 || in.mtime_ns() > 999)
    throw Error(Reason::IMAGE_CORRUPT, "impossible times").object(fmt::format("deleted file {}", in.id()));
  inode.atime.tv_nsec += static_cast<long>(in.atime_ns());
  inode.mtime.tv_nsec += static_cast<long>(in.mtime_ns());
  for (const pb::extension_xattr& x : in.xattrs()) inode.xattrs.push_back({x.name(), x.value()});
}

bool make_inode(const GhostInode& inode, int directory, const std::string& name, const std::string& shown) {
  constexpr mode_t kPrivate = 0700;  // nobody else meets it half made
  const mode_t type = inode.mode & S_IFMT;
  int result = 0;
  switch (type) {
    case S_IFDIR:
      result = ::mkdirat(directory, name.c_str(), kPrivate);
      break;
    case S_IFLNK:
      result = ::symlinkat(inode.target.c_str(), directory, name.c_str());
      break;
    default:
      result = ::mknodat(directory, name.c_str(), type | 0600, static_cast<dev_t>(inode.rdev));
  }
  if (result == 0) return true;
  if (errno == EEXIST) return false;
  throw restore_failed("cannot make a deleted file again", shown);
}

void fill_ghost(StreamReader& reader, int fd, const std::string& shown) {
  pb::ghost_file_entry head;
  if (!reader.next(head)) reader.corrupt("the file has no record");
  uint64_t end = 0;
  walk_contents(reader, head, [&](uint64_t offset, uint64_t bytes) {
    reader.copy(fd, offset, bytes, shown);
    end = offset + bytes;
  });
  // A hole at the end.
  if (head.chunks() && head.size() > end && ::ftruncate(fd, static_cast<off_t>(head.size())) < 0)
    throw restore_failed("cannot set the size of a deleted file", shown);
}

void set_attributes(const GhostInode& inode, int fd, const std::string& shown) {
  if (::fchownat(fd, "", inode.uid, inode.gid, AT_EMPTY_PATH) < 0)
    throw restore_failed(fmt::format("cannot give a deleted file the owner {}:{}", inode.uid, inode.gid), shown);
  if (S_ISLNK(inode.mode)) return;
  const std::string path = own_link(fd);
  // A change of the owner clears bits of the mode. An access list, among the attributes, goes with the mode.
  if (::chmod(path.c_str(), inode.mode & 07777) < 0)
    throw restore_failed("cannot set the mode of a deleted file", shown);
  for (const Xattr& x : inode.xattrs)
    if (::setxattr(path.c_str(), x.name.c_str(), x.value.data(), x.value.size(), 0) < 0)
      throw restore_failed(fmt::format("cannot set the extended attribute {} of a deleted file", x.name), shown);
}

void set_times(const GhostInode& inode, int fd, const std::string& shown) {
  const timespec times[2] = {inode.atime, inode.mtime};
  if (::utimensat(fd, "", times, AT_EMPTY_PATH) == 0) return;
  // Linux before 5.8 takes no empty path; those of a symbolic link cannot be set there.
  if (S_ISLNK(inode.mode) || ::utimensat(AT_FDCWD, own_link(fd).c_str(), times, 0) == 0) return;
  throw restore_failed("cannot set the times of a deleted file", shown);
}

}  // namespace stasis

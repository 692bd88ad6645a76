#include "objects/files/watched_inode.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/fd.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

constexpr size_t kWordBytes = sizeof(uint64_t);

dev_t device_of(uint32_t kernel_device) {
  return makedev(kernel_device >> 20, kernel_device & 0xfffff);
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

Fd open_handle(const WatchedInode& inode) {
  alignas(struct file_handle) char room[sizeof(struct file_handle) + MAX_HANDLE_SZ] = {};
  auto* handle = reinterpret_cast<struct file_handle*>(room);
  handle->handle_bytes = static_cast<unsigned>(inode.handle.size());
  handle->handle_type = static_cast<int>(inode.handle_type);
  std::memcpy(handle->f_handle, inode.handle.data(), inode.handle.size());
  return Fd(::open_by_handle_at(AT_FDCWD, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

std::string path_of(int fd) {
  char text[PATH_MAX];
  const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), text, sizeof text);
  return length <= 0 ? std::string() : std::string(text, static_cast<size_t>(length));
}

bool leads_to(const std::string& path, const struct stat& st) {
  struct stat found;
  return ::fstatat(AT_FDCWD, path.c_str(), &found, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0 && same_file(found, st);
}

bool is_on(const MountInfo& mount, uint32_t device) {
  return makedev(mount.dev_major, mount.dev_minor) == device_of(device);
}

}  // namespace

void parse_handle(std::string_view text, WatchedInode& inode) {
  const auto number = [&](std::string_view key) {
    const size_t at = text.find(key);
    uint32_t value = 0;
    if (at != std::string_view::npos)
      std::from_chars(text.data() + at + key.size(), text.data() + text.size(), value, 16);
    return value;
  };
  constexpr std::string_view kKey = "f_handle:";
  const size_t at = text.find(kKey);
  if (at == std::string_view::npos) return;
  std::string_view hex = text.substr(at + kKey.size());
  hex = hex.substr(0, hex.find_first_not_of("0123456789abcdef"));
  if (number("fhandle-bytes:") != hex.size() / 2 || hex.size() / 2 > MAX_HANDLE_SZ) return;
  inode.handle_type = number("fhandle-type:");
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    inode.handle.push_back(static_cast<char>(byte));
  }
}

void encode_handle(const WatchedInode& inode, pb::fh_entry& out) {
  out.set_bytes(static_cast<uint32_t>(inode.handle.size()));
  out.set_type(inode.handle_type);
  // A fixed number of words, as every reader expects.
  uint64_t words[pb::min_entries] = {};
  std::memcpy(words, inode.handle.data(), std::min(inode.handle.size(), sizeof words));
  for (const uint64_t word : words) out.add_handle(word);
  if (!inode.path.empty()) out.set_path(inode.path);
}

void decode_handle(const pb::fh_entry& in, WatchedInode& inode) {
  const auto words = static_cast<size_t>(in.handle_size());
  inode.path = in.path();
  if (in.bytes() > words * kWordBytes || in.bytes() > MAX_HANDLE_SZ || inode.path.find('\0') != std::string::npos ||
      (!inode.path.empty() && !inode.path.starts_with('/')))
    throw Error(Reason::IMAGE_CORRUPT, "a watched file has an impossible handle or path");
  inode.handle_type = in.type();
  inode.handle.resize(in.bytes());
  if (in.bytes() > 0) std::memcpy(inode.handle.data(), in.handle().data(), in.bytes());
}

WatchedPaths::WatchedPaths() : mounts_(parse_mountinfo(ProcDir(::getpid()).read("mountinfo"))) {}

std::string WatchedPaths::mount_of_device(uint32_t device) const {
  const auto at = std::ranges::find_if(mounts_, [&](const MountInfo& m) { return is_on(m, device) && m.root == "/"; });
  if (at != mounts_.end()) return at->mount_point;
  const auto part = std::ranges::find_if(mounts_, [&](const MountInfo& m) { return is_on(m, device); });
  return part == mounts_.end() ? std::string() : part->mount_point;
}

std::string WatchedPaths::mount_of_id(int id) const {
  const auto at = std::ranges::find(mounts_, id, &MountInfo::id);
  return at == mounts_.end() ? std::string() : at->mount_point;
}

// In a thread with a working directory of its own: a handle is opened on the file system of that, and of nothing else
// that would not have to be opened.
WatchedPaths::Found WatchedPaths::resolve_one(WatchedInode& inode) const {
  for (const MountInfo& mount : mounts_) {
    struct stat root;
    if (!is_on(mount, inode.device) || ::stat(mount.mount_point.c_str(), &root) < 0) continue;
    // File systems without handles: at least their root has a path.
    if (root.st_ino == inode.inode && root.st_dev == device_of(inode.device)) {
      inode.path = mount.mount_point;
      return {};
    }
    if (inode.handle.empty() || ::chdir(mount.mount_point.c_str()) < 0) continue;
    const Fd fd = open_handle(inode);
    struct stat st;
    if (!fd || ::fstat(fd.get(), &st) < 0) continue;
    if (std::string path = path_of(fd.get()); leads_to(path, st)) {
      inode.path = std::move(path);
      return {};
    }
    if (st.st_nlink == 0) return {.deleted = st};
  }
  return {};
}

std::vector<WatchedPaths::Found> WatchedPaths::resolve(std::span<WatchedInode* const> inodes) const {
  std::vector<Found> out(inodes.size());
  if (std::ranges::all_of(inodes, [](const WatchedInode* i) { return !i->path.empty(); })) return out;
  std::exception_ptr failure;
  std::thread thread([&] {
    try {
      check(::unshare(CLONE_FS), "cannot have a working directory of a thread");
      for (size_t i = 0; i < inodes.size(); ++i)
        if (inodes[i]->path.empty()) out[i] = resolve_one(*inodes[i]);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  thread.join();
  if (failure) std::rethrow_exception(failure);
  return out;
}

void scan_for(std::span<WatchedInode* const> inodes, const DumpOptions& options) {
  namespace fs = std::filesystem;
  std::vector<std::string> places = options.irmap_scan_paths;
  if (options.force_irmap) places.insert(places.end(), {"/etc", "/var", "/run", "/usr/lib"});
  const auto look_at = [&](const fs::path& path) {
    struct stat st;
    if (::lstat(path.c_str(), &st) < 0) return;
    for (WatchedInode* inode : inodes)
      if (inode->path.empty() && st.st_ino == inode->inode && st.st_dev == device_of(inode->device))
        inode->path = path.string();
  };
  const auto found_all = [&] { return std::ranges::none_of(inodes, [](auto* i) { return i->path.empty(); }); };
  for (const std::string& place : places) {
    std::error_code error;
    const fs::path top = fs::canonical(place, error);
    if (error) continue;
    look_at(top);
    fs::recursive_directory_iterator at(top, fs::directory_options::skip_permission_denied, error);
    for (; !error && at != fs::recursive_directory_iterator() && !found_all(); at.increment(error)) look_at(at->path());
  }
}

void look_for_unread_events(const FileView& view, DumpFiles& files) {
  int bytes = 0;
  if (::ioctl(view.fd, FIONREAD, &bytes) < 0)
    throw Error(Reason::SYSTEM, "cannot ask for unread events").object(view.who()).error_number(errno);
  if (bytes > 0)
    files.losses.push_back({"unread-events", fmt::format("it has {} bytes of events to be read", bytes), view.who()});
}

void find_targets(std::span<WatchedInode* const> inodes, const WatchedPaths& paths, DumpFiles& files,
                  const std::string& who, const std::function<void(size_t, uint32_t)>& file_of) {
  if (inodes.empty()) return;
  const bool scans = files.options().force_irmap || !files.options().irmap_scan_paths.empty();
  if (files.options().force_irmap) scan_for(inodes, files.options());
  const std::vector<WatchedPaths::Found> found = paths.resolve(inodes);
  if (scans && !files.options().force_irmap) scan_for(inodes, files.options());
  for (size_t i = 0; i < inodes.size(); ++i) {
    if (!inodes[i]->path.empty()) continue;
    const auto& deleted = found[i].deleted;
    const uint32_t file = deleted ? files.deleted_file(deleted->st_dev, deleted->st_ino) : 0;
    if (file == 0)
      throw Error(Reason::UNSUPPORTED_FILE,
                  fmt::format("it watches inode {} of device {}:{}, {}", inodes[i]->inode, inodes[i]->device >> 20,
                              inodes[i]->device & 0xfffff,
                              deleted ? "which was deleted, and which no descriptor of the tree refers to"
                                      : "which no path was found for"))
          .object(who)
          .remedy(deleted ? "let the program remove the watch"
                          : "name a directory above it with --irmap-scan-path, or let the program remove the watch");
    file_of(i, file);
  }
}

void require_path(const WatchedInode& inode, const std::string& nameless) {
  struct stat st;
  const bool named = !inode.path.empty();
  if (named && ::lstat(inode.path.c_str(), &st) == 0) return;
  throw Error(Reason::FILE_MISSING, "a file that the saved tasks watch is not there")
      .object(named ? inode.path : nameless)
      .error_number(named ? errno : 0);
}

}  // namespace stasis

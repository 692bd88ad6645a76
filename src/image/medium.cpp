#include "image/medium.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <map>

#include "base/error.h"

namespace stasis {

namespace {

// More than any file of records can be; a length beyond it is damage, and is not worth an allocation.
constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

std::string write_remedy(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return "free space on the file system of the image directory, or use another directory";
    case EROFS:
      return "the file system is read-only: use another image directory";
    case EACCES:
    case EPERM:
      return "make the image directory writable for this user, or use another one";
    case EFBIG:
      return "raise the file size limit (ulimit -f)";
    default:
      return "check the image directory, or use another one";
  }
}

[[noreturn]] void fail_write(std::string what, std::string object, int error_number) {
  throw Error(Reason::IMAGE_WRITE, std::move(what))
      .object(std::move(object))
      .error_number(error_number)
      .remedy(write_remedy(error_number));
}

[[noreturn]] void fail_read(std::string object, int error_number) {
  throw Error(Reason::IMAGE_DIR, "cannot read an image file")
      .object(std::move(object))
      .error_number(error_number)
      .remedy("check who owns the images and what their permissions are");
}

void write_all(int fd, std::string_view bytes, const std::string& shown_name) {
  while (!bytes.empty()) {
    ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    // A regular file takes nothing only when there is no room.
    if (written <= 0) fail_write("cannot write an image file", shown_name, written < 0 ? errno : ENOSPC);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

std::string read_all(int fd, const std::string& shown_name) {
  uint64_t size_bytes = image_file_size(fd, shown_name);
  if (size_bytes > kMaxFileBytes) {
    throw Error(Reason::IMAGE_CORRUPT, fmt::format("a file of records has {} bytes", size_bytes))
        .object(shown_name)
        .remedy("the images are damaged: copy them again from where they were made, or make a new dump");
  }
  std::string content;
  int read_errno = 0;
  // Spares the zeroing of what is overwritten at once.
  content.resize_and_overwrite(size_bytes, [&](char* buffer, size_t size) {
    size_t filled = 0;
    while (filled < size) {
      ssize_t got = ::pread(fd, buffer + filled, size - filled, static_cast<off_t>(filled));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) read_errno = errno;
      if (got <= 0) break;
      filled += static_cast<size_t>(got);
    }
    return filled;
  });
  if (read_errno != 0) fail_read(shown_name, read_errno);
  return content;
}

class DirectoryMedium final : public ImageMedium {
 public:
  DirectoryMedium(Fd directory, std::string shown_path)
      : ImageMedium(std::move(shown_path)), directory_(std::move(directory)) {}

  void write_file(const std::string& name, std::string_view bytes) override {
    Fd fd = open_for_writing(name, O_WRONLY);
    write_all(fd.get(), bytes, shown_name(name));
    // Network file systems report at close what they could not write.
    if (::close(fd.release()) < 0 && errno != EINTR) fail_write("cannot write an image file", shown_name(name), errno);
  }

  Fd create_file(const std::string& name) override { return open_for_writing(name, O_RDWR); }

  bool remove(const std::string& name) override {
    if (::unlinkat(directory_.get(), name.c_str(), 0) == 0) return true;
    if (errno == ENOENT) return false;
    fail_write("cannot remove an image file of an earlier dump", shown_name(name), errno);
  }

  void rename(const std::string& from, const std::string& to) override {
    if (::renameat(directory_.get(), from.c_str(), directory_.get(), to.c_str()) < 0) {
      fail_write("cannot rename an image file", shown_name(to), errno);
    }
  }

  void sync() override {
    if (::syncfs(directory_.get()) < 0) fail_write("cannot bring the images to the disk", shown_path(), errno);
  }

  std::optional<std::string> read_file(const std::string& name) const override {
    Fd fd = open_file(name);
    if (!fd) return std::nullopt;
    return read_all(fd.get(), shown_name(name));
  }

  Fd open_file(const std::string& name) const override {
    // O_NONBLOCK: a FIFO of that name must not hang the reader.
    int fd = ::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno != ENOENT) fail_read(shown_name(name), errno);
    return Fd(fd);
  }

  std::optional<uint64_t> size_bytes(const std::string& name) const override {
    struct stat status;
    if (::fstatat(directory_.get(), name.c_str(), &status, 0) < 0) {
      if (errno == ENOENT) return std::nullopt;
      fail_read(shown_name(name), errno);
    }
    return static_cast<uint64_t>(status.st_size);
  }

  int directory_fd() const override { return directory_.get(); }

 private:
  Fd open_for_writing(const std::string& name, int mode) {
    // O_NOFOLLOW: a link planted in the directory must not redirect what root writes.
    int fd = ::openat(directory_.get(), name.c_str(), mode | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) fail_write("cannot create an image file", shown_name(name), errno);
    return Fd(fd);
  }

  Fd directory_;
};

// Files of records are strings; raw files are memfds, since their users need a descriptor.
class MemoryMedium final : public ImageMedium {
 public:
  MemoryMedium() : ImageMedium("memory") {}

  void write_file(const std::string& name, std::string_view bytes) override {
    files_[name] = File{std::string(bytes), Fd()};
  }

  Fd create_file(const std::string& name) override {
    Fd memory = new_memfd(name);
    Fd copy = reopen(memory.get(), O_RDWR);
    files_[name] = File{"", std::move(memory)};
    return copy;
  }

  bool remove(const std::string& name) override { return files_.erase(name) != 0; }

  void rename(const std::string& from, const std::string& to) override {
    auto node = files_.extract(from);
    if (node.empty()) fail_write("cannot rename an image file", shown_name(from), ENOENT);
    files_.erase(to);
    node.key() = to;
    files_.insert(std::move(node));
  }

  void sync() override {}

  std::optional<std::string> read_file(const std::string& name) const override {
    auto found = files_.find(name);
    if (found == files_.end()) return std::nullopt;
    return found->second.memory ? read_all(found->second.memory.get(), shown_name(name)) : found->second.bytes;
  }

  Fd open_file(const std::string& name) const override {
    auto found = files_.find(name);
    if (found == files_.end()) return Fd();
    if (found->second.memory) return reopen(found->second.memory.get(), O_RDONLY);
    Fd memory = new_memfd(name);
    write_all(memory.get(), found->second.bytes, shown_name(name));
    return reopen(memory.get(), O_RDONLY);
  }

  std::optional<uint64_t> size_bytes(const std::string& name) const override {
    auto found = files_.find(name);
    if (found == files_.end()) return std::nullopt;
    if (!found->second.memory) return found->second.bytes.size();
    return image_file_size(found->second.memory.get(), shown_name(name));
  }

 private:
  struct File {
    std::string bytes;
    Fd memory;  // empty: `bytes` is the content
  };

  static Fd new_memfd(const std::string& name) {
    return Fd(check(::memfd_create(name.c_str(), MFD_CLOEXEC), "cannot make a memory file"));
  }

  // A descriptor with an offset of its own.
  static Fd reopen(int fd, int mode) {
    std::string path = fmt::format("/proc/self/fd/{}", fd);
    return Fd(check(::open(path.c_str(), mode | O_CLOEXEC), "cannot open a memory file again"));
  }

  std::map<std::string, File> files_;
};

}  // namespace

uint64_t image_file_size(int fd, const std::string& shown_name) {
  struct stat status;
  if (::fstat(fd, &status) < 0) fail_read(shown_name, errno);
  if (!S_ISREG(status.st_mode)) {
    throw Error(Reason::IMAGE_CORRUPT, "an image file is not a regular file")
        .object(shown_name)
        .remedy("remove it, and copy the images again from where they were made");
  }
  return static_cast<uint64_t>(status.st_size);
}

std::unique_ptr<ImageMedium> directory_medium(Fd directory, std::string shown_path) {
  return std::make_unique<DirectoryMedium>(std::move(directory), std::move(shown_path));
}

std::unique_ptr<ImageMedium> memory_medium() {
  return std::make_unique<MemoryMedium>();
}

}  // namespace stasis

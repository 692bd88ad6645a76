// A directory for the image files of one input; on tmpfs where there is one.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/fd.h"

namespace stasis::fuzz {

class ImageDirectory {
 public:
  ImageDirectory() {
    char path[] = "/dev/shm/stasis-fuzz-XXXXXX";
    char other[] = "/tmp/stasis-fuzz-XXXXXX";
    const char* made = mkdtemp(path);
    if (made == nullptr) made = mkdtemp(other);
    if (made == nullptr) throw_errno("cannot make a directory");
    path_ = made;
    fd_.reset(open(made, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~ImageDirectory() {
    clear();
    rmdir(path_.c_str());
  }
  ImageDirectory(const ImageDirectory&) = delete;
  ImageDirectory& operator=(const ImageDirectory&) = delete;

  // Names that are no plain file names are left out.
  void add(std::string_view name, std::string_view bytes) {
    std::string file(name);
    if (file.empty() || file.size() > 100 || file.find_first_of(std::string_view("/\0", 2)) != file.npos) return;
    const Fd fd(openat(fd_.get(), file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd) return;  // "." and the like
    names_.push_back(file);
    if (write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      throw_errno("cannot write a file");
  }
  // A file of zeros.
  void add_zeros(std::string_view name, uint64_t bytes) {
    add(name, {});
    if (ftruncate(Fd(openat(fd_.get(), names_.back().c_str(), O_WRONLY | O_CLOEXEC)).get(),
                  static_cast<off_t>(bytes)) != 0)
      throw_errno("cannot make a file larger");
  }
  void clear() {
    for (const std::string& name : names_) unlinkat(fd_.get(), name.c_str(), 0);
    names_.clear();
  }
  Fd open_again() const { return Fd(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3)); }

 private:
  std::string path_;
  Fd fd_;
  std::vector<std::string> names_;
};

}  // namespace stasis::fuzz

// For the unit tests of this directory: files of this very process as a dump sees them, and a directory to make them
// in.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/test_error.h"
#include "objects/files/file_kind.h"
#include "proto/inventory.pb.h"

namespace stasis::test {

inline std::string link_of(int fd) {
  char text[PATH_MAX];
  const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), text, sizeof text);
  return length < 0 ? "" : std::string(text, static_cast<size_t>(length));
}

// The view is good as long as `fd` is open.
inline FileView view_of(int fd, uint32_t id = 1) {
  FileView view;
  view.id = id;
  view.fd = fd;
  EXPECT_EQ(::fstat(fd, &view.st), 0);
  view.link = link_of(fd);
  view.flags = static_cast<uint32_t>(::fcntl(fd, F_GETFL));
  view.pid = ::getpid();
  view.number = fd;
  view.owner = "pid 42 (test)";
  return view;
}

// A dump without a table: path files get ids and are forgotten.
class LooseDump final : public DumpFiles {
 public:
  explicit LooseDump(const DumpOptions& options) : DumpFiles(options) {}
  uint32_t add_path_file(const PathFile& file) override {
    path_files.push_back(file);
    return next_id();
  }
  std::vector<PathFile> path_files;
};

class Directory {
 public:
  Directory() {
    std::string name = (std::filesystem::temp_directory_path() / "stasis-files-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = std::filesystem::canonical(name).string();
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string put(const std::string& name, const std::string& content) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::string path_;
};

inline void commit(ImageStore& store) {
  pb::inventory_entry inventory;
  inventory.set_img_version(kImageVersion);
  inventory.set_fdinfo_per_id(true);
  store.commit(inventory);
}

}  // namespace stasis::test

// Where image files live: a directory, or memory. Knows names and bytes; the store knows what they mean.
//
// Writing fails with IMAGE_WRITE, reading with IMAGE_DIR or IMAGE_CORRUPT; absence is no error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace stasis {

class ImageMedium {
 public:
  explicit ImageMedium(std::string shown_path) : shown_path_(std::move(shown_path)) {}
  ImageMedium(const ImageMedium&) = delete;
  ImageMedium& operator=(const ImageMedium&) = delete;
  virtual ~ImageMedium() = default;

  // Makes or replaces a file.
  virtual void write_file(const std::string& name, std::string_view bytes) = 0;
  // Makes an empty file, or empties it; the descriptor reads and writes.
  virtual Fd create_file(const std::string& name) = 0;
  // True when there was one.
  virtual bool remove(const std::string& name) = 0;
  virtual void rename(const std::string& from, const std::string& to) = 0;
  // Waits until all of it is on the disk.
  virtual void sync() = 0;

  virtual std::optional<std::string> read_file(const std::string& name) const = 0;
  virtual Fd open_file(const std::string& name) const = 0;  // empty when missing
  virtual std::optional<uint64_t> size_bytes(const std::string& name) const = 0;
  virtual int directory_fd() const { return -1; }

  const std::string& shown_path() const { return shown_path_; }
  std::string shown_name(std::string_view name) const { return shown_path_ + "/" + std::string(name); }

 private:
  std::string shown_path_;
};

// The size of an open image file; IMAGE_CORRUPT when it is not a regular file.
uint64_t image_file_size(int fd, const std::string& shown_name);

std::unique_ptr<ImageMedium> directory_medium(Fd directory, std::string shown_path);
std::unique_ptr<ImageMedium> memory_medium();

}  // namespace stasis

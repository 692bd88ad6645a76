// Files of records with payloads of any size (ghost-file-N.img): written and read piece by piece, never held as a
// whole.
//
// Like raw files they have no checksum in the manifest, only a size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/fd.h"
#include "image/store.h"

namespace stasis {

class StreamWriter {
 public:
  StreamWriter(ImageStore& store, ImageKind kind, uint64_t id);

  void write(const google::protobuf::MessageLite& message);
  // Adds `bytes` of the file `fd` from `offset` on. Throws SYSTEM naming `source` when it does not have them.
  void copy(int fd, uint64_t offset, uint64_t bytes, const std::string& source);
  // Nothing is complete before this.
  void close();

 private:
  void flush();

  Fd fd_;
  std::string shown_name_;
  std::string buffer_;
};

class StreamReader {
 public:
  // Nothing when there is no such file. Throws IMAGE_CORRUPT for another kind of file.
  static std::optional<StreamReader> open(const ImageStore& store, ImageKind kind, uint64_t id);

  // Decodes the next record; false when the file ends here.
  bool next(google::protobuf::MessageLite& message);
  // Bytes of the file behind what was read so far.
  uint64_t left_bytes() const { return size_bytes_ - offset_; }
  // Passes by, or writes to the file `fd` at `offset`, the next `bytes`. Throws IMAGE_TRUNCATED; RESTORE_CALL_FAILED
  // naming `target`.
  void skip(uint64_t bytes);
  void copy(int fd, uint64_t offset, uint64_t bytes, const std::string& target);

  // For callers that find a record's content wrong: IMAGE_CORRUPT at the record decoded last.
  [[noreturn]] void corrupt(std::string what_failed) const;
  const std::string& shown_name() const { return shown_name_; }

 private:
  StreamReader(Fd fd, uint64_t size_bytes, std::string shown_name)
      : fd_(std::move(fd)), size_bytes_(size_bytes), shown_name_(std::move(shown_name)) {}
  // `bytes` from offset_ on, which are there; valid until the next call.
  std::string_view look(uint64_t bytes);
  void expect(uint64_t bytes, const char* what) const;

  Fd fd_;
  uint64_t size_bytes_ = 0;
  std::string shown_name_;
  uint64_t offset_ = 0;
  uint64_t record_offset_ = 0;
  std::string buffer_;  // of the file, from buffer_offset_ on
  uint64_t buffer_offset_ = 0;
};

}  // namespace stasis

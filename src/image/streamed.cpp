#include "image/streamed.h"

#include <fmt/format.h>
#include <google/protobuf/message_lite.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"

namespace stasis {
namespace {

// A copy through a buffer that stays in the cache of the processor is as fast as one inside the kernel.
constexpr size_t kBufferBytes = size_t{256} << 10;
// What is read at once while records are decoded: small files as a whole.
constexpr size_t kWindowBytes = size_t{16} << 10;
// Records of these files are small; a longer one is damage.
constexpr uint32_t kLongestRecord = 1u << 20;

}  // namespace

StreamWriter::StreamWriter(ImageStore& store, ImageKind kind, uint64_t id)
    : fd_(store.create_streamed(kind, id)), shown_name_(store.shown_name(kind, id)) {
  append_image_header(buffer_, kind);
}

void StreamWriter::write(const google::protobuf::MessageLite& message) {
  append_record(buffer_, message);
  if (buffer_.size() >= kBufferBytes) flush();
}

void StreamWriter::copy(int fd, uint64_t offset, uint64_t bytes, const std::string& source) {
  while (bytes > 0) {
    if (buffer_.size() >= kBufferBytes) flush();
    const size_t have = buffer_.size(), want = std::min<uint64_t>(bytes, kBufferBytes - have);
    ssize_t got = 0;
    buffer_.resize_and_overwrite(have + want, [&](char* data, size_t) {
      got = ::pread(fd, data + have, want, static_cast<off_t>(offset));
      return have + static_cast<size_t>(std::max<ssize_t>(got, 0));
    });
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw Error(Reason::SYSTEM, fmt::format("cannot read the contents of a file at offset {}", offset))
          .object(source)
          .error_number(got < 0 ? errno : 0);
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
    check_interrupted();
  }
}

void StreamWriter::flush() {
  for (std::string_view left = buffer_; !left.empty();) {
    const ssize_t written = ::write(fd_.get(), left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw Error(Reason::IMAGE_WRITE, "cannot write an image file")
          .object(shown_name_)
          .error_number(written < 0 ? errno : ENOSPC)
          .remedy("free space on the file system of the image directory, or use another directory");
    left.remove_prefix(static_cast<size_t>(written));
  }
  buffer_.clear();
}

void StreamWriter::close() {
  flush();
  // Network file systems report at close what they could not write.
  if (::close(fd_.release()) < 0 && errno != EINTR)
    throw Error(Reason::IMAGE_WRITE, "cannot write an image file").object(shown_name_).error_number(errno);
}

std::optional<StreamReader> StreamReader::open(const ImageStore& store, ImageKind kind, uint64_t id) {
  std::optional<ImageStore::RawFile> file = store.open_streamed(kind, id);
  if (!file) return std::nullopt;
  StreamReader reader(std::move(file->fd), file->size_bytes, store.shown_name(kind, id));
  reader.offset_ =
      RecordDecoder(reader.look(std::min<uint64_t>(reader.size_bytes_, kWindowBytes)), kind, reader.shown_name_)
          .offset();
  return reader;
}

void StreamReader::expect(uint64_t bytes, const char* what) const {
  if (bytes <= left_bytes()) return;
  throw Error(Reason::IMAGE_TRUNCATED,
              fmt::format("the file ends inside of {} at offset {}: {} bytes are there, {} are needed", what, offset_,
                          left_bytes(), bytes))
      .object(shown_name_);
}

std::string_view StreamReader::look(uint64_t bytes) {
  if (offset_ < buffer_offset_ || offset_ + bytes > buffer_offset_ + buffer_.size()) {
    const size_t want = std::min<uint64_t>(std::max<uint64_t>(bytes, kWindowBytes), left_bytes());
    buffer_.resize(want);
    buffer_offset_ = offset_;
    for (size_t have = 0; have < want;) {
      const ssize_t got =
          ::pread(fd_.get(), buffer_.data() + have, want - have, static_cast<off_t>(buffer_offset_ + have));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0)
        throw Error(Reason::IMAGE_TRUNCATED, "cannot read an image file")
            .object(shown_name_)
            .error_number(got < 0 ? errno : 0);
      have += static_cast<size_t>(got);
    }
  }
  return std::string_view(buffer_).substr(offset_ - buffer_offset_, bytes);
}

bool StreamReader::next(google::protobuf::MessageLite& message) {
  if (left_bytes() == 0) return false;
  record_offset_ = offset_;
  uint32_t size_bytes = 0;
  expect(sizeof size_bytes, "the length of a record");
  std::memcpy(&size_bytes, look(sizeof size_bytes).data(), sizeof size_bytes);
  if (size_bytes > kLongestRecord) corrupt(fmt::format("a record claims to have {} bytes", size_bytes));
  offset_ += sizeof size_bytes;
  expect(size_bytes, "a record");
  // The non-partial calls print to stderr on their own when a required field is missing.
  if (!message.ParsePartialFromArray(look(size_bytes).data(), static_cast<int>(size_bytes)) || !message.IsInitialized())
    corrupt(fmt::format("a record is not a {} message", message.GetTypeName()));
  offset_ += size_bytes;
  return true;
}

void StreamReader::skip(uint64_t bytes) {
  expect(bytes, "data after a record");
  offset_ += bytes;
}

void StreamReader::copy(int fd, uint64_t offset, uint64_t bytes, const std::string& target) {
  expect(bytes, "data after a record");
  while (bytes > 0) {
    const bool small = offset_ >= buffer_offset_ && offset_ < buffer_offset_ + buffer_.size();
    const uint64_t window = small ? buffer_offset_ + buffer_.size() - offset_ : kBufferBytes;
    const std::string_view piece = look(std::min(bytes, window));
    const ssize_t written = ::pwrite(fd, piece.data(), piece.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw Error(Reason::RESTORE_CALL_FAILED, "cannot write the contents of a file")
          .object(target)
          .error_number(written < 0 ? errno : ENOSPC)
          .remedy("free space on the file system where the file was");
    offset_ += static_cast<uint64_t>(written);
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
    check_interrupted();
  }
}

void StreamReader::corrupt(std::string what_failed) const {
  throw Error(Reason::IMAGE_CORRUPT, fmt::format("{} (record at offset {})", what_failed, record_offset_))
      .object(shown_name_);
}

}  // namespace stasis

// Records: a length and a packed message, between magics and the end of the file. Knows bytes, not files.
//
// Encoding appends to a string. Decoding walks bytes that the caller keeps alive and unchanged, checks every
// bound, and fails with IMAGE_TRUNCATED or IMAGE_CORRUPT naming the file and the offset.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/source_place.h"
#include "image/kinds.h"

namespace google::protobuf {
class MessageLite;
}

namespace stasis {

// The magics that open a file of this kind; nothing for a raw one.
void append_image_header(std::string& out, ImageKind kind);
// Length and packed message. Throws INTERNAL when a required field is not set.
void append_record(std::string& out, const google::protobuf::MessageLite& message);
// The same for a message that is packed already.
void append_packed_record(std::string& out, std::string_view packed_message);

// Files of img_version 1 open with the specific magic alone.
enum class MagicRule { TODAY, TODAY_OR_VERSION_1 };

class RecordDecoder {
 public:
  // `shown_name` is used in errors. Checks the magics.
  RecordDecoder(std::string_view bytes, ImageKind kind, std::string shown_name, MagicRule rule = MagicRule::TODAY);

  // Decodes the next record; false when the file ends here.
  bool next(google::protobuf::MessageLite& message);
  // The packed bytes of the next record; false when the file ends here.
  bool next_packed(std::string_view& packed_message);
  // The next record; IMAGE_TRUNCATED when there is none.
  void require(google::protobuf::MessageLite& message);
  // Raw bytes that follow a record.
  std::string_view raw(uint64_t size_bytes);
  // Everything up to the end of the file.
  std::string_view rest();
  // IMAGE_CORRUPT when something follows.
  void expect_end() const;

  // For callers that find a record's content wrong: IMAGE_CORRUPT at the record decoded last.
  [[noreturn]] void corrupt(std::string what_failed, SourcePlace place = SourcePlace::here()) const;

  uint64_t offset() const { return offset_; }
  const std::string& shown_name() const { return shown_name_; }

 private:
  uint32_t take_u32(std::string_view what);
  void check_header(ImageKind kind, MagicRule rule);
  [[noreturn]] void truncated(std::string_view what, uint64_t needed_bytes) const;

  std::string_view bytes_;
  uint64_t offset_ = 0;
  uint64_t record_offset_ = 0;
  std::string shown_name_;
};

}  // namespace stasis

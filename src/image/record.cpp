#include "image/record.h"

#include <fmt/format.h>
#include <google/protobuf/message_lite.h>

#include <climits>
#include <cstring>

#include "base/error.h"

namespace stasis {

namespace {

using google::protobuf::MessageLite;

constexpr const char* kDamagedRemedy =
    "the images are damaged: copy them again from where they were made, or make a new dump";

void append_u32(std::string& out, uint32_t value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);  // integers outside messages are in host order
  out.append(bytes, sizeof bytes);
}

void append_length(std::string& out, uint64_t size_bytes) {
  // The message library cannot decode more than INT_MAX bytes.
  if (size_bytes > INT_MAX) throw Error(Reason::IMAGE_WRITE, "a record is larger than 2 GiB");
  append_u32(out, static_cast<uint32_t>(size_bytes));
}

}  // namespace

void append_image_header(std::string& out, ImageKind kind) {
  const ImageKindInfo& info = image_kind_info(kind);
  if (info.framing == ImageFraming::RAW) return;
  if (info.framing == ImageFraming::COMMON) append_u32(out, kImageCommonMagic);
  if (info.framing == ImageFraming::SERVICE) append_u32(out, kImageServiceMagic);
  append_u32(out, info.magic);
}

void append_record(std::string& out, const MessageLite& message) {
  if (!message.IsInitialized()) {
    throw Error(Reason::INTERNAL, fmt::format("a record of type {} lacks a required field", message.GetTypeName()));
  }
  size_t size_bytes = message.ByteSizeLong();
  append_length(out, size_bytes);
  size_t start = out.size();
  out.resize(start + size_bytes);
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(out.data() + start));
}

void append_packed_record(std::string& out, std::string_view packed_message) {
  append_length(out, packed_message.size());
  out += packed_message;
}

RecordDecoder::RecordDecoder(std::string_view bytes, ImageKind kind, std::string shown_name, MagicRule rule)
    : bytes_(bytes), shown_name_(std::move(shown_name)) {
  check_header(kind, rule);
}

void RecordDecoder::check_header(ImageKind kind, MagicRule rule) {
  const ImageKindInfo& info = image_kind_info(kind);
  if (info.framing == ImageFraming::RAW) return;
  uint32_t magic = take_u32("the magic number");
  if (info.framing != ImageFraming::SPECIFIC) {
    uint32_t wanted = info.framing == ImageFraming::COMMON ? kImageCommonMagic : kImageServiceMagic;
    if (magic == wanted) {
      record_offset_ = offset_;
      magic = take_u32("the second magic number");
    } else if (rule != MagicRule::TODAY_OR_VERSION_1) {
      corrupt(
          fmt::format("it opens with {:#010x} and not with {:#010x}, the magic number of all images", magic, wanted));
    }
  }
  if (magic != info.magic) {
    corrupt(fmt::format("its magic number is {:#010x} and not {:#010x} ({})", magic, info.magic, info.name));
  }
}

bool RecordDecoder::next_packed(std::string_view& packed_message) {
  if (offset_ == bytes_.size()) return false;
  record_offset_ = offset_;
  uint32_t size_bytes = take_u32("the length of a record");
  if (size_bytes > INT_MAX) corrupt(fmt::format("a record claims to have {} bytes", size_bytes));
  if (size_bytes > bytes_.size() - offset_) truncated("a record", size_bytes);
  packed_message = bytes_.substr(offset_, size_bytes);
  offset_ += size_bytes;
  return true;
}

bool RecordDecoder::next(MessageLite& message) {
  std::string_view packed;
  if (!next_packed(packed)) return false;
  // The non-partial calls print to stderr on their own when a required field is missing.
  bool decoded = message.ParsePartialFromArray(packed.data(), static_cast<int>(packed.size()));
  if (!decoded || !message.IsInitialized()) {
    corrupt(fmt::format("a record is not a {} message{}", message.GetTypeName(),
                        decoded ? ": a required field is missing" : ""));
  }
  return true;
}

void RecordDecoder::require(MessageLite& message) {
  if (!next(message)) truncated("a record", sizeof(uint32_t));
}

std::string_view RecordDecoder::raw(uint64_t size_bytes) {
  if (size_bytes > bytes_.size() - offset_) truncated("data after a record", size_bytes);
  std::string_view view = bytes_.substr(offset_, size_bytes);
  offset_ += size_bytes;
  return view;
}

std::string_view RecordDecoder::rest() {
  return raw(bytes_.size() - offset_);
}

void RecordDecoder::expect_end() const {
  if (offset_ == bytes_.size()) return;
  throw Error(Reason::IMAGE_CORRUPT,
              fmt::format("{} bytes follow after the last record, from offset {}", bytes_.size() - offset_, offset_))
      .object(shown_name_)
      .remedy(kDamagedRemedy);
}

void RecordDecoder::corrupt(std::string what_failed, SourcePlace place) const {
  throw Error(Reason::IMAGE_CORRUPT, fmt::format("{} (at offset {})", what_failed, record_offset_), place)
      .object(shown_name_)
      .remedy(kDamagedRemedy);
}

void RecordDecoder::truncated(std::string_view what, uint64_t needed_bytes) const {
  throw Error(Reason::IMAGE_TRUNCATED, fmt::format("the file ends in {}: {} bytes are needed at offset {}, {} are left",
                                                   what, needed_bytes, offset_, bytes_.size() - offset_))
      .object(shown_name_)
      .remedy(kDamagedRemedy);
}

uint32_t RecordDecoder::take_u32(std::string_view what) {
  uint32_t value;
  if (bytes_.size() - offset_ < sizeof value) truncated(what, sizeof value);
  std::memcpy(&value, bytes_.data() + offset_, sizeof value);
  offset_ += sizeof value;
  return value;
}

}  // namespace stasis

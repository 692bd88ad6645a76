// The framing of records, and every message that can be in one: byte 0 picks the kind of file, byte 1 the message.
#include <memory>
#include <vector>

#include "fuzz.h"
#include "image/kinds.h"
#include "image/record.h"
#include "proto/all_messages.h"

namespace stasis {
namespace {

using Message = std::unique_ptr<google::protobuf::MessageLite>;

const std::vector<Message>& all_messages() {
  static const std::vector<Message> list = [] {
    std::vector<Message> out;
#define MESSAGE(name) out.push_back(std::make_unique<pb::name>());
    STASIS_ALL_MESSAGES(MESSAGE)
#undef MESSAGE
    return out;
  }();
  return list;
}

void read_all(std::string_view bytes, ImageKind kind, google::protobuf::MessageLite& message, MagicRule rule) {
  RecordDecoder decoder(bytes, kind, "fuzz.img", rule);
  while (decoder.next(message)) {
    // What was accepted can be written, and is then read as the same.
    std::string once, again;
    append_record(once, message);
    const Message copy(message.New());
    if (!copy->ParseFromString(once.substr(4))) __builtin_trap();
    append_record(again, *copy);
    if (once != again) __builtin_trap();
  }
}

}  // namespace
}  // namespace stasis

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  fuzz::Input input(data, size);
  const auto& kinds = all_image_kinds();
  const ImageKind kind = kinds[input.byte() % kinds.size()].kind;
  const auto& messages = all_messages();
  const auto& message = messages[input.byte() % messages.size()];
  const std::string_view bytes = input.rest();
  // As found, and behind a right header.
  std::string framed;
  append_image_header(framed, kind);
  framed += bytes;
  fuzz::accepts([&] { read_all(bytes, kind, *message, MagicRule::TODAY_OR_VERSION_1); });
  fuzz::accepts([&] { read_all(framed, kind, *message, MagicRule::TODAY); });
  message->Clear();
  return 0;
}

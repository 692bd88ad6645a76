// Every message survives decoding and encoding byte for byte. The generated classes cannot look at themselves
// (lite runtime), so random contents come from the compiled descriptors and the full runtime.
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "proto/all_messages.h"

namespace stasis {
namespace {

namespace protobuf = google::protobuf;
using protobuf::FieldDescriptor;

const std::map<std::string, std::function<std::unique_ptr<protobuf::MessageLite>()>>& generated_classes() {
  static const std::map<std::string, std::function<std::unique_ptr<protobuf::MessageLite>()>> classes = {
#define MESSAGE(name) {#name, [] { return std::make_unique<pb::name>(); }},
      STASIS_ALL_MESSAGES(MESSAGE)
#undef MESSAGE
  };
  return classes;
}

class Filler {
 public:
  explicit Filler(uint64_t seed) : random_(seed) {}

  void fill(protobuf::Message& message, int depth) {
    const protobuf::Descriptor* type = message.GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      // aa_namespace contains itself.
      if (depth > 4 && !field->is_required()) continue;
      int count = field->is_repeated() ? static_cast<int>(random_() % 3) : field->is_required() || random_() % 3 != 0;
      for (int n = 0; n < count; ++n) fill_field(message, field, depth);
    }
  }

 private:
  uint64_t number() { return random_() >> (random_() % 64); }

  std::string text() {
    std::string bytes(random_() % 20, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }

  void fill_field(protobuf::Message& message, const FieldDescriptor* field, int depth) {
    const protobuf::Reflection* reflection = message.GetReflection();
    bool repeated = field->is_repeated();
    switch (field->cpp_type()) {
#define NUMBER(TYPE, Type, value)                                       \
  case FieldDescriptor::CPPTYPE_##TYPE:                                 \
    if (repeated) return reflection->Add##Type(&message, field, value); \
    return reflection->Set##Type(&message, field, value)
      NUMBER(INT32, Int32, static_cast<int32_t>(number() * (random_() % 2 != 0 ? 1 : -1)));
      NUMBER(INT64, Int64, static_cast<int64_t>(number() * (random_() % 2 != 0 ? 1 : -1)));
      NUMBER(UINT32, UInt32, static_cast<uint32_t>(number()));
      NUMBER(UINT64, UInt64, number());
      NUMBER(BOOL, Bool, random_() % 2 != 0);
      NUMBER(STRING, String, text());
      NUMBER(ENUM, Enum,
             field->enum_type()->value(
                 static_cast<int>(random_() % static_cast<uint64_t>(field->enum_type()->value_count()))));
#undef NUMBER
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return fill(repeated ? *reflection->AddMessage(&message, field) : *reflection->MutableMessage(&message, field),
                    depth + 1);
      default:
        FAIL() << field->full_name() << " has a type that no message had so far";
    }
  }

  std::mt19937_64 random_;
};

TEST(Messages, SurviveDecodingAndEncodingByteForByte) {
  protobuf::FileDescriptorSet files;
  std::ifstream stream(STASIS_PROTO_DESCRIPTORS, std::ios::binary);
  ASSERT_TRUE(files.ParseFromIstream(&stream));
  protobuf::DescriptorPool pool;
  protobuf::LogSilencer silencer;  // the full runtime remarks on strings that are no UTF-8; paths need not be
  protobuf::DynamicMessageFactory factory;
  Filler filler(1);
  const auto& classes = generated_classes();
  EXPECT_GT(classes.size(), 150u);
  // protoc lists a file after those that it imports.
  for (const protobuf::FileDescriptorProto& file : files.file()) {
    const protobuf::FileDescriptor* schema = pool.BuildFile(file);
    ASSERT_NE(schema, nullptr) << file.name();
    for (int i = 0; i < schema->message_type_count(); ++i) {
      const protobuf::Descriptor* type = schema->message_type(i);
      ASSERT_TRUE(classes.contains(type->name())) << type->name();
      for (int round = 0; round < 10; ++round) {
        std::unique_ptr<protobuf::Message> model(factory.GetPrototype(type)->New());
        filler.fill(*model, 0);
        std::string wanted = model->SerializePartialAsString();
        std::unique_ptr<protobuf::MessageLite> message = classes.at(type->name())();
        ASSERT_TRUE(message->ParsePartialFromString(wanted)) << type->name();
        ASSERT_TRUE(message->IsInitialized()) << type->name();
        ASSERT_EQ(message->SerializeAsString(), wanted) << type->name();
      }
    }
  }
}

}  // namespace
}  // namespace stasis

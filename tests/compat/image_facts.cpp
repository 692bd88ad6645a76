#include "image_facts.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

namespace stasis::compat {
namespace {

namespace gp = google::protobuf;

constexpr uint32_t kCommonMagic = 0x54564319, kServiceMagic = 0x55105940;

constexpr Fact kFacts[] = {
    {"inventory.img", Header::SPECIFIC, 0x58313116, "inventory_entry", "", ""},
    {"pstree.img", Header::COMMON, 0x50273030, "pstree_entry", "pstree_entry", ""},
    {"files.img", Header::COMMON, 0x56303138, "file_entry", "file_entry", ""},
    {"seccomp.img", Header::COMMON, 0x64413049, "seccomp_entry", "", ""},
    {"tty-info.img", Header::COMMON, 0x59453036, "tty_info_entry", "tty_info_entry", ""},
    {"tty-data.img", Header::COMMON, 0x59413026, "tty_data_entry", "tty_data_entry", ""},
    {"pipes-data.img", Header::COMMON, 0x56453709, "pipe_data_entry", "pipe_data_entry", "bytes"},
    {"fifo-data.img", Header::COMMON, 0x59333054, "pipe_data_entry", "pipe_data_entry", "bytes"},
    {"core-#.img", Header::COMMON, 0x55053847, "core_entry", "", ""},
    {"ids-#.img", Header::COMMON, 0x54432030, "task_kobj_ids_entry", "", ""},
    {"mm-#.img", Header::COMMON, 0x57492820, "mm_entry", "", ""},
    {"fs-#.img", Header::COMMON, 0x51403912, "fs_entry", "", ""},
    {"pagemap-#.img", Header::COMMON, 0x56084025, "pagemap_head", "pagemap_entry", ""},
    {"pagemap-shmem-#.img", Header::COMMON, 0x56084025, "pagemap_head", "pagemap_entry", ""},
    {"fdinfo-#.img", Header::COMMON, 0x56213732, "fdinfo_entry", "fdinfo_entry", ""},
    {"pages-#.img", Header::RAW, 0, "", "", ""},
    {"extension.img", Header::COMMON, 0x53455854, "extension_head", "extension_task", ""},
    {"timens-#.img", Header::COMMON, 0x43114433, "timens_entry", "", ""},
    {"stats-dump", Header::SERVICE, 0x57093306, "stats_entry", "", ""},
    {"stats-restore", Header::SERVICE, 0x57093306, "stats_entry", "", ""},
};

// Messages by name, made from the compiled descriptors alone: no generated class takes part.
class Messages {
 public:
  Messages() : pool_(&database_) {
    std::ifstream file(STASIS_PROTO_DESCRIPTORS, std::ios::binary);
    gp::FileDescriptorSet set;
    if (!set.ParseFromIstream(&file)) ADD_FAILURE() << "cannot read " << STASIS_PROTO_DESCRIPTORS;
    for (const auto& f : set.file()) database_.Add(f);
  }
  Message make(std::string_view name) {
    const gp::Descriptor* type = pool_.FindMessageTypeByName("stasis.pb." + std::string(name));
    if (type == nullptr) {
      ADD_FAILURE() << "there is no message " << name;
      return nullptr;
    }
    return Message(factory_.GetPrototype(type)->New());
  }

 private:
  gp::SimpleDescriptorDatabase database_;
  gp::DescriptorPool pool_;
  gp::DynamicMessageFactory factory_;
};

Messages& messages() {
  static Messages all;
  return all;
}

// "core-42.img" fits "core-#.img".
bool fits(std::string_view name, std::string_view pattern) {
  const size_t at = pattern.find('#');
  if (at == pattern.npos) return name == pattern;
  const std::string_view tail = pattern.substr(at + 1);
  if (name.size() <= pattern.size() - 1 || !name.starts_with(pattern.substr(0, at)) || !name.ends_with(tail))
    return false;
  const std::string_view id = name.substr(at, name.size() - at - tail.size());
  return !id.empty() && id.find_first_not_of("0123456789") == id.npos;
}

uint32_t word_at(std::string_view bytes, size_t at) {
  uint32_t out;
  std::memcpy(&out, bytes.data() + at, sizeof out);
  return out;
}

void append_word(std::string& out, uint32_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::vector<uint32_t> header_words(const Fact& f) {
  switch (f.header) {
    case Header::COMMON:
      return {kCommonMagic, f.magic};
    case Header::SERVICE:
      return {kServiceMagic, f.magic};
    case Header::SPECIFIC:
      return {f.magic};
    case Header::RAW:
      break;
  }
  return {};
}

// Fields that no description knows would be kept and written again: they must be looked for.
bool has_unknown_fields(const gp::Message& m) {
  const gp::Reflection* r = m.GetReflection();
  if (!r->GetUnknownFields(m).empty()) return true;
  std::vector<const gp::FieldDescriptor*> set;
  r->ListFields(m, &set);
  for (const auto* f : set) {
    if (f->cpp_type() != gp::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!f->is_repeated() && has_unknown_fields(r->GetMessage(m, f))) return true;
    for (int i = 0; f->is_repeated() && i < r->FieldSize(m, f); ++i)
      if (has_unknown_fields(r->GetRepeatedMessage(m, f, i))) return true;
  }
  return false;
}

// Where a path leads: the message that holds its last field.
struct Place {
  const gp::Message* message = nullptr;
  const gp::FieldDescriptor* field = nullptr;
};

Place find(const gp::Message& message, std::string_view path) {
  const gp::Message* at = &message;
  for (;;) {
    const size_t dot = path.find('.');
    const auto* field = at->GetDescriptor()->FindFieldByName(std::string(path.substr(0, dot)));
    if (field == nullptr) {
      ADD_FAILURE() << at->GetTypeName() << " has no field " << path;
      return {};
    }
    if (dot == path.npos) return {at, field};
    if (!at->GetReflection()->HasField(*at, field)) return {};
    at = &at->GetReflection()->GetMessage(*at, field);
    path.remove_prefix(dot + 1);
  }
}

uint64_t value_of(const Place& p, int index) {
  const gp::Reflection* r = p.message->GetReflection();
  const bool many = p.field->is_repeated();
  switch (p.field->cpp_type()) {
    case gp::FieldDescriptor::CPPTYPE_UINT32:
      return many ? r->GetRepeatedUInt32(*p.message, p.field, index) : r->GetUInt32(*p.message, p.field);
    case gp::FieldDescriptor::CPPTYPE_UINT64:
      return many ? r->GetRepeatedUInt64(*p.message, p.field, index) : r->GetUInt64(*p.message, p.field);
    case gp::FieldDescriptor::CPPTYPE_INT32:
      return static_cast<uint64_t>(r->GetInt32(*p.message, p.field));
    case gp::FieldDescriptor::CPPTYPE_BOOL:
      return r->GetBool(*p.message, p.field) ? 1 : 0;
    case gp::FieldDescriptor::CPPTYPE_ENUM:
      return static_cast<uint64_t>(r->GetEnumValue(*p.message, p.field));
    default:
      ADD_FAILURE() << p.field->full_name() << " is no number";
      return 0;
  }
}

}  // namespace

const Fact* fact_of(const std::string& file_name) {
  for (const Fact& f : kFacts)
    if (fits(file_name, f.name)) return &f;
  return nullptr;
}

Image read_image(const std::filesystem::path& path) {
  SCOPED_TRACE(path.filename().string());
  Image image;
  image.fact = fact_of(path.filename());
  std::ifstream file(path, std::ios::binary);
  if (!file) ADD_FAILURE() << "cannot be opened";
  image.whole.resize(std::filesystem::file_size(path));
  file.read(image.whole.data(), static_cast<std::streamsize>(image.whole.size()));
  if (image.fact == nullptr || image.fact->header == Header::RAW) return image;

  const std::string_view bytes = image.whole;
  size_t at = 0;
  for (const uint32_t magic : header_words(*image.fact)) {
    if (at + 4 > bytes.size()) {
      ADD_FAILURE() << "the header is cut short";
      return image;
    }
    EXPECT_EQ(word_at(bytes, at), magic);
    at += 4;
  }
  while (at < bytes.size()) {
    const std::string_view type = image.records.empty() ? image.fact->first : image.fact->others;
    if (type.empty()) {
      ADD_FAILURE() << "a second record";
      break;
    }
    if (at + 4 > bytes.size() || word_at(bytes, at) > bytes.size() - at - 4) {
      ADD_FAILURE() << "a record at " << at << " is cut short";
      break;
    }
    const uint32_t size = word_at(bytes, at);
    Message m = messages().make(type);
    if (m == nullptr || !m->ParsePartialFromString(std::string(bytes.substr(at + 4, size)))) {
      ADD_FAILURE() << "the record at " << at << " is no " << type;
      break;
    }
    EXPECT_TRUE(m->IsInitialized()) << type << " lacks " << m->InitializationErrorString();
    EXPECT_FALSE(has_unknown_fields(*m)) << type << ": " << m->ShortDebugString();
    at += 4 + size;
    const uint64_t raw = image.fact->raw_size.empty() ? 0 : number(*m, image.fact->raw_size);
    EXPECT_LE(raw, bytes.size() - at);
    image.raw.emplace_back(bytes.substr(at, raw));
    at += image.raw.back().size();
    image.records.push_back(std::move(m));
  }
  EXPECT_FALSE(image.records.empty()) << "a file without records is not made";
  return image;
}

std::string encode(const Image& image) {
  if (image.fact->header == Header::RAW) return image.whole;
  std::string out;
  for (const uint32_t magic : header_words(*image.fact)) append_word(out, magic);
  for (size_t i = 0; i < image.records.size(); ++i) {
    // Reflection writes the fields that are set in the order of their numbers.
    const std::string packed = image.records[i]->SerializePartialAsString();
    append_word(out, static_cast<uint32_t>(packed.size()));
    out += packed;
    out += image.raw[i];
  }
  return out;
}

bool has(const gp::Message& message, std::string_view path) {
  return count(message, path) != 0;
}

int count(const gp::Message& message, std::string_view path) {
  const Place p = find(message, path);
  if (p.field == nullptr) return 0;
  const gp::Reflection* r = p.message->GetReflection();
  return p.field->is_repeated() ? r->FieldSize(*p.message, p.field) : r->HasField(*p.message, p.field);
}

uint64_t number(const gp::Message& message, std::string_view path, int index) {
  const Place p = find(message, path);
  return p.field == nullptr ? 0 : value_of(p, index);
}

std::string text(const gp::Message& message, std::string_view path) {
  const Place p = find(message, path);
  return p.field == nullptr ? std::string() : p.message->GetReflection()->GetString(*p.message, p.field);
}

}  // namespace stasis::compat

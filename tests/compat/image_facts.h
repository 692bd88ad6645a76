// The documented image files, and a reader of them that shares nothing with src/image.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace stasis::compat {

using Message = std::unique_ptr<google::protobuf::Message>;

enum class Header { COMMON, SPECIFIC, SERVICE, RAW };

// One row of the table: "#" in the name stands for a decimal id.
struct Fact {
  std::string_view name;
  Header header;
  uint32_t magic;
  std::string_view first;     // message of the first record
  std::string_view others;    // of the records behind it; empty: there is exactly one record
  std::string_view raw_size;  // field that tells how many raw bytes follow a record
};

// The row for a file name; null for a file that the format does not know.
const Fact* fact_of(const std::string& file_name);

// A file taken apart.
struct Image {
  const Fact* fact = nullptr;
  std::vector<Message> records;
  std::vector<std::string> raw;  // parallel to `records`
  std::string whole;             // the bytes of the file
};

// Reports everything that is wrong as test failures, names in the messages being those of the file.
Image read_image(const std::filesystem::path& path);
// The bytes that the format prescribes for these records.
std::string encode(const Image& image);

// ---- fields by path: "tc.rlimits.rlimits" ----------------------------------------------------------------

bool has(const google::protobuf::Message& message, std::string_view path);
// Elements of a repeated field; 0 or 1 for others.
int count(const google::protobuf::Message& message, std::string_view path);
// Of an integer, a boolean or an enumeration; 0 when it is not set.
uint64_t number(const google::protobuf::Message& message, std::string_view path, int index = 0);
std::string text(const google::protobuf::Message& message, std::string_view path);

}  // namespace stasis::compat

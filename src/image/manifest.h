// The list of a dump's files with sizes and checksums, kept in a file of its own that other readers ignore.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace stasis {

constexpr std::string_view kManifestFileName = "stasis-manifest";

struct ManifestEntry {
  uint64_t size_bytes = 0;
  std::optional<uint64_t> checksum;  // XXH3-64 of the content; raw files have none

  bool operator==(const ManifestEntry&) const = default;
};

// By file name.
using Manifest = std::map<std::string, ManifestEntry, std::less<>>;

uint64_t image_checksum(std::string_view bytes);
std::string encode_manifest(const Manifest& manifest);
// Throws IMAGE_CORRUPT or IMAGE_TRUNCATED.
Manifest decode_manifest(std::string_view text, const std::string& shown_name);

}  // namespace stasis

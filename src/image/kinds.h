// The one table of image files: what each is called and how it opens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stasis {

enum class ImageKind : uint8_t {
#define KIND(kind, pattern, framing, magic, scope) kind,
#include "image/kinds.def"
#undef KIND
};

enum class ImageFraming : uint8_t {
  COMMON,    // common magic, specific magic, records
  SPECIFIC,  // specific magic only, records (the inventory)
  SERVICE,   // service magic, specific magic, records
  RAW,       // no magic, no records: the content is the payload
};

enum class ImageScope : uint8_t {
  WHOLE_DUMP,      // at most one in a directory
  KEYED,           // one for each id
  WORK_DIRECTORY,  // lives in the work directory
  SUPERSEDED,      // read for old images, never written
};

constexpr uint32_t kImageCommonMagic = 0x54564319;
constexpr uint32_t kImageServiceMagic = 0x55105940;

struct ImageKindInfo {
  ImageKind kind;
  std::string_view name;          // "CORE"
  std::string_view file_pattern;  // "core-%u.img"
  ImageFraming framing;
  uint32_t magic;  // 0 for raw files
  ImageScope scope;
};

const ImageKindInfo& image_kind_info(ImageKind kind);
// All kinds, in the order of kinds.def.
const std::vector<ImageKindInfo>& all_image_kinds();

// "core-42.img"; the id is not used by kinds that have one file.
std::string image_file_name(ImageKind kind, uint64_t id = 0);

}  // namespace stasis

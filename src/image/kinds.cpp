#include "image/kinds.h"

#include <fmt/format.h>

namespace stasis {

const std::vector<ImageKindInfo>& all_image_kinds() {
  static const std::vector<ImageKindInfo> kinds = {
#define KIND(kind, pattern, framing, magic, scope) \
  {ImageKind::kind, #kind, pattern, ImageFraming::framing, magic, ImageScope::scope},
#include "image/kinds.def"
#undef KIND
  };
  return kinds;
}

const ImageKindInfo& image_kind_info(ImageKind kind) {
  return all_image_kinds()[static_cast<size_t>(kind)];
}

std::string image_file_name(ImageKind kind, uint64_t id) {
  std::string_view pattern = image_kind_info(kind).file_pattern;
  size_t percent = pattern.find('%');
  if (percent == std::string_view::npos) return std::string(pattern);
  std::string name(pattern.substr(0, percent));
  fmt::format_int decimal(id);
  if (pattern[percent + 1] == 'x') {
    name += fmt::format("{:x}", id);
  } else {
    name.append(decimal.data(), decimal.size());
  }
  name += pattern.substr(percent + 2);
  return name;
}

}  // namespace stasis

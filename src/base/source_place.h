// Where a call stands in the source. A function that takes `SourcePlace place = SourcePlace::here()` as its last
// parameter learns the place of its caller. (std::source_location is missing from clang 14 with libstdc++, which lint
// and the fuzzers use.)
#pragma once

#include <string_view>

namespace stasis {

struct SourcePlace {
  const char* path;
  int line;

  static constexpr SourcePlace here(const char* path = __builtin_FILE(), int line = __builtin_LINE()) {
    return {path, line};
  }
  // Without directories.
  constexpr std::string_view file() const {
    const std::string_view whole(path);
    return whole.substr(whole.rfind('/') + 1);
  }
};

}  // namespace stasis

#include "image/manifest.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace stasis {
namespace {

const Manifest kSample = {{"core-1.img", {100, 0x123456789abcdef0}},
                          {"name with spaces.img", {7, 0}},
                          {"pages-1.img", {1u << 30, std::nullopt}}};

bool accepted(std::string_view text) {
  try {
    decode_manifest(text, "m");
    return true;
  } catch (const Error& e) {
    EXPECT_TRUE(e.reason() == Reason::IMAGE_CORRUPT || e.reason() == Reason::IMAGE_TRUNCATED);
    EXPECT_EQ(e.object(), "m");
    return false;
  }
}

std::string sealed(const std::string& lines, size_t count) {
  char last[64];
  std::snprintf(last, sizeof last, "end %zu %016lx\n", count, image_checksum(lines));
  return lines + last;
}

TEST(Manifest, SurvivesItsText) {
  EXPECT_EQ(decode_manifest(encode_manifest(kSample), "m"), kSample);
  EXPECT_EQ(decode_manifest(encode_manifest({}), "m"), Manifest());
}

TEST(Manifest, AnyDamageIsFound) {
  std::string good = encode_manifest(kSample);
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(accepted(good.substr(0, i))) << i;
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(accepted(bad)) << i;
  }
  EXPECT_FALSE(accepted(good + "x"));
}

TEST(Manifest, BadLinesAreRefusedEvenWithTheRightChecksum) {
  const std::string first = "stasis-manifest 1\n";
  EXPECT_TRUE(accepted(sealed(first + "1 - a\n", 1)));
  EXPECT_FALSE(accepted(sealed(first + "1 - a\n", 2)));
  EXPECT_FALSE(accepted(sealed(first + "1 - ../a\n", 1)));
  EXPECT_FALSE(accepted(sealed(first + "1 - a\n2 - a\n", 2)));
  EXPECT_FALSE(accepted(sealed(first + "-1 - a\n", 1)));
  EXPECT_FALSE(accepted(sealed(first + "1 xyz a\n", 1)));
  EXPECT_FALSE(accepted(sealed(first + "1 -\n", 1)));
  EXPECT_FALSE(accepted(sealed(first + "\n", 1)));
}

}  // namespace
}  // namespace stasis

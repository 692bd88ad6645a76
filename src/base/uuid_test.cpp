#include "base/uuid.h"

#include <gtest/gtest.h>

#include <regex>

namespace stasis {
namespace {

TEST(Uuid, HasItsShapeAndIsNew) {
  const std::string one = random_uuid(), other = random_uuid();
  const std::regex shape("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  EXPECT_TRUE(std::regex_match(one, shape)) << one;
  EXPECT_TRUE(std::regex_match(other, shape)) << other;
  EXPECT_NE(one, other);
}

}  // namespace
}  // namespace stasis

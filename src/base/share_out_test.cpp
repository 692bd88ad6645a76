#include "base/share_out.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace stasis {
namespace {

TEST(ShareOut, EachThingOnce) {
  for (const size_t count : {0u, 1u, 7u, 100u, 1001u}) {
    std::vector<std::atomic<int>> calls(count);
    share_out(count, 10, [&](size_t from, size_t to) {
      for (size_t i = from; i < to; ++i) ++calls[i];
    });
    for (const auto& n : calls) EXPECT_EQ(n, 1);
  }
}

TEST(ShareOut, FailuresAreTold) {
  for (const size_t count : {5u, 1000u})
    EXPECT_THROW(share_out(count, 10, [&](size_t, size_t) { throw std::runtime_error("x"); }), std::runtime_error);
}

}  // namespace
}  // namespace stasis

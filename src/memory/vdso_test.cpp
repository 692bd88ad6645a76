#include "memory/vdso.h"

#include <gtest/gtest.h>

#include <cstring>

#include "memory/test_child.h"

namespace stasis {
namespace {

TEST(Vdso, LayoutFromAList) {
  EXPECT_FALSE(vdso_layout({}).present());
  const StoppedChild child([] {});
  const Vdso own = own_vdso();
  EXPECT_EQ(vdso_layout(classify(child.smaps())), own.layout);
}

class VdsoDifference : public testing::Test {
 protected:
  void SetUp() override {
    own_ = own_vdso();
    if (!own_.layout.present()) GTEST_SKIP() << "this process has no vdso";
    dumped_ = own_;
    dumped_.layout.vvar_start += 0x10000;
    dumped_.layout.vdso_start += 0x10000;
  }
  Vdso own_, dumped_;
};

TEST_F(VdsoDifference, TheSameAtAnotherAddress) {
  EXPECT_EQ(vdso_difference(dumped_, own_), "");
  // A task that unmapped it needs none.
  EXPECT_EQ(vdso_difference({}, own_), "");
}

TEST_F(VdsoDifference, WhatFollowsTheImageMeansNothing) {
  const size_t bytes = vdso_meaningful_bytes(own_.image);
  ASSERT_GT(bytes, 64u);
  ASSERT_LE(bytes, own_.image.size());
  if (bytes < dumped_.image.size()) dumped_.image.back() = std::byte{0xcc};
  EXPECT_EQ(vdso_difference(dumped_, own_), "");
  dumped_.image[bytes - 1] ^= std::byte{1};
  EXPECT_NE(vdso_difference(dumped_, own_), "");
}

TEST_F(VdsoDifference, AnotherKernel) {
  Vdso other = dumped_;
  other.image[0x100] ^= std::byte{1};
  EXPECT_NE(vdso_difference(other, own_), "");
  other = dumped_;
  other.layout.vvar_size += 0x1000;
  EXPECT_NE(vdso_difference(other, own_), "");
  other = dumped_;
  other.image.resize(10);
  EXPECT_NE(vdso_difference(other, own_), "");
  EXPECT_NE(vdso_difference(dumped_, {}), "");
}

TEST(VdsoImage, IsLookedAtWithCare) {
  EXPECT_EQ(vdso_meaningful_bytes({}), 0u);
  std::vector<std::byte> image(4096, std::byte{0xff});
  EXPECT_EQ(vdso_meaningful_bytes(image), 0u);
  const char magic[] = {0x7f, 'E', 'L', 'F'};
  std::memcpy(image.data(), magic, sizeof(magic));
  EXPECT_LE(vdso_meaningful_bytes(image), image.size());
}

}  // namespace
}  // namespace stasis

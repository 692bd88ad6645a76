#include "objects/task/xsave_x86_64.h"

#include <gtest/gtest.h>

#include <cstring>

#include "arch/arch.h"
#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

// A CPU with AVX and protection keys only, and one with AVX-512, which keeps the keys elsewhere.
XsaveLayout small_cpu() {
  XsaveLayout layout{.features = 0x207, .bytes = 840};
  layout.components[2] = {.offset = 576, .bytes = 256};
  layout.components[9] = {.offset = 832, .bytes = 8};
  return layout;
}

XsaveLayout large_cpu() {
  XsaveLayout layout{.features = 0x2e7, .bytes = 2696};
  layout.components[2] = {.offset = 576, .bytes = 256};
  layout.components[5] = {.offset = 1088, .bytes = 64};
  layout.components[6] = {.offset = 1152, .bytes = 512};
  layout.components[7] = {.offset = 1664, .bytes = 1024};
  layout.components[9] = {.offset = 2688, .bytes = 8};
  return layout;
}

std::vector<std::byte> filled(const XsaveLayout& layout, uint64_t in_use) {
  std::vector<std::byte> area(layout.bytes);
  for (size_t i = 0; i < 416; ++i) area[i] = std::byte(i * 7 + 1);
  std::memcpy(area.data() + 464, &layout.features, 8);
  std::memcpy(area.data() + 512, &in_use, 8);
  for (size_t c = 2; c < 64; ++c)
    if ((in_use >> c & 1) != 0)
      for (size_t i = 0; i < layout.components[c].bytes; ++i)
        area[layout.components[c].offset + i] = std::byte(c * 31 + i + 1);
  return area;
}

pb::user_x86_fpregs_entry encode(const std::vector<std::byte>& area, const XsaveLayout& layout) {
  pb::user_x86_fpregs_entry out;
  encode_xsave(area, layout, out);
  return out;
}

TEST(Xsave, ComesBackByteForByteOnTheSameCpu) {
  for (const XsaveLayout& layout : {small_cpu(), large_cpu()}) {
    const auto area = filled(layout, layout.features);
    EXPECT_EQ(decode_xsave(encode(area, layout), layout), area);
    const auto little = filled(layout, 0);
    EXPECT_EQ(decode_xsave(encode(little, layout), layout), little);
  }
}

TEST(Xsave, HasThePartsOfTheImageFormat) {
  const auto area = filled(large_cpu(), 0x2e7);
  const pb::user_x86_fpregs_entry out = encode(area, large_cpu());
  EXPECT_EQ(out.st_space_size(), 32);
  EXPECT_EQ(out.xmm_space_size(), 64);
  EXPECT_EQ(out.padding_size(), 24);
  EXPECT_EQ(out.xsave().xstate_bv(), 0x2e7u);
  EXPECT_EQ(out.xsave().ymmh_space_size(), 64);
  EXPECT_EQ(out.xsave().bndreg_state_size(), 0);  // this CPU has none
  EXPECT_EQ(out.xsave().opmask_reg_size(), 8);
  EXPECT_EQ(out.xsave().zmm_upper_size(), 64);
  EXPECT_EQ(out.xsave().hi16_zmm_size(), 128);
  EXPECT_EQ(out.xsave().pkru_size(), 2);
}

TEST(Xsave, MovesComponentsToWhereTheOtherCpuHasThem) {
  EXPECT_EQ(decode_xsave(encode(filled(small_cpu(), 0x207), small_cpu()), large_cpu()), filled(large_cpu(), 0x207));
}

TEST(Xsave, UnusedComponentsDoNotHinderALesserCpu) {
  auto area = filled(large_cpu(), 0x207);
  EXPECT_EQ(decode_xsave(encode(area, large_cpu()), small_cpu()), filled(small_cpu(), 0x207));
  // Marked as in use, but in its initial state.
  const uint64_t marked = 0x2e7;
  std::memcpy(area.data() + 512, &marked, 8);
  EXPECT_EQ(decode_xsave(encode(area, large_cpu()), small_cpu()), filled(small_cpu(), 0x207));
}

TEST(Xsave, NamesTheComponentThatTheCpuLacks) {
  try {
    decode_xsave(encode(filled(large_cpu(), 0x27), large_cpu()), small_cpu());
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::CPU_LACKS_FEATURE);
    EXPECT_NE(e.cause().find("AVX-512 mask registers"), std::string::npos) << e.cause();
  }
}

TEST(Xsave, RefusesWhatImagesCannotHold) {
  XsaveLayout layout = small_cpu();
  layout.features |= uint64_t{1} << 18;
  layout.components[18] = {.offset = 840, .bytes = 8};
  layout.bytes = 848;
  auto area = filled(layout, 0x207 | uint64_t{1} << 18);
  EXPECT_REASON(Reason::UNSUPPORTED_STATE, refuse_unsaved_components(area, layout));
  std::memset(area.data() + 840, 0, 8);
  EXPECT_NO_THROW(refuse_unsaved_components(area, layout));
  EXPECT_NO_THROW(refuse_unsaved_components(filled(small_cpu(), 0x207), small_cpu()));
}

TEST(Xsave, RefusesNonsense) {
  const auto good = encode(filled(large_cpu(), 0x2e7), large_cpu());
  const auto refused = [&](auto change) {
    auto bad = good;
    change(bad);
    EXPECT_REASON(Reason::IMAGE_CORRUPT, decode_xsave(bad, large_cpu()));
  };
  refused([](auto& e) { e.mutable_st_space()->Truncate(31); });
  refused([](auto& e) { e.clear_xmm_space(); });
  refused([](auto& e) { e.set_cwd(0x10000); });
  refused([](auto& e) { e.mutable_xsave()->add_opmask_reg(1); });
  refused([](auto& e) { e.mutable_xsave()->clear_ymmh_space(); });
}

TEST(Xsave, KnowsThisCpu) {
  const XsaveLayout& layout = XsaveLayout::of_this_cpu();
  EXPECT_EQ(layout.bytes, arch::extended_state_size());
  EXPECT_EQ(layout.features & 3, 3u);
  for (size_t i = 2; i < 63; ++i) {
    if ((layout.features >> i & 1) == 0) continue;
    EXPECT_GE(layout.components[i].offset, 576u) << i;
    EXPECT_LE(layout.components[i].offset + layout.components[i].bytes, layout.bytes) << i;
  }
}

}  // namespace
}  // namespace stasis

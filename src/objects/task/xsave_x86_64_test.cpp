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
    const auto little = filled(layout, 2);
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

// A CPU with AMX: 11,008 bytes, most of them tiles, which the kernel gives on demand.
XsaveLayout cpu_with_tiles() {
  XsaveLayout layout = large_cpu();
  layout.features |= uint64_t{3} << 17;
  layout.on_demand = uint64_t{1} << 18;
  layout.components[17] = {.offset = 2752, .bytes = 64};
  layout.components[18] = {.offset = 2816, .bytes = 8192};
  layout.bytes = 11008;
  return layout;
}

TEST(Xsave, ComponentsWithoutAPlaceInTheCoreAreKeptBesideIt) {
  const XsaveLayout layout = cpu_with_tiles();
  const auto area = filled(layout, layout.features);
  const auto extras = extra_components(area, layout);
  ASSERT_EQ(extras.size(), 2u);
  EXPECT_EQ(extras[0].number, 17u);
  EXPECT_EQ(extras[1].number, 18u);
  EXPECT_EQ(extras[1].bytes.size(), 8192u);
  const auto core = encode(area, layout);
  EXPECT_EQ(core.xsave().xstate_bv(), 0x2e7u) << "readers take marked components from the core";
  auto back = decode_xsave(core, layout);
  EXPECT_EQ(components_in_use(back), 0x2e7u);
  for (const ExtraComponent& extra : extras) place_extra(extra, layout, back);
  EXPECT_EQ(back, area);
}

TEST(Xsave, TilesInTheirInitialStateAreNotKept) {
  const XsaveLayout layout = cpu_with_tiles();
  auto area = filled(layout, 0x207);
  EXPECT_TRUE(extra_components(area, layout).empty());
  const uint64_t marked = 0x207 | uint64_t{1} << 18;
  std::memcpy(area.data() + 512, &marked, 8);
  EXPECT_TRUE(extra_components(area, layout).empty());
}

TEST(Xsave, TilesNeedACpuThatHasThem) {
  const XsaveLayout layout = cpu_with_tiles();
  const auto extras = extra_components(filled(layout, layout.features), layout);
  std::vector<std::byte> area(large_cpu().bytes);
  try {
    place_extra(extras[1], large_cpu(), area);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::CPU_LACKS_FEATURE);
    EXPECT_NE(e.cause().find("AMX tiles"), std::string::npos) << e.cause();
  }
}

TEST(Xsave, RefusesBadExtraComponents) {
  const XsaveLayout layout = cpu_with_tiles();
  std::vector<std::byte> area(layout.bytes);
  for (const ExtraComponent& bad : {ExtraComponent{18, std::vector<std::byte>(8191)},
                                    {18, {}},
                                    {5, std::vector<std::byte>(64)},
                                    {64, {}},
                                    {1u << 31, {}}})
    EXPECT_REASON(Reason::IMAGE_CORRUPT, place_extra(bad, layout, area));
}

TEST(Xsave, RefusesAComponentWhosePlaceIsNotKnown) {
  EXPECT_REASON(Reason::UNSUPPORTED_STATE,
                extra_components(filled(small_cpu(), 0x207 | uint64_t{1} << 62), small_cpu()));
}

TEST(Xsave, MxcsrIsKeptWhenTheRegistersAreNotMarked) {
  auto area = filled(large_cpu(), 1);
  std::memset(area.data() + 160, 0, 256);  // as ptrace tells it: the initial values
  const uint32_t mxcsr = 0xffc0;
  std::memcpy(area.data() + 24, &mxcsr, sizeof mxcsr);
  auto back = decode_xsave(encode(area, large_cpu()), large_cpu());
  EXPECT_EQ(components_in_use(back), 3u) << "ptrace takes it with a marked component only";
  const uint64_t unmarked = 1;
  std::memcpy(back.data() + 512, &unmarked, 8);
  EXPECT_EQ(back, area);
  const uint32_t initial = 0x1f80;
  std::memcpy(area.data() + 24, &initial, sizeof initial);
  EXPECT_EQ(decode_xsave(encode(area, large_cpu()), large_cpu()), area);
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
  EXPECT_EQ(layout.on_demand & ~layout.features, 0u);
  for (size_t i = 2; i < 63; ++i) {
    if ((layout.features >> i & 1) == 0) continue;
    EXPECT_GE(layout.components[i].offset, 576u) << i;
    EXPECT_LE(layout.components[i].offset + layout.components[i].bytes, layout.bytes) << i;
  }
}

}  // namespace
}  // namespace stasis

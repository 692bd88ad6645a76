#include <gtest/gtest.h>

#include "base/test_error.h"
#include "objects/cpu_info.h"

namespace stasis {
namespace {

constexpr CpuChecks kNothing{.fpu = false, .cpu = false, .ins = false};
constexpr CpuChecks kFpu{.fpu = true, .cpu = false, .ins = false};
constexpr CpuChecks kInstructions{.fpu = false, .cpu = false, .ins = true};
constexpr CpuChecks kAll{.fpu = true, .cpu = true, .ins = true};
constexpr int kAvx512Word = 9;
constexpr uint32_t kAvx512f = 1u << 16, kSmep = 1u << 7;

pb::cpuinfo_entry without(int word, uint32_t bits) {
  pb::cpuinfo_entry cpu = describe_this_cpu();
  auto& words = *cpu.mutable_x86_entry(0)->mutable_capability();
  words[word] &= ~bits;
  return cpu;
}

pb::cpuinfo_entry with(int word, uint32_t bits) {
  pb::cpuinfo_entry cpu = describe_this_cpu();
  (*cpu.mutable_x86_entry(0)->mutable_capability())[word] |= bits;
  return cpu;
}

TEST(CpuInfo, DescribesThisCpu) {
  const pb::cpuinfo_entry cpu = describe_this_cpu();
  const pb::cpuinfo_x86_entry& x86 = cpu.x86_entry(0);
  EXPECT_EQ(x86.capability_ver(), 2u);
  EXPECT_EQ(x86.capability_size(), 19);
  EXPECT_NE(x86.capability(0) & 1u << 26, 0u) << "every 64-bit CPU has SSE2";
  EXPECT_GE(x86.cpu_family(), 6u);
  EXPECT_EQ(x86.xfeatures_mask() & 3, 3u);
  EXPECT_GE(x86.xsave_size_max(), x86.xsave_size());
}

TEST(CpuInfo, EveryCpuIsAsGoodAsItself) {
  EXPECT_NO_THROW(require_features(describe_this_cpu(), describe_this_cpu(), kAll));
}

TEST(CpuInfo, WhatIsThereBeyondDoesNotMatter) {
  EXPECT_NO_THROW(require_features(without(kAvx512Word, kAvx512f | kSmep), with(kAvx512Word, kAvx512f | kSmep), kAll));
}

TEST(CpuInfo, NamesAMissingInstruction) {
  const auto saved = with(kAvx512Word, kAvx512f), own = without(kAvx512Word, kAvx512f);
  EXPECT_NO_THROW(require_features(saved, own, kNothing));
  EXPECT_NO_THROW(require_features(saved, own, kFpu));
  const Error e = error_of([&] { require_features(saved, own, kInstructions); });
  EXPECT_EQ(e.reason(), Reason::CPU_LACKS_FEATURE);
  EXPECT_NE(e.cause().find("avx512f"), std::string::npos) << e.cause();
}

TEST(CpuInfo, WhatOnlyTheKernelUsesIsComparedOnRequest) {
  const auto saved = with(kAvx512Word, kSmep), own = without(kAvx512Word, kSmep);
  EXPECT_NO_THROW(require_features(saved, own, kInstructions));
  EXPECT_EQ(error_of([&] { require_features(saved, own, kAll); }).reason(), Reason::CPU_LACKS_FEATURE);
}

TEST(CpuInfo, NamesAMissingComponent) {
  auto saved = describe_this_cpu(), own = saved;
  saved.mutable_x86_entry(0)->set_xfeatures_mask(own.x86_entry(0).xfeatures_mask() | uint64_t{1} << 18);
  own.mutable_x86_entry(0)->set_xfeatures_mask(3);
  EXPECT_NO_THROW(require_features(saved, own, kInstructions));
  const Error e = error_of([&] { require_features(saved, own, kFpu); });
  EXPECT_NE(e.cause().find("AMX tiles"), std::string::npos) << e.cause();
}

TEST(CpuInfo, AnotherVendorIsComparedOnRequest) {
  auto saved = describe_this_cpu();
  saved.mutable_x86_entry(0)->set_vendor_id(pb::cpuinfo_x86_entry::UNKNOWN);
  EXPECT_NO_THROW(require_features(saved, describe_this_cpu(), kInstructions));
}

TEST(CpuInfo, RefusesNonsense) {
  EXPECT_EQ(error_of([] { require_features({}, describe_this_cpu(), kAll); }).reason(), Reason::IMAGE_ARCH);
  auto bad = describe_this_cpu();
  bad.mutable_x86_entry(0)->mutable_capability()->Truncate(18);
  EXPECT_EQ(error_of([&] { require_features(bad, describe_this_cpu(), kAll); }).reason(), Reason::IMAGE_CORRUPT);
  bad = describe_this_cpu();
  bad.mutable_x86_entry(0)->set_capability_ver(3);
  EXPECT_EQ(error_of([&] { require_features(bad, describe_this_cpu(), kAll); }).reason(), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

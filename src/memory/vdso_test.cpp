#include "memory/vdso.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <cstring>

#include "base/test_error.h"
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
  EXPECT_TRUE(same_vdso_code(dumped_, own_));
  dumped_.image[bytes - 1] ^= std::byte{1};
  EXPECT_FALSE(same_vdso_code(dumped_, own_));
}

TEST_F(VdsoDifference, OtherCodeWithTheSameFunctionsFits) {
  const std::vector<VdsoFunction> functions = vdso_functions(own_.image);
  ASSERT_FALSE(functions.empty());
  dumped_.image[functions.front().offset] ^= std::byte{1};
  EXPECT_FALSE(same_vdso_code(dumped_, own_));
  EXPECT_EQ(vdso_difference(dumped_, own_), "");
}

TEST_F(VdsoDifference, AnotherKernel) {
  Vdso other = dumped_;
  other.layout.vvar_size += 0x1000;
  EXPECT_NE(vdso_difference(other, own_), "");
  other = dumped_;
  other.layout.vvar_start -= 0x1000;
  EXPECT_NE(vdso_difference(other, own_), "");
  other = dumped_;
  other.image.resize(10);
  EXPECT_NE(vdso_difference(other, own_), "");
  EXPECT_NE(vdso_difference(dumped_, {}), "");
}

// The functions that the vdso of Linux 6.1.192 of Debian 12 exports, in an image that holds nothing else.
constexpr size_t kOldBytes = 8192;
const VdsoFunction kOldFunctions[] = {
    {"__vdso_gettimeofday", 0x780},
    {"gettimeofday", 0x780},
    {"__vdso_time", 0x930},
    {"time", 0x930},
    {"__vdso_clock_gettime", 0x960},
    {"clock_gettime", 0x960},
    {"__vdso_clock_getres", 0xbc0},
    {"clock_getres", 0xbc0},
    {"__vdso_getcpu", 0xc20},
    {"getcpu", 0xc20},
    {"__vdso_sgx_enter_enclave", 0xc50},
};

template <class T>
void put(std::vector<std::byte>& image, uint64_t at, const T& value) {
  std::memcpy(image.data() + at, &value, sizeof value);
}

std::vector<std::byte> old_image() {
  constexpr uint64_t kHash = 0x120, kSymbols = 0x140, kStrings = 0x2a0, kDynamic = 0x440;
  std::vector<std::byte> image(kOldBytes, std::byte{0});
  Elf64_Ehdr elf{};
  std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_CLASS] = ELFCLASS64;
  elf.e_phoff = sizeof elf;
  elf.e_phnum = 1;
  put(image, 0, elf);
  put(image, elf.e_phoff, Elf64_Phdr{.p_type = PT_DYNAMIC, .p_offset = kDynamic});
  const Elf64_Dyn dynamic[] = {{DT_HASH, {kHash}}, {DT_SYMTAB, {kSymbols}}, {DT_STRTAB, {kStrings}}, {DT_NULL, {0}}};
  put(image, kDynamic, dynamic);
  uint64_t symbol = kSymbols + sizeof(Elf64_Sym), text = 1;
  for (const VdsoFunction& f : kOldFunctions) {
    Elf64_Sym s{};
    s.st_name = static_cast<uint32_t>(text);
    s.st_info = STT_FUNC;
    s.st_shndx = 11;
    s.st_value = f.offset;
    put(image, symbol, s);
    symbol += sizeof s;
    std::memcpy(image.data() + kStrings + text, f.name.c_str(), f.name.size() + 1);
    text += f.name.size() + 1;
  }
  put(image, kHash + 4, static_cast<uint32_t>(1 + std::size(kOldFunctions)));
  return image;
}

class VdsoJumps : public testing::Test {
 protected:
  void SetUp() override {
    if (!own_.layout.present()) GTEST_SKIP() << "this process has no vdso";
    memory_ = mmap(nullptr, kOldBytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory_, MAP_FAILED);
  }
  void TearDown() override {
    if (memory_ != nullptr) munmap(memory_, kOldBytes);
  }
  void load(const Vdso& own) {
    const auto image = vdso_with_jumps(old_, own, own.layout.vvar_start);
    std::memcpy(memory_, image.data(), image.size());
  }
  template <class F>
  F function(uint64_t offset) {
    return reinterpret_cast<F>(reinterpret_cast<uintptr_t>(memory_) + offset);
  }
  void expect_right_times() {
    timespec now{}, told{};
    clock_gettime(CLOCK_REALTIME, &now);
    EXPECT_EQ(function<int (*)(clockid_t, timespec*)>(0x960)(CLOCK_REALTIME, &told), 0);
    EXPECT_NEAR(static_cast<double>(told.tv_sec), static_cast<double>(now.tv_sec), 1);
    EXPECT_EQ(function<int (*)(clockid_t, timespec*)>(0xbc0)(CLOCK_REALTIME, &told), 0);
    EXPECT_EQ(told.tv_sec, 0);
    EXPECT_NEAR(static_cast<double>(function<time_t (*)(time_t*)>(0x930)(nullptr)), static_cast<double>(now.tv_sec), 1);
    timeval day{};
    EXPECT_EQ(function<int (*)(timeval*, void*)>(0x780)(&day, nullptr), 0);
    EXPECT_NEAR(static_cast<double>(day.tv_sec), static_cast<double>(now.tv_sec), 1);
    unsigned cpu = ~0u;
    EXPECT_EQ(function<long (*)(unsigned*, unsigned*, void*)>(0xc20)(&cpu, nullptr, nullptr), 0);
    EXPECT_LT(cpu, 65536u);
    EXPECT_EQ(function<long (*)()>(0xc50)(), -ENOSYS) << "nobody else has this function";
  }

  Vdso own_ = own_vdso();
  Vdso old_{{0x7000'0000'0000, 0x4000, 0x7000'0000'4000, kOldBytes}, old_image()};
  void* memory_ = nullptr;
};

TEST_F(VdsoJumps, FunctionsOfTheOldImageGoOnInThePresentOne) {
  const auto functions = vdso_functions(old_.image);
  EXPECT_EQ(functions.size(), std::size(kOldFunctions));
  EXPECT_NE(vdso_difference(old_, own_), "");
  load(own_);
  expect_right_times();
}

TEST_F(VdsoJumps, WithoutAnyVdsoTheyMakeSystemCalls) {
  load({});
  expect_right_times();
}

TEST_F(VdsoJumps, TheMarkIsFoundAgain) {
  const auto image = vdso_with_jumps(old_, own_, 0x10000);
  EXPECT_EQ(vdso_functions(image), vdso_functions(old_.image)) << "on its own kernel it fits in its place again";
  const auto area = [](uint64_t start, uint64_t bytes, uint32_t prot) {
    Vma v;
    v.start = start;
    v.end = start + bytes;
    v.prot = prot;
    v.flags = MAP_PRIVATE | MAP_ANONYMOUS;
    v.status = vma_status::anon_private | vma_status::regular;
    return v;
  };
  std::vector<Vma> areas = {area(0x5000, 0x2000, PROT_READ | PROT_EXEC),
                            area(old_.layout.vvar_start, old_.layout.vvar_size, PROT_READ),
                            area(old_.layout.vdso_start, old_.layout.vdso_size, PROT_READ | PROT_EXEC)};
  const auto read = [&](const std::vector<std::byte>& there) {
    return [&](uint64_t start, uint64_t end) {
      if (start != old_.layout.vdso_start) return std::vector<std::byte>(end - start);
      return std::vector<std::byte>(there.begin(), there.begin() + static_cast<ptrdiff_t>(end - start));
    };
  };
  EXPECT_EQ(take_marked_vdso(areas, read(old_.image)), std::nullopt) << "it was never given jumps";
  EXPECT_EQ(take_marked_vdso(areas, read(image)), old_.layout);
  EXPECT_FALSE(areas[0].has(vma_status::vdso));
  EXPECT_TRUE(areas[1].has(vma_status::vvar));
  EXPECT_EQ(vdso_layout(areas), old_.layout);
}

TEST_F(VdsoJumps, ImagesThatCannotBeUsedAreRefused) {
  const auto refused = [&](const std::vector<std::byte>& image) {
    EXPECT_EQ(error_of([&] {
                vdso_with_jumps({old_.layout, image}, own_, 0x10000);
              }).reason(),
              Reason::IMAGE_UNSUPPORTED);
  };
  refused({});
  refused(std::vector<std::byte>(kOldBytes));
  std::vector<std::byte> crowded = old_.image;
  put(crowded, 0x140 + sizeof(Elf64_Sym) + offsetof(Elf64_Sym, st_value), uint64_t{0x930 - 4});
  refused(crowded);
  std::vector<std::byte> outside = old_.image;
  put(outside, 0x140 + sizeof(Elf64_Sym) + offsetof(Elf64_Sym, st_value), uint64_t{kOldBytes});
  refused(outside);
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

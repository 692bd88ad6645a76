#include "tracee/area.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "arch/arch.h"
#include "base/fd.h"
#include "kernel/proc.h"
#include "tracee/borrowed.h"

namespace stasis {
namespace {

constexpr size_t kPage = 4096;
constexpr uint64_t kAt = 0x7000'0000'0000;

TEST(BatchArea, PartsLieInsideAndApart) {
  for (const unsigned slots : {1u, 2u, 33u, 200u}) {
    const BatchArea area(kAt, slots, 20000, 5000);
    EXPECT_EQ(area.bytes(), BatchArea::bytes_for(slots, 20000, 5000));
    EXPECT_EQ(area.code_bytes() % kPage, 0u);
    EXPECT_EQ(area.slots_bytes() % kPage, 0u);
    EXPECT_EQ(area.slots_address(), kAt + area.code_bytes());
    EXPECT_EQ(area.end(), area.slots_address() + area.slots_bytes());
    EXPECT_EQ(area.loop(), kAt);
    EXPECT_GE(area.heal_code(0), area.loop() + arch::batch_loop().size());

    // Code and slots follow each other without touching.
    uint64_t code_end = area.loop() + arch::batch_loop().size(), slot_end = area.slots_address();
    for (unsigned i = 0; i < slots; ++i) {
      EXPECT_GE(area.heal_code(i), code_end);
      code_end = area.heal_code(i) + arch::heal_code_size();
      EXPECT_GE(area.slot(i), slot_end);
      EXPECT_EQ(area.slot(i) % kPage, 0u) << "slots of two threads share no page";
      EXPECT_GE(area.batch(i), area.slot(i) + sizeof(arch::SlotHead));
      slot_end = area.batch(i) + area.batch_capacity(i);
    }
    EXPECT_LE(code_end, area.slots_address());
    EXPECT_EQ(slot_end, area.end());
  }
}

TEST(BatchArea, SlotsHaveTheRoomAskedFor) {
  const BatchArea area(kAt, 3, 20000, 4096);
  EXPECT_GE(area.batch_capacity(0) + sizeof(arch::SlotHead) + 16, 20000u);
  EXPECT_EQ(area.batch_capacity(1), area.batch_capacity(2));
  EXPECT_LT(area.batch_capacity(1), 4096u) << "the head takes its part";
}

TEST(BatchArea, CodeImageHoldsTheLoopAndOneHealCodePerSlot) {
  const BatchArea area(kAt, 4, 8192, 4096);
  const auto image = area.code_image();
  ASSERT_LE(image.size(), area.code_bytes());
  EXPECT_TRUE(BatchArea::looks_like_code(image));
  for (unsigned i = 0; i < 4; ++i) {
    const auto want = arch::heal_code(area.heal_code(i), area.slot(i));
    EXPECT_EQ(std::memcmp(image.data() + (area.heal_code(i) - kAt), want.data(), want.size()), 0) << i;
  }
  EXPECT_EQ(area.reported(), area.loop() + arch::batch_reported_offset());
}

TEST(BatchArea, LeavesRoomForBootstrapsOfLaterControllers) {
  const BatchArea area(kAt, 32, 8192, 4096);
  EXPECT_GE(area.code_bytes() - area.code_image().size(), 2 * arch::bootstrap_size(3, false));
}

TEST(BatchArea, OnlyTheLoopLooksLikeCode) {
  std::vector<std::byte> bytes(arch::batch_loop().begin(), arch::batch_loop().end());
  EXPECT_TRUE(BatchArea::looks_like_code(bytes));
  bytes.back() ^= std::byte{1};
  EXPECT_FALSE(BatchArea::looks_like_code(bytes));
  bytes.pop_back();
  EXPECT_FALSE(BatchArea::looks_like_code(bytes)) << "a short piece is no loop";
}

// ---- find_free_range -------------------------------------------------------------------------------------

Mapping mapping(uint64_t start, uint64_t end, std::string name = {}) {
  Mapping m;
  m.start = start;
  m.end = end;
  m.name = std::move(name);
  return m;
}

TEST(FindFreeRange, AnEmptySpaceStartsAboveTheLowestAddresses) {
  const uint64_t at = find_free_range({}, kPage);
  EXPECT_GE(at, 0x10000u) << "vm.mmap_min_addr";
  EXPECT_EQ(at % kPage, 0u);
}

TEST(FindFreeRange, KeepsAPageFromNeighbours) {
  // The hole is three pages: one page fits with a page on either side, two do not.
  const Mapping list[] = {mapping(0x1000, 0x10000000), mapping(0x10003000, 0x20000000)};
  EXPECT_EQ(find_free_range(list, kPage), 0x10001000u);
  EXPECT_EQ(find_free_range(list, 2 * kPage), 0x20001000u);
}

TEST(FindFreeRange, KeepsFarFromWhatGrowsDown) {
  Mapping stack = mapping(0x10100000, 0x20000000, "[stack]");
  const Mapping low = mapping(0x1000, 0x10000000);
  EXPECT_EQ(find_free_range(std::vector{low, stack}, kPage), 0x20001000u) << "a megabyte below a stack is its room";
  stack.name.clear();
  EXPECT_EQ(find_free_range(std::vector{low, stack}, kPage), 0x10001000u);
  stack.vm_flags = vm_flag_bit(VmFlag::gd);
  EXPECT_EQ(find_free_range(std::vector{low, stack}, kPage), 0x20001000u);
}

TEST(FindFreeRange, LooksBehindTheLastMapping) {
  const Mapping list[] = {mapping(0x1000, 0x7f0000000000)};
  EXPECT_EQ(find_free_range(list, kPage), 0x7f0000001000u);
}

TEST(FindFreeRange, SaysWhenThereIsNone) {
  const Mapping list[] = {mapping(0x1000, 0x7fffffffe000)};
  EXPECT_EQ(find_free_range(list, 16 * kPage), 0u);
  EXPECT_EQ(find_free_range(std::vector{mapping(0x100000, 0xf0000000)}, kPage, 0xf0002000), 0xf0001000u);
  EXPECT_EQ(find_free_range(std::vector{mapping(0x100000, 0xf0000000)}, 2 * kPage, 0xf0002000), 0u);
  EXPECT_EQ(find_free_range({}, uint64_t{1} << 47), 0u);
}

TEST(FindFreeRange, IgnoresTheKernelsHalf) {
  const Mapping list[] = {mapping(0x1000, 0x10000000), mapping(0xffffffffff600000, 0xffffffffff601000, "[vsyscall]")};
  EXPECT_EQ(find_free_range(list, kPage), 0x10001000u);
}

TEST(FindFreeRange, IsFreeInThisProcess) {
  const auto maps = parse_maps(ProcDir(getpid()).read("maps"));
  const size_t bytes = 64 * kPage;
  const uint64_t at = find_free_range(maps, bytes);
  ASSERT_NE(at, 0u);
  void* got =
      mmap(reinterpret_cast<void*>(at), bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  EXPECT_EQ(got, reinterpret_cast<void*>(at));
  munmap(got, bytes);
}

// ---- the bootstrap hole ----------------------------------------------------------------------------------

// A file that stands for the memory of a task: sparse, so that addresses are offsets.
class FakeMemory {
 public:
  FakeMemory() : fd_(memfd_create("memory", MFD_CLOEXEC)) {}
  int fd() const { return fd_.get(); }
  void write(uint64_t at, std::span<const std::byte> bytes) {
    ASSERT_EQ(pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(bytes.size()));
  }
  void fill(uint64_t at, size_t bytes, std::byte value) { write(at, std::vector(bytes, value)); }
  void grow(uint64_t to) { ASSERT_EQ(ftruncate(fd_.get(), static_cast<off_t>(to)), 0); }

 private:
  Fd fd_;
};

Mapping old_area_mapping(uint64_t start, uint64_t bytes) {
  Mapping m = mapping(start, start + bytes);
  m.read = m.exec = true;
  return m;
}

TEST(BootstrapHole, LiesBehindTheVdsoImageOfThisKernel) {
  const auto maps = parse_maps(ProcDir(getpid()).read("maps"));
  const Fd memory(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  const size_t bytes = arch::bootstrap_size(2, false);
  const uint64_t at = find_bootstrap_hole(maps, memory.get(), bytes);
  const auto vdso = std::find_if(maps.begin(), maps.end(), [](const Mapping& m) { return m.name == "[vdso]"; });
  if (vdso == maps.end()) GTEST_SKIP() << "this process has no vdso";
  ASSERT_NE(at, 0u);
  EXPECT_GT(at, vdso->start);
  EXPECT_LE(at + bytes, vdso->end);
  const std::vector<char> zeros(bytes);
  EXPECT_EQ(std::memcmp(reinterpret_cast<const void*>(at), zeros.data(), bytes), 0);
}

TEST(BootstrapHole, IsNoneWithoutVdsoOrOldArea) {
  FakeMemory memory;
  memory.grow(0x100000);
  EXPECT_EQ(find_bootstrap_hole(std::vector{mapping(0x10000, 0x20000)}, memory.fd(), 100), 0u);
  Mapping vdso = mapping(0x20000, 0x22000, "[vdso]");
  EXPECT_EQ(find_bootstrap_hole(std::vector{vdso}, memory.fd(), 100), 0u) << "not an ELF image: nobody knows its end";
}

TEST(BootstrapHole, UsesTheSpareRoomOfAnOldAreaAndSkipsWhatIsInUse) {
  const BatchArea area(0x40000, 2, 8192, 4096);
  FakeMemory memory;
  memory.grow(0x100000);
  memory.write(area.address(), area.code_image());
  const std::vector maps{old_area_mapping(area.address(), area.code_bytes())};
  const size_t bytes = arch::bootstrap_size(2, false);

  const uint64_t first = find_bootstrap_hole(maps, memory.fd(), bytes);
  EXPECT_GE(first, area.address() + area.code_image().size());
  EXPECT_EQ(first % 16, 0u);
  // What a controller that died has left there stays.
  memory.fill(first, bytes, std::byte{0xcc});
  const uint64_t second = find_bootstrap_hole(maps, memory.fd(), bytes);
  EXPECT_GE(second, first + bytes);
  EXPECT_LE(second + bytes, area.address() + area.code_bytes());

  Mapping writable = maps.front();
  writable.write = true;
  EXPECT_EQ(find_bootstrap_hole(std::vector{writable}, memory.fd(), bytes), 0u) << "not made by a controller";
}

TEST(BootstrapHole, ControllerCodeNamesOldAreas) {
  const BatchArea area(0x40000, 1, 8192, 4096);
  FakeMemory memory;
  memory.grow(0x100000);
  memory.write(area.address(), area.code_image());
  const auto code = controller_code(
      std::vector{mapping(0x10000, 0x20000), old_area_mapping(area.address(), area.code_bytes())}, memory.fd());
  ASSERT_EQ(code.size(), 1u);
  EXPECT_EQ(code[0].start, area.address());
  EXPECT_EQ(code[0].end, area.address() + area.code_bytes());
}

}  // namespace
}  // namespace stasis

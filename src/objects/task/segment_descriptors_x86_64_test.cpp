#include "objects/task/segment_descriptors.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "objects/task/registers.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

pb::core_entry core_of_32_bit_code(const SegmentDescriptors::State& state) {
  pb::core_entry core = encoded<SegmentDescriptors>(state);
  core.mutable_thread_info()->mutable_gpregs()->set_mode(pb::COMPAT);
  return core;
}

TEST(SegmentDescriptors, GoThroughAnImage) {
  SegmentDescriptors::State state;
  // As the kernel tells of a data segment of 4 GiB, of an empty slot, and with the other bits.
  state.slots = {{12, 0xf7d4a040, 0xfffff, 0x51}, {13, 0, 0, 0x28}, {14, 0x1000, 7, 0x06}};
  EXPECT_EQ(decoded<SegmentDescriptors>(core_of_32_bit_code(state)).slots, state.slots);
}

TEST(SegmentDescriptors, AreNotTakenFor64BitCode) {
  SegmentDescriptors::State state;
  state.slots = {{12, 0x1000, 7, 0x51}};
  EXPECT_TRUE(decoded<SegmentDescriptors>(encoded<SegmentDescriptors>(state)).slots.empty());
}

TEST(SegmentDescriptors, HaveNumbersOfThreads) {
  for (const uint32_t number : {0u, 11u, 15u}) {
    SegmentDescriptors::State state;
    state.slots = {{number, 0, 0, 0x28}};
    EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<SegmentDescriptors>(core_of_32_bit_code(state)));
  }
}

}  // namespace
}  // namespace stasis

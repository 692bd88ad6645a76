#include "objects/files/bpf_map.h"

#include <gtest/gtest.h>

#include "base/test_error.h"

namespace stasis {
namespace {

BpfMap::State some_state() {
  BpfMap::State state{.id = 3, .flags = 2, .owner = {}, .map_id = 17, .info = {}};
  state.info = {.map_type = BPF_MAP_TYPE_HASH,
                .key_size = 4,
                .value_size = 8,
                .max_entries = 100,
                .map_flags = BPF_F_NO_PREALLOC,
                .map_extra = 1,
                .memlock = 4096,
                .frozen = true,
                .map_name = "a_map"};
  return state;
}

pb::file_entry encoded_entry(const BpfMap::State& state) {
  pb::file_entry entry;
  BpfMap::encode(state, entry);
  return entry;
}

TEST(BpfMap, GoesThroughAnImage) {
  const pb::file_entry entry = encoded_entry(some_state());
  EXPECT_EQ(entry.type(), pb::BPFMAP);
  EXPECT_EQ(entry.id(), 3u);
  BpfMap::State back;
  BpfMap::decode(entry, back);
  EXPECT_EQ(back, some_state());
}

TEST(BpfMap, RefusesWhatItCannotMake) {
  BpfMap::State state = some_state(), back;
  state.info.map_type = BPF_MAP_TYPE_RINGBUF;
  EXPECT_EQ(error_of([&] { BpfMap::decode(encoded_entry(state), back); }).reason(), Reason::IMAGE_UNSUPPORTED);
  pb::file_entry of_device = encoded_entry(some_state());
  of_device.mutable_bpf()->set_ifindex(2);
  EXPECT_EQ(error_of([&] { BpfMap::decode(of_device, back); }).reason(), Reason::IMAGE_UNSUPPORTED);
}

TEST(BpfMap, ContentHasToFit) {
  const RestoreOptions options;
  RestoreFiles files(options);
  BpfMap::Shared shared;
  BpfMap::plan(some_state(), files, shared);
  shared.contents[17] = {.keys = std::string(8, 'k'), .values = std::string(16, 'v'), .count = 2};
  BpfMap::plan(some_state(), files, shared);
  shared.contents[17].count = 3;
  EXPECT_EQ(error_of([&] { BpfMap::plan(some_state(), files, shared); }).reason(), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

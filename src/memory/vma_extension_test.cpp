#include "memory/vma_extension.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "base/test_error.h"
#include "proto/extension.pb.h"

namespace stasis {
namespace {

Vma area(uint64_t start, uint64_t end, uint32_t prot) {
  Vma v;
  v.start = start, v.end = end, v.prot = prot;
  v.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  v.status = vma_status::regular | vma_status::anon_private;
  return v;
}

// What another reader learns of these areas.
std::vector<Vma> through_image(const std::vector<Vma>& areas, int records) {
  pb::extension_task task;
  task.set_tid(42);
  encode_extension(areas, {}, task);
  EXPECT_EQ(task.mm().vmas_size(), records);
  EXPECT_EQ(task.has_mm(), records > 0);
  std::vector<Vma> bare;
  for (const Vma& v : areas) bare.push_back(area(v.start, v.end, v.prot));
  for (size_t i = 0; i < bare.size(); ++i) bare[i].flags = areas[i].flags;
  pb::extension_task read;
  EXPECT_TRUE(read.ParseFromString(task.SerializeAsString()));
  std::vector<AreaPolicy> policies;
  decode_extension(read.mm(), bare, policies, "extension.img");
  EXPECT_TRUE(policies.empty());
  return bare;
}

TEST(VmaExtension, AdjoiningAreasAreOneRecord) {
  std::vector<Vma> areas = {area(0x1000, 0x2000, PROT_READ | PROT_WRITE), area(0x2000, 0x3000, PROT_NONE),
                            area(0x3000, 0x4000, PROT_READ | PROT_WRITE), area(0x6000, 0x7000, PROT_READ)};
  for (size_t i = 0; i < 3; ++i) areas[i].was_writable = true;
  const std::vector<Vma> read = through_image(areas, 1);
  EXPECT_TRUE(read[0].was_writable && read[1].was_writable && read[2].was_writable);
  EXPECT_FALSE(read[3].was_writable);
  EXPECT_TRUE(maps_writable_first(read[1], 0));
  EXPECT_FALSE(maps_writable_first(read[3], 1));
}

TEST(VmaExtension, WhatFollowsByItselfIsNotWritten) {
  std::vector<Vma> areas = {area(0x1000, 0x2000, PROT_READ | PROT_WRITE), area(0x6000, 0x7000, PROT_READ)};
  areas[0].was_writable = true;
  areas[0].lock_on_fault = areas[1].lock_on_fault = false;
  EXPECT_TRUE(through_image(areas, 0)[0].was_writable);
}

TEST(VmaExtension, SealsAndLocks) {
  std::vector<Vma> areas = {area(0x1000, 0x2000, PROT_READ), area(0x2000, 0x3000, PROT_READ),
                            area(0x3000, 0x4000, PROT_READ)};
  areas[0].sealed = areas[1].sealed = true;
  areas[1].flags |= MAP_LOCKED, areas[1].lock_on_fault = true;
  areas[2].flags |= MAP_LOCKED, areas[2].lock_on_fault = false;
  const std::vector<Vma> read = through_image(areas, 2);
  EXPECT_TRUE(read[0].sealed && read[1].sealed && !read[2].sealed);
  EXPECT_TRUE(locks_on_fault(read[1], 1));
  EXPECT_FALSE(locks_on_fault(read[2], 0));
}

TEST(VmaExtension, NumaPolicies) {
  const std::vector<AreaPolicy> policies = {{0x1000, 0x2000, 2, parse_number_list("0,70")}, {0x3000, 0x4000, 4, {}}};
  const std::vector<Vma> areas = {area(0x1000, 0x2000, PROT_READ), area(0x2000, 0x3000, PROT_READ),
                                  area(0x3000, 0x4000, PROT_READ)};
  pb::extension_task task;
  encode_extension(areas, policies, task);
  const auto read = [&](const pb::extension_mm& mm) {
    std::vector<Vma> bare = areas;
    std::vector<AreaPolicy> out;
    decode_extension(mm, bare, out, "extension.img");
    return out;
  };
  EXPECT_EQ(read(task.mm()), policies);
  pb::extension_mm bad = task.mm();
  bad.mutable_vmas(0)->mutable_numa()->set_mode(7);
  EXPECT_EQ(error_of([&] { read(bad); }).reason(), Reason::IMAGE_CORRUPT);
}

TEST(VmaExtension, RangesThatAreNotThoseOfAreas) {
  const auto decode = [](uint64_t start, uint64_t end) {
    std::vector<Vma> areas = {area(0x1000, 0x3000, PROT_READ), area(0x3000, 0x4000, PROT_READ)};
    pb::extension_mm mm;
    pb::extension_vma& record = *mm.add_vmas();
    record.set_start(start), record.set_end(end);
    std::vector<AreaPolicy> policies;
    decode_extension(mm, areas, policies, "extension.img");
  };
  EXPECT_NO_THROW(decode(0x1000, 0x4000));
  for (const auto& [start, end] : {std::pair(0x1000, 0x2000),
                                   {0x2000, 0x3000},
                                   {0x3000, 0x5000},
                                   {0x5000, 0x6000},
                                   {0x3000, 0x3000},
                                   {0x3000, 0x1000}})
    EXPECT_EQ(error_of([&] { decode(static_cast<uint64_t>(start), static_cast<uint64_t>(end)); }).reason(),
              Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

#include "image/extension.h"

#include <gtest/gtest.h>

#include "base/test_error.h"
#include "proto/inventory.pb.h"

namespace stasis {
namespace {

pb::extension_task bound_task(uint32_t tid) {
  pb::extension_task task;
  task.set_tid(tid);
  task.mutable_thread()->add_cpu_affinity(2);
  return task;
}

void commit(ImageStore& store) {
  pb::inventory_entry inventory;
  inventory.set_img_version(2);
  store.commit(inventory);
}

// What is read from a file of these records.
template <class... Records>
std::optional<Extension> read_from(const Records&... records) {
  ImageStore store = ImageStore::in_memory();
  (store.writer(ImageKind::EXTENSION).write(records), ...);
  commit(store);
  return Extension::read(store);
}

pb::extension_head head(uint32_t version = 1) {
  pb::extension_head out;
  out.set_version(version);
  return out;
}

TEST(Extension, KeepsRecordsOfThoseThatHaveSomethingToSay) {
  ImageStore store = ImageStore::in_memory();
  {
    ExtensionWriter writer(store, {});
    pb::extension_task nothing;
    nothing.set_tid(41);
    writer.write(nothing);
    writer.write(bound_task(42));
  }
  commit(store);
  const auto extension = Extension::read(store);
  ASSERT_TRUE(extension);
  EXPECT_EQ(extension->head().version(), 1u);
  EXPECT_FALSE(extension->task(41, true).has_thread());
  EXPECT_EQ(error_of([&] { extension->expect_all_asked(); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(extension->task(42, false).thread().cpu_affinity(0), 2u);
  extension->expect_all_asked();
}

TEST(Extension, IsThereEvenIfNobodyHasAnythingToSay) {
  ImageStore store = ImageStore::in_memory();
  ExtensionWriter(store, {});
  commit(store);
  EXPECT_TRUE(Extension::read(store));
}

TEST(Extension, DumpsOfOtherProgramsHaveNone) {
  EXPECT_FALSE(read_from());
}

TEST(Extension, WhatLaterVersionsAddIsRefused) {
  EXPECT_EQ(error_of([] { read_from(head(2)); }).reason(), Reason::IMAGE_VERSION);
  pb::extension_task task = bound_task(42);
  // Field 1000 with the number 1.
  const std::string later("\xc0\x3e\x01");
  task.mutable_thread()->mutable_unknown_fields()->append(later);
  EXPECT_EQ(error_of([&] { read_from(head(), task); }).reason(), Reason::IMAGE_UNSUPPORTED);
  task = bound_task(42);
  pb::extension_vma& vma = *task.mutable_mm()->add_vmas();
  vma.set_start(4096);
  vma.set_end(8192);
  EXPECT_TRUE(read_from(head(), task));
  vma.mutable_unknown_fields()->append(later);
  EXPECT_EQ(error_of([&] { read_from(head(), task); }).reason(), Reason::IMAGE_UNSUPPORTED);
}

TEST(Extension, NonsenseIsRefused) {
  EXPECT_EQ(error_of([] { read_from(head(), bound_task(42), bound_task(42)); }).reason(), Reason::IMAGE_CORRUPT);
  pb::extension_task task = bound_task(42);
  task.mutable_process();
  const auto extension = read_from(head(), task);
  EXPECT_EQ(error_of([&] { extension->task(42, false); }).reason(), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

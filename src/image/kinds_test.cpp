#include "image/kinds.h"

#include <gtest/gtest.h>

#include <set>

namespace stasis {
namespace {

TEST(Kinds, NamesFiles) {
  EXPECT_EQ(image_file_name(ImageKind::INVENTORY), "inventory.img");
  EXPECT_EQ(image_file_name(ImageKind::CORE, 42), "core-42.img");
  EXPECT_EQ(image_file_name(ImageKind::PAGES, 65537), "pages-65537.img");
  EXPECT_EQ(image_file_name(ImageKind::GHOST_FILE, 255), "ghost-file-ff.img");
  EXPECT_EQ(image_file_name(ImageKind::TCP_STREAM, 0xdeadbeef), "tcp-stream-deadbeef.img");
  EXPECT_EQ(image_file_name(ImageKind::TMPFS_DEV, 52), "tmpfs-dev-52.tar.gz.img");
  EXPECT_EQ(image_file_name(ImageKind::STATS_DUMP), "stats-dump");
  EXPECT_EQ(image_file_name(ImageKind::PAGES, UINT64_MAX), "pages-18446744073709551615.img");
}

TEST(Kinds, TableIsIndexedByKindAndEveryNameIsUsedOnce) {
  std::set<std::string> names;
  for (const ImageKindInfo& info : all_image_kinds()) {
    EXPECT_EQ(&image_kind_info(info.kind), &info);
    EXPECT_TRUE(names.insert(image_file_name(info.kind, 7)).second) << info.name;
  }
}

TEST(Kinds, OnlyRawFilesHaveNoMagic) {
  for (const ImageKindInfo& info : all_image_kinds()) {
    EXPECT_EQ(info.magic == 0, info.framing == ImageFraming::RAW) << info.name;
    bool keyed = info.file_pattern.find('%') != std::string_view::npos;
    EXPECT_TRUE(info.scope != ImageScope::KEYED || keyed) << info.name;
    EXPECT_TRUE(info.scope != ImageScope::WHOLE_DUMP || !keyed) << info.name;
  }
}

}  // namespace
}  // namespace stasis

#include "image/record.h"

#include <gtest/gtest.h>

#include "base/test_error.h"
#include "proto/pipe-data.pb.h"
#include "proto/pstree.pb.h"
#include "proto/seccomp.pb.h"

namespace stasis {
namespace {

pb::pstree_entry process(uint32_t pid) {
  pb::pstree_entry entry;
  entry.set_pid(pid);
  entry.set_ppid(pid - 1);
  entry.set_pgid(1);
  entry.set_sid(1);
  entry.add_threads(pid);
  return entry;
}

std::string pstree_file(int processes) {
  std::string bytes;
  append_image_header(bytes, ImageKind::PSTREE);
  for (int i = 1; i <= processes; ++i) append_record(bytes, process(static_cast<uint32_t>(i)));
  return bytes;
}

TEST(Record, FramesAsDocumented) {
  std::string bytes = pstree_file(1);
  const char wanted[] = "\x19\x43\x56\x54\x30\x30\x27\x50\x0a\x00\x00\x00\x08\x01\x10\x00\x18\x01\x20\x01\x28\x01";
  EXPECT_EQ(bytes, std::string(wanted, sizeof wanted - 1));
}

TEST(Record, ReadsRecordsAndPayload) {
  std::string bytes;
  append_image_header(bytes, ImageKind::PIPES_DATA);
  pb::pipe_data_entry entry;
  entry.set_pipe_id(3);
  entry.set_bytes(5);
  append_record(bytes, entry);
  bytes += "hello";
  append_record(bytes, entry);
  bytes += "world";

  RecordDecoder decoder(bytes, ImageKind::PIPES_DATA, "pipes");
  pb::pipe_data_entry read;
  ASSERT_TRUE(decoder.next(read));
  EXPECT_EQ(decoder.raw(read.bytes()), "hello");
  ASSERT_TRUE(decoder.next(read));
  EXPECT_EQ(decoder.rest(), "world");
  EXPECT_FALSE(decoder.next(read));
  decoder.expect_end();
}

TEST(Record, ZeroLengthIsAnEmptyMessage) {
  std::string bytes;
  append_image_header(bytes, ImageKind::SECCOMP);
  append_record(bytes, pb::seccomp_entry());
  EXPECT_EQ(bytes.size(), 12u);
  RecordDecoder decoder(bytes, ImageKind::SECCOMP, "seccomp.img");
  pb::seccomp_entry read;
  EXPECT_TRUE(decoder.next(read));
  EXPECT_FALSE(decoder.next(read));
}

TEST(Record, TruncationAnywhereButBetweenRecordsIsAnError) {
  std::string whole = pstree_file(3);
  size_t record_bytes = (whole.size() - 8) / 3;
  for (size_t size = 0; size < whole.size(); ++size) {
    auto read_all = [&] {
      RecordDecoder decoder(std::string_view(whole).substr(0, size), ImageKind::PSTREE, "pstree.img");
      pb::pstree_entry entry;
      size_t records = 0;
      while (decoder.next(entry)) ++records;
      return records;
    };
    if (size >= 8 && (size - 8) % record_bytes == 0) {
      EXPECT_EQ(read_all(), (size - 8) / record_bytes);
    } else {
      Error error = error_of(read_all);
      EXPECT_EQ(error.reason(), Reason::IMAGE_TRUNCATED) << size;
      EXPECT_EQ(error.object(), "pstree.img");
      EXPECT_NE(error.what_failed().find("offset"), std::string::npos);
      EXPECT_FALSE(error.remedy().empty());
    }
  }
}

TEST(Record, BothMagicsAreChecked) {
  std::string good = pstree_file(1);
  for (size_t i = 0; i < 8; ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_EQ(error_of([&] { RecordDecoder(bad, ImageKind::PSTREE, "x"); }).reason(), Reason::IMAGE_CORRUPT) << i;
  }
  EXPECT_EQ(error_of([&] { RecordDecoder(good, ImageKind::FILES, "x"); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { RecordDecoder(good, ImageKind::STATS_DUMP, "x"); }).reason(), Reason::IMAGE_CORRUPT);
}

TEST(Record, VersionOneHasOnlyTheSpecificMagic) {
  std::string old = pstree_file(1).substr(4);
  EXPECT_EQ(error_of([&] { RecordDecoder(old, ImageKind::PSTREE, "x"); }).reason(), Reason::IMAGE_CORRUPT);
  RecordDecoder decoder(old, ImageKind::PSTREE, "x", MagicRule::TODAY_OR_VERSION_1);
  pb::pstree_entry entry;
  EXPECT_TRUE(decoder.next(entry));
}

TEST(Record, LengthsBeyondTheFileOrTheLibraryAreErrors) {
  std::string bytes = pstree_file(1);
  bytes.replace(8, 4, "\xff\xff\xff\x7f", 4);
  pb::pstree_entry entry;
  EXPECT_EQ(error_of([&] { RecordDecoder(bytes, ImageKind::PSTREE, "x").next(entry); }).reason(),
            Reason::IMAGE_TRUNCATED);
  bytes.replace(8, 4, "\xff\xff\xff\xff", 4);
  EXPECT_EQ(error_of([&] { RecordDecoder(bytes, ImageKind::PSTREE, "x").next(entry); }).reason(),
            Reason::IMAGE_CORRUPT);
  RecordDecoder decoder(bytes, ImageKind::PSTREE, "x");
  EXPECT_EQ(error_of([&] { decoder.raw(UINT64_MAX); }).reason(), Reason::IMAGE_TRUNCATED);
}

TEST(Record, MissingRequiredFieldsAreErrorsInBothDirections) {
  std::string bytes;
  pb::pstree_entry incomplete;
  EXPECT_EQ(error_of([&] { append_record(bytes, incomplete); }).reason(), Reason::INTERNAL);
  append_image_header(bytes, ImageKind::PSTREE);
  append_packed_record(bytes, "");
  Error error = error_of([&] { RecordDecoder(bytes, ImageKind::PSTREE, "x").next(incomplete); });
  EXPECT_EQ(error.reason(), Reason::IMAGE_CORRUPT);
  EXPECT_NE(error.what_failed().find("pstree_entry"), std::string::npos);
}

TEST(Record, FlippedBitsNeverCrash) {
  std::string good = pstree_file(2);
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    try {
      RecordDecoder decoder(bad, ImageKind::PSTREE, "x");
      pb::pstree_entry entry;
      while (decoder.next(entry)) EXPECT_LE(decoder.offset(), bad.size());
    } catch (const Error& e) {
      EXPECT_TRUE(e.reason() == Reason::IMAGE_CORRUPT || e.reason() == Reason::IMAGE_TRUNCATED);
    }
  }
}

TEST(Record, SomethingAfterTheLastRecordIsAnError) {
  std::string bytes = pstree_file(1) + "x";
  RecordDecoder decoder(bytes, ImageKind::PSTREE, "x");
  pb::pstree_entry entry;
  decoder.require(entry);
  EXPECT_EQ(error_of([&] { decoder.expect_end(); }).reason(), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

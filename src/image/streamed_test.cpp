#include "image/streamed.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/test_error.h"
#include "proto/ghost-file.pb.h"

namespace stasis {
namespace {

constexpr ImageKind kKind = ImageKind::GHOST_FILE;

pb::ghost_chunk_entry chunk(uint64_t offset, uint64_t bytes) {
  pb::ghost_chunk_entry entry;
  entry.set_off(offset);
  entry.set_len(bytes);
  return entry;
}

Fd file_with(const std::string& content) {
  Fd fd(::memfd_create("content", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(fd.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  return fd;
}

std::string read_all(int fd, size_t bytes) {
  std::string out(bytes, '\0');
  EXPECT_EQ(::pread(fd, out.data(), bytes, 0), static_cast<ssize_t>(bytes));
  return out;
}

TEST(Streamed, RecordsAndPayloadsComeBack) {
  std::string content(3'000'000, 'x');
  for (size_t i = 0; i < content.size(); i += 4099) content[i] = static_cast<char>('a' + i % 26);
  const Fd source = file_with(content);
  ImageStore store = ImageStore::in_memory();
  StreamWriter writer(store, kKind, 10);
  for (const auto& [offset, bytes] : {std::pair<uint64_t, uint64_t>{0, 5}, {1000, 2'500'000}, {7, 0}}) {
    writer.write(chunk(offset, bytes));
    writer.copy(source.get(), offset, bytes, "the source");
  }
  writer.close();

  std::optional<StreamReader> reader = StreamReader::open(store, kKind, 10);
  ASSERT_TRUE(reader);
  EXPECT_NE(reader->shown_name().find("ghost-file-a.img"), std::string::npos);
  pb::ghost_chunk_entry entry;
  const Fd target = file_with("");
  ASSERT_TRUE(reader->next(entry));
  reader->copy(target.get(), 0, entry.len(), "the target");
  EXPECT_EQ(read_all(target.get(), 5), content.substr(0, 5));
  ASSERT_TRUE(reader->next(entry));
  reader->copy(target.get(), 0, entry.len(), "the target");
  EXPECT_TRUE(read_all(target.get(), 2'500'000) == content.substr(1000, 2'500'000));
  ASSERT_TRUE(reader->next(entry));
  EXPECT_EQ(reader->left_bytes(), 0u);
  EXPECT_FALSE(reader->next(entry));
}

TEST(Streamed, DamageIsFound) {
  ImageStore store = ImageStore::in_memory();
  EXPECT_FALSE(StreamReader::open(store, kKind, 1));
  const auto put = [&](std::string bytes) {
    const Fd fd = store.create_streamed(kKind, 1);
    ASSERT_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  };
  std::string header;
  append_image_header(header, kKind);
  std::string record;
  append_record(record, chunk(1, 2));

  put("no magic");
  EXPECT_EQ(error_of([&] { StreamReader::open(store, kKind, 1); }).reason(), Reason::IMAGE_CORRUPT);
  put("");
  EXPECT_EQ(error_of([&] { StreamReader::open(store, kKind, 1); }).reason(), Reason::IMAGE_TRUNCATED);
  const auto reason = [&](const std::string& bytes) {
    put(bytes);
    pb::ghost_chunk_entry entry;
    return error_of([&] {
             std::optional<StreamReader> reader = StreamReader::open(store, kKind, 1);
             while (reader->next(entry)) reader->skip(entry.len());
           })
        .reason();
  };
  EXPECT_EQ(reason(header + record), Reason::IMAGE_TRUNCATED);
  EXPECT_EQ(reason(header + record.substr(0, 3)), Reason::IMAGE_TRUNCATED);
  EXPECT_EQ(reason(header + record.substr(0, 6)), Reason::IMAGE_TRUNCATED);
  EXPECT_EQ(reason(header + std::string("\2\0\0\0\xff\xff", 6)), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(header + "\xff\xff\xff\x7f"), Reason::IMAGE_CORRUPT);
}

TEST(Streamed, ASourceThatEndsEarlyIsAnError) {
  ImageStore store = ImageStore::in_memory();
  StreamWriter writer(store, kKind, 1);
  const Fd source = file_with("short");
  const Error error = error_of([&] { writer.copy(source.get(), 2, 100, "the source"); });
  EXPECT_EQ(error.reason(), Reason::SYSTEM);
  EXPECT_EQ(error.object(), "the source");
}

}  // namespace
}  // namespace stasis

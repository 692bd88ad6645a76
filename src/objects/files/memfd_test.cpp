#include "objects/files/memfd.h"

#include <sys/mman.h>

#include "memory/page_dump.h"
#include "objects/files/test_support.h"
#include "proto/memfd.pb.h"

namespace stasis {
namespace {

using test::view_of;

Fd make(const char* name) {
  return Fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
}

class MemfdTest : public testing::Test {
 protected:
  Memfd::State dump(const Fd& fd, uint32_t id = 1) {
    const FileView view = view_of(fd.get(), id);
    EXPECT_TRUE(Memfd::match(view));
    Memfd::State state;
    Memfd::dump(view, dump_files_, dumped_, state);
    return state;
  }
  void carry_over() {
    PageSnapshot snapshot(1 << 20);
    std::vector<std::unique_ptr<PagemapWriter>> writers;
    for (const MemoryObject& object : dump_files_.memory_objects) {
      writers.push_back(std::make_unique<PagemapWriter>(store_, ImageKind::SHMEM_PAGEMAP, object.id));
      snapshot.store(snapshot.copy_object(object.fd.get(), object.name), *writers.back());
    }
    snapshot.finish();
    for (auto& writer : writers) writer->close();
    Memfd::write_images(dumped_, store_);
    test::commit(store_);
    Memfd::read_images(store_, restored_);
  }
  Fd restore(const Memfd::State& state) {
    pb::file_entry entry;
    Memfd::encode(state, entry);
    Memfd::State decoded;
    Memfd::decode(entry, decoded);
    EXPECT_EQ(decoded, state);
    RestoreFiles files(restore_options_);
    Memfd::plan(decoded, files, restored_);
    Fd fd = Memfd::create(decoded, files, restored_);
    Memfd::finish(decoded, fd.get(), files, restored_);
    return fd;
  }

  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  Memfd::Shared dumped_, restored_;
  ImageStore store_ = ImageStore::in_memory();
};

TEST_F(MemfdTest, TwoDescriptionsOfOneObject) {
  const Fd fd = make("an object");
  ASSERT_EQ(::write(fd.get(), "contents", 8), 8);
  const Fd again = reopen(fd.get(), O_RDONLY | O_NONBLOCK);
  const Memfd::State first = dump(fd), second = dump(again, 2);
  EXPECT_EQ(first.inode_id, second.inode_id);
  EXPECT_EQ(first.pos, 8u);
  ASSERT_EQ(dump_files_.memory_objects.size(), 1u);
  carry_over();
  EXPECT_EQ(restored_.inodes, dumped_.inodes);

  const Fd copy = restore(first), other = restore(second);
  const FileView view = view_of(copy.get()), other_view = view_of(other.get());
  EXPECT_EQ(view.st.st_ino, other_view.st.st_ino);
  EXPECT_NE(view.st.st_ino, view_of(fd.get()).st.st_ino);
  EXPECT_EQ(view.st.st_size, 8);
  EXPECT_EQ(view.link, "/memfd:an object (deleted)");
  EXPECT_EQ(::lseek(copy.get(), 0, SEEK_CUR), 8);
  EXPECT_EQ(other_view.flags & (O_ACCMODE | O_NONBLOCK), unsigned{O_RDONLY | O_NONBLOCK});
  char text[9] = "";
  EXPECT_EQ(::pread(other.get(), text, 8, 0), 8);
  EXPECT_STREQ(text, "contents");
}

TEST_F(MemfdTest, SealsComeWithTheObjectOrLast) {
  const Fd sealed = make("sealed"), future = make("future");
  ASSERT_EQ(::fcntl(sealed.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL), 0);
  if (::fcntl(future.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0) GTEST_SKIP() << "no F_SEAL_FUTURE_WRITE";
  const Memfd::State one = dump(sealed), two = dump(future, 2);
  carry_over();
  const Fd first = restore(one), second = restore(two);
  EXPECT_EQ(::fcntl(first.get(), F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SEAL);
  EXPECT_EQ(::fcntl(second.get(), F_GET_SEALS), 0);
  RestoreFiles files(restore_options_);
  Memfd::complete(files, restored_);
  EXPECT_EQ(::fcntl(second.get(), F_GET_SEALS), F_SEAL_FUTURE_WRITE);
}

TEST_F(MemfdTest, ObjectsWithTheSameNumberHavePageMapsOfTheirOwn) {
  const Fd fd = make("x");
  dump_files_.memory_objects.push_back({static_cast<uint32_t>(view_of(fd.get()).st.st_ino), Fd(), "another one"});
  dump(fd);
  EXPECT_NE(dump_files_.memory_objects[0].id, dump_files_.memory_objects[1].id);
}

TEST_F(MemfdTest, ANameThatImagesCannotTellApartIsRefused) {
  const Fd fd = make("/dev/zero");
  EXPECT_EQ(error_of([&] { dump(fd); }).reason(), Reason::UNSUPPORTED_FILE);
}

TEST(Memfd, NeighboursAreNotMine) {
  const test::Directory directory;
  const Fd file(::open(directory.put("memfd:x (deleted)", "x").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(Memfd::match(view_of(file.get())));
  const Fd fd = make("x");
  FileView view = view_of(fd.get());
  EXPECT_TRUE(Memfd::match(view));
  view.st.st_nlink = 1;
  EXPECT_FALSE(Memfd::match(view));
}

TEST(Memfd, ImpossibleImages) {
  const auto read = [](auto change) {
    ImageStore store = ImageStore::in_memory();
    pb::memfd_inode_entry entry;
    entry.set_name("x");
    entry.set_uid(0), entry.set_gid(0), entry.set_size(10), entry.set_shmid(1), entry.set_seals(0);
    entry.set_inode_id(1);
    change(entry);
    store.writer(ImageKind::MEMFD_INODE).write(entry);
    test::commit(store);
    Memfd::Shared shared;
    Memfd::read_images(store, shared);
    Memfd::State state{.id = 1, .inode_id = 1};
    const RestoreOptions options;
    RestoreFiles files(options);
    Memfd::plan(state, files, shared);
  };
  EXPECT_NO_THROW(read([](auto&) {}));
  EXPECT_EQ(error_of([&] { read([](auto& e) { e.set_size(UINT64_MAX); }); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { read([](auto& e) { e.set_name(std::string("a\0b", 3)); }); }).reason(),
            Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { read([](auto& e) { e.set_hugetlb_flag(1); }); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { read([](auto& e) { e.set_name("/dev/zero"), e.set_size(0); }); }).reason(),
            Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { read([](auto& e) { e.set_inode_id(2); }); }).reason(), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

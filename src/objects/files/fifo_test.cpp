#include "objects/files/fifo.h"

#include <poll.h>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

using test::view_of;

class FifoTest : public testing::Test {
 protected:
  FifoTest() { EXPECT_EQ(::mkfifo(path_.c_str(), 0640), 0); }

  Fd open_fifo(int flags) const { return Fd(::open(path_.c_str(), flags | O_NONBLOCK | O_CLOEXEC)); }
  static void put(const Fd& fd, const std::string& text) {
    ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  static std::string get(const Fd& fd) {
    std::string out(100, '\0');
    const ssize_t got = ::read(fd.get(), out.data(), out.size());
    out.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return out;
  }
  static int events(const Fd& fd) {
    pollfd end{.fd = fd.get(), .events = POLLIN, .revents = 0};
    EXPECT_GE(::poll(&end, 1, 0), 0);
    return end.revents;
  }

  Fifo::State dump(const Fd& fd) {
    const FileView view = view_of(fd.get(), next_++);
    EXPECT_TRUE(Fifo::match(view));
    Fifo::State state;
    Fifo::dump(view, dump_files_, dumped_, state);
    RegularFile::State node;
    node.path = view.link;
    node.flags = view.flags;
    nodes_[state.node_id] = node;
    return state;
  }
  void carry_over() {
    ImageStore store = ImageStore::in_memory();
    Fifo::write_images(dumped_, store);
    test::commit(store);
    Fifo::read_images(store, restored_);
    files_.state_of = [this](uint32_t id) {
      const auto at = nodes_.find(id);
      return at == nodes_.end() ? nullptr : &at->second;
    };
  }
  Fifo::State through_images(const Fifo::State& state) {
    pb::file_entry entry;
    pb::extension_file extension;
    Fifo::encode(state, entry);
    Fifo::encode_extension(state, extension);
    Fifo::State out;
    Fifo::decode(entry, out);
    Fifo::decode_extension(extension, out);
    return out;
  }
  // As a restore does it: all are planned before the first is made.
  std::vector<Fd> restore(const std::vector<Fifo::State>& states) {
    std::vector<Fd> out;
    out.reserve(states.size());
    for (const Fifo::State& s : states) Fifo::plan(through_images(s), files_, restored_);
    for (const Fifo::State& s : states) out.push_back(Fifo::create(through_images(s), files_, restored_));
    for (size_t i = 0; i < states.size(); ++i) Fifo::finish(states[i], out[i].get(), files_, restored_);
    Fifo::complete(files_, restored_);
    return out;
  }

  test::Directory dir_;
  std::string path_ = dir_.path() + "/fifo";
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  RestoreFiles files_{restore_options_};
  Fifo::Shared dumped_, restored_;
  std::map<uint32_t, std::any> nodes_;
  uint32_t next_ = 100;
};

TEST_F(FifoTest, DataWithoutAReaderIsKeptAndTheTimeOfTheFile) {
  Fd reader = open_fifo(O_RDONLY), writer = open_fifo(O_WRONLY);
  put(writer, "unread");
  reader.reset();
  const Fifo::State state = dump(writer);
  EXPECT_EQ(through_images(state).pipe_id, state.pipe_id);
  writer.reset();
  const struct timespec old[2] = {{.tv_sec = 1000, .tv_nsec = 0}, {.tv_sec = 2000, .tv_nsec = 7}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), old, 0), 0);
  carry_over();
  const std::vector<Fd> fds = restore({state});
  EXPECT_EQ(::fcntl(fds[0].get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
  struct stat st;
  ASSERT_EQ(::stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mtim.tv_sec, 2000);
  EXPECT_EQ(st.st_mtim.tv_nsec, 7);
  EXPECT_EQ(get(open_fifo(O_RDONLY)), "unread");
}

TEST_F(FifoTest, AReaderMissesOnlyWritersThatItHad) {
  Fd early = open_fifo(O_RDONLY);
  const Fifo::State first = dump(early);
  EXPECT_TRUE(first.expects_writer);
  Fd writer = open_fifo(O_WRONLY);
  writer.reset();
  const Fifo::State second = dump(early);
  EXPECT_FALSE(second.expects_writer);
  early.reset();
  carry_over();
  EXPECT_EQ(events(restore({first})[0]), 0);
  EXPECT_EQ(events(restore({second})[0]), POLLHUP);
}

TEST_F(FifoTest, WhatOthersHaveOpenKeepsItsData) {
  for (const int other_flags : {O_RDWR, O_RDONLY}) {
    const Fd reader = open_fifo(O_RDWR);
    put(reader, "of the dump");
    const Fifo::State state = dump(reader);
    EXPECT_EQ(get(reader), "of the dump");
    const Fd other = open_fifo(other_flags);
    put(reader, "of now");
    carry_over();
    EXPECT_EQ(get(restore({state})[0]), "of now");
    restored_ = {};
    dumped_ = {};
  }
}

TEST_F(FifoTest, EqualInodesOfTwoFileSystemsStayApart) {
  const Fd fd = open_fifo(O_RDWR);
  FileView view = view_of(fd.get());
  Fifo::State a, b, c;
  Fifo::dump(view, dump_files_, dumped_, a);
  view.st.st_dev += 1;
  Fifo::dump(view, dump_files_, dumped_, b);
  Fifo::dump(view, dump_files_, dumped_, c);
  EXPECT_NE(a.pipe_id, b.pipe_id);
  EXPECT_EQ(b.pipe_id, c.pipe_id);
}

TEST_F(FifoTest, AnotherFileOfThatNameIsNotUsed) {
  Fd fd = open_fifo(O_RDWR);
  const Fifo::State state = dump(fd);
  fd.reset();
  carry_over();
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  dir_.put("fifo", "a file");
  EXPECT_EQ(error_of([&] { restore({state}); }).reason(), Reason::FILE_CHANGED);
}

TEST_F(FifoTest, TwoNamesMustLeadToOneFifo) {
  const std::string other = path_ + "2";
  ASSERT_EQ(::link(path_.c_str(), other.c_str()), 0);
  Fd one = open_fifo(O_RDWR), two(::open(other.c_str(), O_RDWR | O_CLOEXEC));
  const Fifo::State a = dump(one), b = dump(two);
  EXPECT_EQ(a.pipe_id, b.pipe_id);
  carry_over();
  EXPECT_NO_THROW(restore({a, b}));
  ASSERT_EQ(::unlink(other.c_str()), 0);
  ASSERT_EQ(::mkfifo(other.c_str(), 0640), 0);
  EXPECT_EQ(error_of([&] { restore({a, b}); }).reason(), Reason::FILE_CHANGED);
}

TEST_F(FifoTest, ImagesWithoutItsFileAreCorrupt) {
  const Fifo::State state = dump(open_fifo(O_RDWR));
  carry_over();
  std::any_cast<RegularFile::State&>(nodes_[state.node_id]).flags = O_ACCMODE;
  EXPECT_EQ(error_of([&] { restore({state}); }).reason(), Reason::IMAGE_CORRUPT);
  nodes_.clear();
  EXPECT_EQ(error_of([&] { restore({state}); }).reason(), Reason::IMAGE_CORRUPT);
}

TEST_F(FifoTest, NamesAloneAreNotMatched) {
  EXPECT_FALSE(Fifo::match(view_of(Fd(::open(path_.c_str(), O_PATH | O_CLOEXEC)).get())));
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]), writer(ends[1]);
  EXPECT_FALSE(Fifo::match(view_of(reader.get())));
}

}  // namespace
}  // namespace stasis

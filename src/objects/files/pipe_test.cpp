#include "objects/files/pipe.h"

#include <poll.h>

#include "objects/files/test_support.h"
#include "proto/pipe-data.pb.h"

namespace stasis {
namespace {

using test::view_of;

struct Ends {
  Fd reader, writer;
  uint32_t id = 0;
};
Ends make_pipe(int flags = 0) {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC | O_NONBLOCK | flags), 0);
  Ends ends{Fd(fds[0]), Fd(fds[1])};
  ends.id = static_cast<uint32_t>(view_of(fds[0]).st.st_ino);
  return ends;
}

void put(const Fd& writer, const std::string& data) {
  ASSERT_EQ(::write(writer.get(), data.data(), data.size()), static_cast<ssize_t>(data.size()));
}
std::string get(const Fd& reader, size_t bytes = 1u << 21) {
  std::string out(bytes, '\0');
  const ssize_t got = ::read(reader.get(), out.data(), out.size());
  out.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return out;
}

class PipeTest : public testing::Test {
 protected:
  Pipe::State dump(const Fd& end) {
    const FileView view = view_of(end.get());
    EXPECT_TRUE(Pipe::match(view));
    Pipe::State state;
    Pipe::dump(view, dump_files_, dumped_, state);
    return state;
  }
  // Writes what was dumped and reads it for a restore.
  void carry_over() {
    Pipe::conclude(dump_files_, dumped_);
    Pipe::write_images(dumped_, store_);
    test::commit(store_);
    Pipe::read_images(store_, restored_);
  }
  Fd restore(const Pipe::State& state) {
    pb::file_entry entry;
    Pipe::encode(state, entry);
    Pipe::State decoded;
    Pipe::decode(entry, decoded);
    EXPECT_EQ(decoded, state);
    RestoreFiles files(restore_options_);
    Pipe::plan(decoded, files, restored_);
    Fd fd = Pipe::create(decoded, files, restored_);
    Pipe::finish(decoded, fd.get(), files, restored_);
    return fd;
  }

  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  ImageStore store_ = ImageStore::in_memory();
  Pipe::Shared dumped_, restored_;
};

TEST_F(PipeTest, DataIsSavedAndStaysWhereItWas) {
  const Ends pipe = make_pipe();
  put(pipe.writer, "hello ");
  put(pipe.writer, "world");
  const Pipe::State reader = dump(pipe.reader), writer = dump(pipe.writer);
  EXPECT_EQ(reader.pipe_id, pipe.id);
  EXPECT_EQ(reader.pipe_id, writer.pipe_id);
  EXPECT_EQ(get(pipe.reader), "hello world");

  carry_over();
  const Fd new_reader = restore(reader), new_writer = restore(writer);
  EXPECT_EQ(::fcntl(new_reader.get(), F_GETFL), ::fcntl(pipe.reader.get(), F_GETFL));
  EXPECT_EQ(::fcntl(new_writer.get(), F_GETFL), ::fcntl(pipe.writer.get(), F_GETFL));
  put(new_writer, "!");
  EXPECT_EQ(get(new_reader), "hello world!");
}

TEST_F(PipeTest, FullPipeOfItsOwnSize) {
  const Ends pipe = make_pipe();
  ASSERT_EQ(::fcntl(pipe.writer.get(), F_SETPIPE_SZ, 1 << 18), 1 << 18);
  std::string data(1 << 18, 'x');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 / 5);
  put(pipe.writer, data);
  const Pipe::State reader = dump(pipe.reader), writer = dump(pipe.writer);
  carry_over();
  const Fd new_writer = restore(writer), new_reader = restore(reader);
  EXPECT_EQ(::fcntl(new_reader.get(), F_GETPIPE_SZ), 1 << 18);
  EXPECT_EQ(::write(new_writer.get(), "x", 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(get(new_reader), data);
  EXPECT_EQ(get(pipe.reader), data);
}

TEST_F(PipeTest, RecordsAreThoseOfTheFormat) {
  const Ends pipe = make_pipe();
  put(pipe.writer, "abc");
  dump(pipe.writer);
  dump(pipe.reader);
  Pipe::conclude(dump_files_, dumped_);
  Pipe::write_images(dumped_, store_);
  test::commit(store_);
  ImageReader reader = store_.require(ImageKind::PIPES_DATA);
  pb::pipe_data_entry record;
  ASSERT_TRUE(reader.next(record));
  EXPECT_EQ(record.pipe_id(), pipe.id);
  EXPECT_EQ(record.bytes(), 3u);
  EXPECT_EQ(record.size(), static_cast<uint32_t>(::fcntl(pipe.reader.get(), F_GETPIPE_SZ)));
  EXPECT_EQ(reader.raw(3), "abc");
  EXPECT_NO_THROW(reader.expect_end());
}

TEST_F(PipeTest, PacketsKeepTheirBounds) {
  const Ends pipe = make_pipe(O_DIRECT);
  put(pipe.writer, "one");
  put(pipe.writer, "two two");
  const Pipe::State reader = dump(pipe.reader), writer = dump(pipe.writer);
  carry_over();
  const Fd new_reader = restore(reader), new_writer = restore(writer);
  EXPECT_NE(::fcntl(new_writer.get(), F_GETFL) & O_DIRECT, 0);
  put(new_writer, "three");
  EXPECT_EQ(get(new_reader), "one");
  EXPECT_EQ(get(new_reader), "two two");
  EXPECT_EQ(get(new_reader), "three");
  EXPECT_EQ(get(pipe.reader), "one");
}

TEST_F(PipeTest, EndOfFileAfterTheData) {
  Ends pipe = make_pipe();
  put(pipe.writer, "last words");
  pipe.writer.reset();
  const Pipe::State reader = dump(pipe.reader);
  carry_over();
  const Fd again = restore(reader);
  restored_.made.clear();
  EXPECT_EQ(get(again), "last words");
  EXPECT_EQ(::read(again.get(), nullptr, 0), 0);
  pollfd poll{.fd = again.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&poll, 1, 0), 1);
  EXPECT_EQ(poll.revents & POLLHUP, POLLHUP);
}

TEST_F(PipeTest, SeparateDescriptionsStaySeparate) {
  const Ends pipe = make_pipe();
  const Fd second = reopen(pipe.reader.get(), O_RDONLY | O_CLOEXEC);
  const Pipe::State a = dump(pipe.reader), b = dump(second), c = dump(pipe.writer);
  carry_over();
  const Fd first_again = restore(a), second_again = restore(b), writer = restore(c);
  EXPECT_NE(::fcntl(first_again.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(second_again.get(), F_GETFL) & O_NONBLOCK, 0);
  put(writer, "ab");
  EXPECT_EQ(get(first_again, 1), "a");
  EXPECT_EQ(get(second_again, 1), "b");
}

TEST_F(PipeTest, AnEndOutsideOfTheTreeIsRefused) {
  const Ends pipe = make_pipe();
  dump(pipe.reader);
  const Error error = error_of([&] { Pipe::conclude(dump_files_, dumped_); });
  EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_NE(error.what_failed().find("writing end"), std::string::npos);
  const std::string key = fmt::format("pipe:[{}]", pipe.id);
  EXPECT_NE(error.remedy().find(key), std::string::npos);

  dumped_ = {};
  dump(pipe.writer);
  EXPECT_NE(error_of([&] { Pipe::conclude(dump_files_, dumped_); }).what_failed().find("reading end"),
            std::string::npos);
  dump_options_.external.push_back(key);
  EXPECT_NO_THROW(Pipe::conclude(dump_files_, dumped_));
}

TEST_F(PipeTest, AClosedOppositeEndIsNoneOutside) {
  Ends pipe = make_pipe();
  pipe.reader.reset();
  dump(pipe.writer);
  EXPECT_NO_THROW(Pipe::conclude(dump_files_, dumped_));
}

TEST_F(PipeTest, TheCallerCanGiveAnotherPipe) {
  const Ends old = make_pipe(), given = make_pipe();
  put(old.writer, "old data");
  const Pipe::State writer = dump(old.writer);
  dump(old.reader);
  carry_over();
  restore_options_.inherit_fd.push_back({given.reader.get(), fmt::format("pipe:[{}]", old.id)});
  const Fd again = restore(writer);
  put(again, "new data");
  EXPECT_EQ(get(given.reader), "new data");
}

TEST_F(PipeTest, TooMuchDataIsAnError) {
  const Ends pipe = make_pipe();
  dump(pipe.writer);
  const Pipe::State reader = dump(pipe.reader);
  carry_over();
  restored_.contents[pipe.id] = {.capacity_bytes = 4096, .packets = {std::string(5000, 'x')}};
  EXPECT_EQ(error_of([&] { restore(reader); }).reason(), Reason::RESTORE_CALL_FAILED);
}

TEST_F(PipeTest, NamedOnesAreNotMatched) {
  const test::Directory dir;
  const std::string path = dir.path() + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(Pipe::match(view_of(Fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)).get())));
}

}  // namespace
}  // namespace stasis

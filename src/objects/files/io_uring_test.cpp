#include "objects/files/io_uring.h"

#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <functional>

#include "objects/files/io_uring_kernel.h"
#include "objects/files/test_support.h"

namespace stasis {
namespace {

IoUring::State some_state() {
  IoUring::State s;
  s.id = 3;
  s.flags = O_RDWR;
  s.setup_flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  s.sq_entries = 8;
  s.cq_entries = 16;
  s.sq_head = 0xfffffff0;
  s.cq_tail = 5;
  s.submitter = 42;
  s.rings = std::string("rings\0with a zero", 17);
  s.entries = "entries";
  *s.registered = {.files = {{0, 0}, {7, 77}, {0, 0}},
                   .file_alloc_start = 1,
                   .file_alloc_end = 2,
                   .buffers = {{}, {.address = 0x7f0000000000, .bytes = 4096, .tag = 5}},
                   .eventfd = 9,
                   .eventfd_async = true,
                   .rings = {{42, 3}}};
  return s;
}

IoUring::State through_an_image(const IoUring::State& state) {
  pb::extension_file file;
  file.set_id(state.id);
  IoUring::encode_extension(state, file);
  std::string bytes;
  EXPECT_TRUE(file.SerializeToString(&bytes));
  pb::extension_file read;
  EXPECT_TRUE(read.ParseFromString(bytes));
  pb::file_entry entry;
  IoUring::encode(state, entry);
  EXPECT_EQ(entry.type(), pb::IO_URING);
  IoUring::State back;
  IoUring::decode(entry, back);
  IoUring::decode_extension(read, back);
  return back;
}

TEST(IoUring, GoesThroughAnImage) {
  const IoUring::State state = some_state(), back = through_an_image(state);
  EXPECT_EQ(back.id, state.id);
  EXPECT_EQ(back.flags, state.flags);
  EXPECT_EQ(back.owner, state.owner);
  EXPECT_EQ(back.setup_flags, state.setup_flags);
  EXPECT_EQ(std::pair(back.sq_entries, back.cq_entries), std::pair(state.sq_entries, state.cq_entries));
  EXPECT_EQ(std::pair(back.sq_head, back.cq_tail), std::pair(state.sq_head, state.cq_tail));
  EXPECT_EQ(back.submitter, state.submitter);
  EXPECT_EQ(std::pair(back.rings, back.entries), std::pair(state.rings, state.entries));
  EXPECT_EQ(*back.registered, *state.registered);
  EXPECT_EQ(IoUring::maker(back), 42);
}

TEST(IoUring, TakesSlotsFromTheWholeTableByDefault) {
  IoUring::State state = some_state();
  state.registered->file_alloc_start = 0;
  state.registered->file_alloc_end = 3;
  pb::extension_file file;
  IoUring::encode_extension(state, file);
  EXPECT_FALSE(file.io_uring().has_file_alloc_end());
  EXPECT_EQ(*through_an_image(state).registered, *state.registered);
}

TEST(IoUring, RefusesImagesOfRingsThatCannotBe) {
  const auto reason_of = [](const std::function<void(IoUring::State&)>& change) {
    IoUring::State state = some_state();
    change(state);
    return error_of([&] { through_an_image(state); }).reason();
  };
  using State = IoUring::State;
  EXPECT_EQ(reason_of([](State& s) { s.setup_flags |= IORING_SETUP_SQPOLL; }), Reason::IMAGE_UNSUPPORTED);
  EXPECT_EQ(reason_of([](State& s) { s.sq_entries = 0; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.sq_entries = 7; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.cq_entries = 1u << 31; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.cq_entries = 4; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.rings.resize(IoUring::ring_bytes(s) + 1); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.entries.resize(513); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.registered->file_alloc_end = 4; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.registered->file_alloc_start = 3; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.setup_flags |= IORING_SETUP_R_DISABLED; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.registered->rings.push_back({43, 0}); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](State& s) { s.submitter = 41; }), Reason::IMAGE_CORRUPT);
}

TEST(IoUring, HasToBeInTheExtension) {
  const RestoreOptions options;
  RestoreFiles files(options);
  files.state_of = [](uint32_t) -> const std::any* { return nullptr; };
  IoUring::Shared shared;
  EXPECT_EQ(error_of([&] { IoUring::plan({}, files, shared); }).reason(), Reason::IMAGE_CORRUPT);
  // Nor may it refer to files that are not there.
  EXPECT_EQ(error_of([&] { IoUring::plan(some_state(), files, shared); }).reason(), Reason::IMAGE_CORRUPT);
}

TEST(IoUring, KnowsTheSizesOfItsMemory) {
  IoUring::State s = some_state();
  EXPECT_EQ(IoUring::ring_bytes(s), 64 + 16 * 16 + 8 * 4u);
  EXPECT_EQ(IoUring::entry_bytes(s), 8 * 64u);
  s.setup_flags = IORING_SETUP_CQE32 | IORING_SETUP_SQE128 | 1u << 16;  // without an array
  EXPECT_EQ(IoUring::ring_bytes(s), 2 * (64 + 16 * 16u));
  EXPECT_EQ(IoUring::entry_bytes(s), 8 * 128u);
  EXPECT_TRUE(IoUring::maps_at(0) && IoUring::maps_at(IORING_OFF_SQES) && IoUring::maps_at(IORING_OFF_CQ_RING));
  EXPECT_FALSE(IoUring::maps_at(4096));
}

// What is read of the kernel's own memory, against what this program knows of its ring.
class KernelRingTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = open_ring_memory();
    if (!memory_) GTEST_SKIP() << "BPF programs and type information of the kernel";
    params_.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;
    ring_.reset(static_cast<int>(::syscall(SYS_io_uring_setup, 5, &params_)));
    if (!ring_) GTEST_SKIP() << "io_uring";
    if (!read_ring(*memory_, ring_.get())) GTEST_SKIP() << "rings as Linux 6.16 and later have them";
  }
  std::shared_ptr<KernelMemory> memory_;
  io_uring_params params_{};
  Fd ring_;
};

TEST_F(KernelRingTest, TellsHowARingWasMade) {
  const auto seen = read_ring(*memory_, ring_.get());
  EXPECT_EQ(seen->setup_flags, params_.flags);
  EXPECT_EQ(std::pair(seen->sq_entries, seen->cq_entries), std::pair(8u, 16u));
  EXPECT_EQ(seen->array_offset, params_.sq_off.array);
  EXPECT_EQ(seen->requests, 0u);
  EXPECT_EQ(seen->unsupported, "");
  EXPECT_FALSE(seen->overflowed || seen->compat || seen->skipped);
  ASSERT_EQ(seen->users.size(), 1u);
  EXPECT_EQ(seen->users.front().pid, ::getpid());
}

TEST_F(KernelRingTest, TellsWhatIsRegistered) {
  const Fd event(::eventfd(0, 0));
  const int number = event.get();
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring_.get(), IORING_REGISTER_EVENTFD_ASYNC, &number, 1), 0);
  const int files[] = {-1, number};
  ASSERT_EQ(::syscall(SYS_io_uring_register, ring_.get(), IORING_REGISTER_FILES, files, 2), 0);
  auto seen = read_ring(*memory_, ring_.get());
  EXPECT_TRUE(seen->eventfd_async);
  ASSERT_EQ(seen->files.size(), 2u);
  EXPECT_EQ(seen->files[0].file, 0u);
  int matches = 0;
  for (const OpenFile& f : open_files_of(*memory_, seen->users.front().task))
    if (f.file == seen->files[1].file) {
      EXPECT_EQ(f.number, number);
      EXPECT_EQ(private_data_of(*memory_, f.file), seen->eventfd);
      ++matches;
    }
  EXPECT_EQ(matches, 1);
  ASSERT_GT(::syscall(SYS_io_uring_register, ring_.get(), IORING_REGISTER_PERSONALITY, nullptr, 0), 0);
  EXPECT_NE(read_ring(*memory_, ring_.get())->unsupported, "");
}

}  // namespace
}  // namespace stasis

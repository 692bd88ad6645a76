#include "tracee/batch.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>

#include "base/error.h"
#include "tracee/batch_host.h"

namespace stasis {
namespace {

using arch::BatchEntry;

constexpr uint64_t kBase = 0x7000'0000'0000;

// The image of a batch, taken apart again.
struct Image {
  explicit Image(const SyscallBatch& batch) : batch_(batch) { batch.serialise(kBase, bytes); }
  BatchEntry undo(size_t i) const { return at(batch_.undo_offset() + i * sizeof(BatchEntry)); }
  BatchEntry entry(size_t i) const { return at(batch_.entries_offset() + i * sizeof(BatchEntry)); }
  uint64_t entry_address(size_t i) const { return kBase + batch_.entries_offset() + i * sizeof(BatchEntry); }
  uint64_t data_address(BatchData d) const { return kBase + batch_.data_offset() + d.offset; }
  uint64_t word(BatchData d) const {
    uint64_t out;
    std::memcpy(&out, bytes.data() + batch_.data_offset() + d.offset, sizeof out);
    return out;
  }
  std::vector<std::byte> bytes;

 private:
  BatchEntry at(size_t offset) const {
    BatchEntry out;
    std::memcpy(&out, bytes.data() + offset, sizeof out);
    return out;
  }
  const SyscallBatch& batch_;
};

// The tables as a task would leave them: entries and data, with chosen results.
std::vector<std::byte> left_by_task(const SyscallBatch& batch, std::initializer_list<int64_t> results) {
  std::vector<std::byte> bytes;
  batch.serialise(kBase, bytes);
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(batch.entries_offset()));
  size_t i = 0;
  for (int64_t r : results)
    std::memcpy(bytes.data() + i++ * sizeof(BatchEntry) + offsetof(BatchEntry, result), &r, sizeof r);
  return bytes;
}

TEST(SyscallBatch, AnEmptyBatchIsTwoEndMarks) {
  const SyscallBatch batch;
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(batch.size(), 2 * sizeof(BatchEntry));
  const Image image(batch);
  EXPECT_EQ(image.undo(0).number, arch::kEndOfTable);
  EXPECT_EQ(image.entry(0).number, arch::kEndOfTable);
}

TEST(SyscallBatch, ImmediateArgumentsAndFlagsArriveInOrder) {
  SyscallBatch batch;
  batch.call(SYS_mmap, {1, -1, RemotePtr<>(0x1234), nullptr, uint8_t{5}, 6});
  batch.must(SYS_close, {7});
  const Image image(batch);
  const BatchEntry first = image.entry(0), second = image.entry(1);
  EXPECT_EQ(first.number, uint64_t{SYS_mmap});
  EXPECT_EQ(first.args[0], 1u);
  EXPECT_EQ(first.args[1], ~uint64_t{0}) << "negative numbers are sign extended";
  EXPECT_EQ(first.args[2], 0x1234u);
  EXPECT_EQ(first.args[3], 0u);
  EXPECT_EQ(first.args[4], 5u);
  EXPECT_EQ(first.args[5], 6u);
  EXPECT_EQ(first.flags, 0u);
  EXPECT_EQ(static_cast<uint64_t>(first.result), arch::kNotRun);
  EXPECT_EQ(second.flags, arch::kStopOnError);
  EXPECT_EQ(image.entry(2).number, arch::kEndOfTable);
}

TEST(SyscallBatch, SevenArgumentsAreAMistakeOfTheCaller) {
  SyscallBatch batch;
  EXPECT_THROW(batch.call(SYS_mmap, {1, 2, 3, 4, 5, 6, 7}), Error);
}

TEST(SyscallBatch, DataIsRelocatedBehindTables) {
  SyscallBatch batch;
  const BatchData text = batch.text("/dev/null");
  const BatchData room = batch.space(100);
  batch.call(SYS_openat, {-100, text, 0});
  batch.call(SYS_read, {0, room, 100});
  batch.undo(SYS_unlink, {text});
  const Image image(batch);
  EXPECT_EQ(image.entry(0).args[1], image.data_address(text));
  EXPECT_EQ(image.entry(1).args[1], image.data_address(room));
  EXPECT_EQ(image.undo(0).args[0], image.data_address(text));
  EXPECT_STREQ(reinterpret_cast<const char*>(image.bytes.data()) + batch.data_offset() + text.offset, "/dev/null");
  EXPECT_EQ(text.size, 10u) << "the final zero is part of a text";
  EXPECT_EQ(room.offset % 8, 0u);
  EXPECT_EQ(image.bytes.size(), batch.size());
}

TEST(SyscallBatch, PartsOfDataAreAddressedToo) {
  SyscallBatch batch;
  batch.space(8);
  const BatchData pair = batch.space(16);
  batch.call(SYS_close, {pair.part(8, 8)});
  const Image image(batch);
  EXPECT_EQ(image.entry(0).args[0], image.data_address(pair) + 8);
}

TEST(SyscallBatch, PointsHoldAddressesInTheTask) {
  SyscallBatch batch;
  const BatchData target = batch.space(24);
  const BatchData holder = batch.space(32);
  batch.point(holder.part(16, 8), target);
  const Image image(batch);
  EXPECT_EQ(image.word(holder.part(16, 8)), image.data_address(target));
  EXPECT_EQ(image.word(holder.part(8, 8)), 0u);
}

TEST(SyscallBatch, StoreOverwritesInput) {
  SyscallBatch batch;
  const BatchData number = batch.object(uint64_t{1});
  const uint64_t other = 0x55;
  batch.store(number, std::as_bytes(std::span(&other, 1)));
  EXPECT_EQ(Image(batch).word(number), 0x55u);
  EXPECT_EQ(batch.value<uint64_t>(number), 0x55u);
}

TEST(SyscallBatch, ResultsGoToTheirOwnFieldUnlessForwarded) {
  SyscallBatch batch;
  const auto opened = batch.must(SYS_openat, {-100, batch.text("/dev/null"), 0});
  batch.must(SYS_dup3, {opened, 500, 0});
  batch.must(SYS_close, {1});
  const Image image(batch);
  EXPECT_EQ(image.entry(0).result_to, image.entry_address(1) + offsetof(BatchEntry, args));
  EXPECT_EQ(image.entry(1).result_to, image.entry_address(1) + offsetof(BatchEntry, result));
  EXPECT_EQ(image.entry(2).result_to, image.entry_address(2) + offsetof(BatchEntry, result));
}

TEST(SyscallBatch, AnyArgumentCanTakeAResult) {
  for (size_t slot = 0; slot < 6; ++slot) {
    SyscallBatch batch;
    batch.call(SYS_getpid, {});
    const auto from = batch.call(SYS_getpid, {});
    std::vector<SyscallBatch::Arg> args(6, SyscallBatch::Arg(9));
    args[slot] = from;
    batch.call(SYS_close, {args[0], args[1], args[2], args[3], args[4], args[5]});
    const Image image(batch);
    EXPECT_EQ(image.entry(1).result_to, image.entry_address(2) + offsetof(BatchEntry, args) + slot * 8);
  }
}

TEST(SyscallBatch, ASecondCallLoadsAResultAsItsFirstArgument) {
  SyscallBatch batch;
  const auto call = batch.must(SYS_getpid, {});
  batch.must(SYS_close, {call});
  batch.must(SYS_close, {call});
  EXPECT_THROW(batch.call(SYS_dup3, {1, call, 0}), Error);
  const Image image(batch);
  EXPECT_EQ(image.entry(0).result_to, image.entry_address(1) + offsetof(BatchEntry, args));
  EXPECT_EQ(image.entry(1).flags, arch::kStopOnError);
  EXPECT_EQ(image.entry(2).flags, arch::kStopOnError | arch::kLoadFirst);
  EXPECT_EQ(image.entry(2).args[0], image.entry_address(0) + offsetof(BatchEntry, result));
}

TEST(SyscallBatch, NoResultGoesIntoTheUndoTable) {
  SyscallBatch other;
  const auto only = other.call(SYS_getpid, {});
  EXPECT_THROW(other.undo(SYS_close, {only}), Error);
}

TEST(SyscallBatch, UndoTableComesFirstInItsOwnOrder) {
  SyscallBatch batch;
  batch.call(SYS_getpid, {});
  batch.undo(SYS_close, {500});
  batch.undo(SYS_close, {501});
  const Image image(batch);
  EXPECT_EQ(image.undo(0).args[0], 500u);
  EXPECT_EQ(image.undo(1).args[0], 501u);
  EXPECT_EQ(image.undo(2).number, arch::kEndOfTable);
  EXPECT_EQ(batch.entries_offset(), 3 * sizeof(BatchEntry));
  EXPECT_EQ(image.entry(0).number, uint64_t{SYS_getpid});
}

TEST(SyscallBatch, TakesResultsAndDataBack) {
  SyscallBatch batch;
  const auto first = batch.call(SYS_getpid, {});
  const auto second = batch.call(SYS_getuid, {});
  const BatchData out = batch.space(8);
  auto bytes = left_by_task(batch, {42, -EPERM});
  const uint64_t answer = 77;
  std::memcpy(bytes.data() + 3 * sizeof(BatchEntry), &answer, sizeof answer);
  batch.take_results(bytes);
  EXPECT_EQ(batch.result(first), 42);
  EXPECT_EQ(batch.result(second), -EPERM);
  EXPECT_TRUE(batch.was_run(second));
  EXPECT_EQ(batch.value<uint64_t>(out), 77u);
}

TEST(SyscallBatch, FailedIsTheCallThatEndedIt) {
  SyscallBatch batch;
  batch.call(SYS_getpid, {});
  const auto must = batch.must(SYS_dup3, {3, 500, 0});
  const auto after = batch.must(SYS_close, {1});
  EXPECT_EQ(batch.failed(), nullptr) << "nothing was run yet";

  batch.take_results(left_by_task(batch, {-EPERM, 3, 0}));
  EXPECT_EQ(batch.failed(), nullptr) << "the first call may fail";

  batch.take_results(left_by_task(batch, {0, -EBADF, static_cast<int64_t>(arch::kNotRun)}));
  ASSERT_NE(batch.failed(), nullptr);
  EXPECT_EQ(batch.failed()->result, -EBADF);
  EXPECT_TRUE(batch.was_run(must));
  EXPECT_FALSE(batch.was_run(after));
}

TEST(SyscallBatch, LargeResultsAreNoErrors) {
  SyscallBatch batch;
  batch.must(SYS_mmap, {});
  batch.take_results(left_by_task(batch, {-4096}));
  EXPECT_EQ(batch.failed(), nullptr);
  batch.take_results(left_by_task(batch, {-4095}));
  EXPECT_NE(batch.failed(), nullptr);
}

TEST(SyscallBatch, ErrorsNameCallArgumentsTaskAndErrno) {
  SyscallBatch batch;
  batch.must(SYS_dup3, {3, 500, 0});
  batch.take_results(left_by_task(batch, {-EBADF}));
  try {
    throw_if_failed(batch, "pid 42 (redis-server)");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::BATCH_CALL_FAILED);
    const std::string text = e.report();
    EXPECT_NE(text.find("dup3(0x3, 0x1f4"), std::string::npos) << text;
    EXPECT_NE(text.find("redis-server"), std::string::npos) << text;
    EXPECT_NE(text.find("EBADF"), std::string::npos) << text;
  }
}

TEST(SyscallBatch, ClearMakesItEmptyAgain) {
  SyscallBatch batch;
  batch.undo(SYS_close, {1});
  const BatchData d = batch.space(64);
  batch.point(d.part(0, 8), d);
  batch.call(SYS_read, {0, d, 64});
  batch.clear();
  EXPECT_EQ(batch.size(), SyscallBatch().size());
  EXPECT_EQ(batch.calls(), 0u);
}

}  // namespace
}  // namespace stasis

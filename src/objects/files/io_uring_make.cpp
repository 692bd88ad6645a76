// Making a ring of io_uring again, by a task.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"
#include "objects/files/io_uring.h"
#include "objects/files/io_uring_memory.h"

namespace stasis {
namespace {

constexpr uint32_t kNoArray = 1u << 16;     // IORING_SETUP_NO_SQARRAY
constexpr uint32_t kSparse = 1;             // IORING_RSRC_REGISTER_SPARSE
constexpr uint8_t kNoCompletion = 1u << 6;  // IOSQE_CQE_SKIP_SUCCESS
constexpr uint32_t kHelperEntries = 128;
constexpr uint32_t kLeftAtATime = 20;  // IO_LOCAL_TW_DEFAULT_MAX
constexpr size_t kSlotsPerCall = 1024;
constexpr size_t kRoomAtEnd = 4096;  // bytes that a batch leaves free

Error making_failed(const IoUring::State& state, std::string_view what) {
  return Error(Reason::RESTORE_CALL_FAILED, std::string(what))
      .object(fmt::format("ring of io_uring (file {})", state.id));
}

// A ring in the task under `number`.
void set_up(const IoUring::State& state, uint32_t flags, int number, MakingTask& task) {
  io_uring_params params{};
  params.flags = flags;
  params.cq_entries = state.cq_entries;
  SyscallBatch batch;
  const BatchData where = batch.object(params);
  const auto call = batch.must(SYS_io_uring_setup, {state.sq_entries, where});
  task.run(batch);
  const auto made = batch.value<io_uring_params>(where);
  if (made.sq_entries != state.sq_entries || made.cq_entries != state.cq_entries || made.cq_off.cqes != 64 ||
      ((flags & kNoArray) == 0 && made.sq_off.array + state.sq_entries * 4 != IoUring::ring_bytes(state)))
    throw making_failed(state, "the kernel made another ring than the one that was asked for");
  const int64_t got = batch.result(call);
  if (number < 0 || got == number) return;
  batch.clear();
  batch.must(SYS_dup3, {got, number, O_CLOEXEC});
  batch.must(SYS_close, {got});
  task.run(batch);
}

// Counts a new ring up. Entries are taken and completions are posted by the kernel alone, so both are made to happen;
// what it reads of the program's side (the tail of entries, the head of completions) is written as it goes.
class Counting {
 public:
  Counting(const IoUring::State& state, MakingTask& task, const RingMemory& rings, const RingMemory& entries)
      : state_(state), task_(task), rings_(rings), entries_(entries) {
    SyscallBatch batch;
    const auto call =
        batch.must(SYS_mmap, {0, IoUring::ring_bytes(state), PROT_READ | PROT_WRITE, MAP_SHARED, task.number, 0});
    task.run(batch);
    in_task_ = static_cast<uint64_t>(batch.result(call));
  }

  void run() {
    const auto ahead = static_cast<int32_t>(state_.sq_head - state_.cq_tail);
    submit(ahead > 0 ? state_.cq_tail : state_.sq_head, 0);
    if (ahead > 0) submit(static_cast<uint32_t>(ahead), kNoCompletion);
    if (ahead < 0) post(state_.cq_tail - state_.sq_head);
    if (rings_.word(RingMemory::sq_head) != state_.sq_head || rings_.word(RingMemory::cq_tail) != state_.cq_tail)
      throw making_failed(
          state_, fmt::format("the ring counted to {} and {} instead of {} and {}", rings_.word(RingMemory::sq_head),
                              rings_.word(RingMemory::cq_tail), state_.sq_head, state_.cq_tail));
    SyscallBatch batch;
    batch.must(SYS_munmap, {in_task_, IoUring::ring_bytes(state_)});
    task_.run(batch);
  }

 private:
  // `count` requests that do nothing.
  void submit(uint32_t count, uint8_t flags) {
    if (count == 0) return;
    const size_t stride = IoUring::entry_bytes(state_) / state_.sq_entries;
    for (uint32_t i = 0; i < state_.sq_entries; ++i) {
      io_uring_sqe entry{};
      entry.opcode = IORING_OP_NOP;
      entry.flags = flags;
      std::memcpy(entries_.bytes().data() + i * stride, &entry, sizeof entry);
      if ((state_.setup_flags & kNoArray) == 0)
        rings_.set_word(IoUring::ring_bytes(state_) - size_t{state_.sq_entries - i} * 4, i);
    }
    rings_.set_word(RingMemory::sq_tail, rings_.word(RingMemory::sq_head) + count);
    repeat(task_.number, state_.sq_entries, count, flags == 0);
  }

  // Completions without an entry, sent from another ring.
  void post(uint32_t count) {
    IoUring::State helper;
    helper.sq_entries = kHelperEntries;
    helper.cq_entries = 2 * kHelperEntries;
    SyscallBatch batch;
    io_uring_params params{};
    const BatchData where = batch.object(params);
    const auto call = batch.must(SYS_io_uring_setup, {kHelperEntries, where});
    task_.run(batch);
    const auto number = static_cast<int>(batch.result(call));
    {
      const Fd ring = task_.duplicate(number);
      const RingMemory rings(ring.get(), IORING_OFF_SQ_RING, IoUring::ring_bytes(helper), task_.who);
      const RingMemory entries(ring.get(), IORING_OFF_SQES, IoUring::entry_bytes(helper), task_.who);
      for (uint32_t i = 0; i < kHelperEntries; ++i) {
        io_uring_sqe entry{};
        entry.opcode = IORING_OP_MSG_RING;
        entry.fd = task_.number;
        entry.flags = kNoCompletion;
        std::memcpy(entries.bytes().data() + i * sizeof entry, &entry, sizeof entry);
        rings.set_word(IoUring::ring_bytes(helper) - size_t{kHelperEntries - i} * 4, i);
      }
      rings.set_word(RingMemory::sq_tail, count);
      repeat(number, std::min(kHelperEntries, state_.cq_entries), count, true);
    }
    batch.clear();
    batch.must(SYS_close, {number});
    task_.run(batch);
  }

  // Submits `count` entries of the ring `number`, `most` at a time; `posts`: each makes a completion in this ring, for
  // which there has to be room.
  void repeat(int number, uint32_t most, uint32_t count, bool posts) {
    SyscallBatch batch;
    uint32_t posted = rings_.word(RingMemory::cq_tail), taken = posted;
    rings_.set_word(RingMemory::cq_head, taken);
    const auto run = [&] {
      task_.run(batch);
      batch.clear();
      check_interrupted();
    };
    while (count != 0) {
      const uint32_t some = std::min(most, count);
      if (posts && posted + some - taken > state_.cq_entries) take(batch, taken = posted);
      batch.must(SYS_io_uring_enter, {number, some, 0, 0, nullptr, 0});
      // Only this runs what another ring has left to the thread (IORING_SETUP_DEFER_TASKRUN), some at a time.
      for (uint32_t i = 0; number != task_.number && i <= some / kLeftAtATime; ++i)
        batch.must(SYS_io_uring_enter, {task_.number, 0, 0, IORING_ENTER_GETEVENTS, nullptr, 0});
      count -= some;
      if (posts) posted += some;
      if (batch.size() + kRoomAtEnd > task_.batch_bytes) run();
    }
    if (!batch.empty()) run();
  }

  // The task itself writes the head of completions, between two calls of a batch.
  void take(SyscallBatch& batch, uint32_t head) {
    const BatchData value = batch.object(head);
    const BatchData from = batch.object(iovec{nullptr, sizeof head});
    batch.point(from.part(0, 8), value);
    const BatchData to = batch.object(iovec{reinterpret_cast<void*>(in_task_ + RingMemory::cq_head), sizeof head});
    batch.must(SYS_process_vm_readv, {task_.pid, to, 1, from, 1, 0});
  }

  const IoUring::State& state_;
  MakingTask& task_;
  const RingMemory& rings_;
  const RingMemory& entries_;
  uint64_t in_task_ = 0;
};

int number_in(const MakingTask& task, uint32_t id, const IoUring::State& state) {
  const auto at = std::ranges::find(task.table, id, &DescriptorSlot::id);
  if (at == task.table.end())
    throw making_failed(state, "the task that makes the ring has no descriptor of a registered file");
  return at->number;
}

// Slots are filled some at a time: a table may be larger than a batch.
template <class Slot>
void fill_table(const IoUring::State& state, MakingTask& task, uint32_t make, uint32_t update,
                std::span<const Slot> slots, std::span<const uint64_t> tags) {
  if (slots.empty()) return;
  SyscallBatch batch;
  io_uring_rsrc_register table{};
  table.nr = static_cast<uint32_t>(slots.size());
  table.flags = kSparse;
  batch.must(SYS_io_uring_register, {task.number, make, batch.object(table), sizeof table});
  task.run(batch);
  for (size_t first = 0; first < slots.size(); first += kSlotsPerCall) {
    const size_t count = std::min(kSlotsPerCall, slots.size() - first);
    batch.clear();
    io_uring_rsrc_update2 part{};
    part.offset = static_cast<uint32_t>(first);
    part.nr = static_cast<uint32_t>(count);
    const BatchData where = batch.object(part);
    batch.point(where.part(offsetof(io_uring_rsrc_update2, data), 8),
                batch.data(std::as_bytes(slots.subspan(first, count))));
    batch.point(where.part(offsetof(io_uring_rsrc_update2, tags), 8),
                batch.data(std::as_bytes(tags.subspan(first, count))));
    const auto call = batch.must(SYS_io_uring_register, {task.number, update, where, sizeof part});
    task.run(batch);
    if (batch.result(call) != static_cast<int64_t>(count))
      throw making_failed(state, "not all files or buffers can be registered");
  }
}

void register_all(const IoUring::State& state, MakingTask& task) {
  const IoUring::Registered& r = *state.registered;
  std::vector<int32_t> files;
  std::vector<uint64_t> file_tags, buffer_tags;
  for (const IoUring::RegisteredFile& f : r.files) {
    files.push_back(f.id == 0 ? -1 : number_in(task, f.id, state));
    file_tags.push_back(f.tag);
  }
  std::vector<iovec> buffers;
  for (const IoUring::RegisteredBuffer& b : r.buffers) {
    buffers.push_back({reinterpret_cast<void*>(b.address), b.bytes});
    buffer_tags.push_back(b.tag);
  }
  fill_table<int32_t>(state, task, IORING_REGISTER_FILES2, IORING_REGISTER_FILES_UPDATE2, files, file_tags);
  fill_table<iovec>(state, task, IORING_REGISTER_BUFFERS2, IORING_REGISTER_BUFFERS_UPDATE, buffers, buffer_tags);
  SyscallBatch batch;
  if (!files.empty() && (r.file_alloc_start != 0 || r.file_alloc_end != files.size())) {
    io_uring_file_index_range range{};
    range.off = r.file_alloc_start;
    range.len = r.file_alloc_end - r.file_alloc_start;
    batch.must(SYS_io_uring_register, {task.number, IORING_REGISTER_FILE_ALLOC_RANGE, batch.object(range), 0});
  }
  if (r.eventfd != 0)
    batch.must(SYS_io_uring_register,
               {task.number, r.eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC : IORING_REGISTER_EVENTFD,
                batch.object(int32_t{number_in(task, r.eventfd, state)}), 1});
  for (const IoUring::RegisteredRing& ring : r.rings) {
    io_uring_rsrc_update update{};
    update.offset = ring.index;
    update.data = static_cast<uint64_t>(task.number);
    batch.must(SYS_io_uring_register, {task.number, IORING_REGISTER_RING_FDS, batch.object(update), 1});
  }
  if (!batch.empty()) task.run(batch);
}

void write_ring(std::string_view saved, std::span<std::byte> bytes) {
  std::memset(bytes.data(), 0, bytes.size());
  std::memcpy(bytes.data(), saved.data(), saved.size());
}

}  // namespace

void IoUring::make(const State& state, MakingTask& task, RestoreFiles&) {
  set_up(state, state.setup_flags, task.number, task);
  const Fd ring = task.duplicate(task.number);
  const RingMemory rings(ring.get(), IORING_OFF_SQ_RING, ring_bytes(state), task.who);
  const RingMemory entries(ring.get(), IORING_OFF_SQES, entry_bytes(state), task.who);
  if (state.sq_head != 0 || state.cq_tail != 0) Counting(state, task, rings, entries).run();
  write_ring(state.entries, entries.bytes());
  write_ring(state.rings, rings.bytes());
  register_all(state, task);
  restore_status_flags(ring.get(), state.flags, fmt::format("ring of io_uring (file {})", state.id));
}

}  // namespace stasis

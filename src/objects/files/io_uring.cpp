#include "objects/files/io_uring.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "base/page_size.h"
#include "kernel/proc.h"
#include "kernel/process.h"
#include "objects/files/io_uring_kernel.h"
#include "objects/files/io_uring_memory.h"
#include "proto/fown.pb.h"

namespace stasis {
namespace {

constexpr std::string_view kRingLink = "anon_inode:[io_uring]";
constexpr uint32_t kWithoutArray = 1u << 16;  // IORING_SETUP_NO_SQARRAY, Linux 6.6
constexpr uint32_t kKeptFlags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED |
                                IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                                IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER |
                                IORING_SETUP_DEFER_TASKRUN | kWithoutArray;
constexpr uint32_t kMostEntries = 32768;  // of submissions; twice as many completions
constexpr auto kRingPatience = std::chrono::milliseconds(300);
constexpr auto kRingPoll = std::chrono::milliseconds(1);

std::string ring_of(uint32_t id) {
  return fmt::format("ring of io_uring (file {})", id);
}

Error ring_refused(const FileView& view, std::string why, std::string remedy) {
  return Error(Reason::UNSUPPORTED_FILE, std::move(why)).object(view.who()).remedy(std::move(remedy));
}

std::string name_of_flags(uint32_t flags) {
  if ((flags & IORING_SETUP_SQPOLL) != 0) return "a thread that polls for submissions (SQPOLL)";
  if ((flags & IORING_SETUP_IOPOLL) != 0) return "polling for completions (IOPOLL)";
  return fmt::format("setup flags {:#x}", flags);
}

void refuse_rings_that_cannot_be_made(const FileView& view, const KernelRing& ring) {
  if (const uint32_t foreign = ring.setup_flags & ~kKeptFlags; foreign != 0)
    throw ring_refused(view, fmt::format("the ring has {}, which this version does not save", name_of_flags(foreign)),
                       "let the program set the ring up without it, or close it before the dump");
  if (!ring.unsupported.empty())
    throw ring_refused(view, fmt::format("the ring has {}, which this version does not save", ring.unsupported),
                       "let the program unregister it, or close the ring before the dump");
  if (ring.compat)
    throw ring_refused(view, "the ring belongs to a 32-bit program", "let the program close it before the dump");
  if (ring.requests != 0)
    throw Error(Reason::IO_URING_BUSY, fmt::format("{} requests of the ring are in flight", ring.requests))
        .object(view.who())
        .remedy("let the program finish or cancel its requests before the dump");
  if (ring.overflowed)
    throw Error(Reason::IO_URING_BUSY, "completions wait outside of the ring, which is full")
        .object(view.who())
        .remedy("let the program take its completions before the dump");
  // More entries taken than completions posted: entries without a completion, and those are told by a flag of each.
  if (static_cast<int32_t>(ring.sq_head - ring.cq_tail) > 0 && !ring.skipped)
    throw ring_refused(view,
                       "the ring has taken entries for which it posted nothing (invalid ones, or completions it lost)",
                       "let the program set the ring up again");
}

// A thread of the process that holds the descriptor.
const KernelRing::User* user_in(const KernelRing& ring, pid_t holder) {
  const auto at = std::ranges::find_if(ring.users, [&](const KernelRing::User& u) { return u.pid == holder; });
  return at == ring.users.end() ? nullptr : &*at;
}

int number_of(std::span<const OpenFile> open, uint64_t file) {
  const auto at = std::ranges::find(open, file, &OpenFile::file);
  return at == open.end() ? -1 : at->number;
}

void find_registered(const FileView& view, const KernelMemory& memory, const KernelRing& ring, IoUring::Seen& seen) {
  const bool some = ring.eventfd != 0 || std::ranges::any_of(ring.files, [](const auto& f) { return f.file != 0; });
  std::vector<OpenFile> open;
  if (some) {
    const KernelRing::User* user = user_in(ring, view.pid);
    if (user != nullptr) open = open_files_of(memory, user->task);
    if (open.empty())
      throw ring_refused(view, "the ring has registered files, and the process that made it is gone",
                         "let the program close the ring before the dump");
  }
  for (const KernelRing::RegisteredFile& f : ring.files) {
    seen.files.push_back(f.file == 0 ? -1 : number_of(open, f.file));
    if (f.file != 0 && seen.files.back() < 0)
      throw ring_refused(
          view, fmt::format("slot {} of its registered files has no descriptor any more", seen.files.size() - 1),
          "let the program keep the descriptors of files that it registers");
  }
  if (ring.eventfd == 0) return;
  for (const OpenFile& f : open)
    if (private_data_of(memory, f.file) == ring.eventfd) seen.eventfd = f.number;
  if (seen.eventfd < 0)
    throw ring_refused(view, "the eventfd that it has registered has no descriptor any more",
                       "let the program keep the descriptor of the eventfd");
}

// One thread makes the ring, and does again what only the thread itself could do.
void find_threads(const FileView& view, const KernelRing& ring, IoUring::State& state) {
  state.submitter = ring.submitter;
  for (const KernelRing::User& u : ring.users)
    for (const uint32_t index : u.registered) state.registered->rings.push_back({u.tid, index});
  std::vector<pid_t> threads;
  if (state.submitter != 0) threads.push_back(state.submitter);
  for (const IoUring::RegisteredRing& r : state.registered->rings) threads.push_back(r.tid);
  for (const pid_t tid : threads) {
    const auto user = std::ranges::find(ring.users, tid, &KernelRing::User::tid);
    if (tid != threads.front() || user == ring.users.end() || user->pid != view.pid)
      throw ring_refused(
          view, "several threads have registered the ring, or one that does not hold it any more",
          "let one thread use the ring, or let threads unregister its descriptor (IORING_UNREGISTER_RING_FDS)");
  }
}

std::string without_zeros(std::span<const std::byte> bytes) {
  size_t used = bytes.size();
  while (used > 0 && bytes[used - 1] == std::byte{0}) --used;
  return {reinterpret_cast<const char*>(bytes.data()), used};
}

Error bad_ring(const IoUring::State& state, std::string_view why) {
  return Error(Reason::IMAGE_CORRUPT, std::string(why)).object(ring_of(state.id));
}

}  // namespace

bool IoUring::match(const FileView& view) {
  return view.link == kRingLink;
}

size_t IoUring::ring_bytes(const State& s) {
  constexpr size_t kHead = 64, kLine = 64;
  // With completions of twice the size the kernel doubles the head, too.
  const size_t before_array = (kHead + size_t{s.cq_entries} * 16) * ((s.setup_flags & IORING_SETUP_CQE32) != 0 ? 2 : 1);
  const size_t array = (s.setup_flags & kWithoutArray) != 0 ? 0 : size_t{s.sq_entries} * sizeof(uint32_t);
  return (before_array + kLine - 1) / kLine * kLine + array;
}

size_t IoUring::entry_bytes(const State& s) {
  return size_t{s.sq_entries} * ((s.setup_flags & IORING_SETUP_SQE128) != 0 ? 128 : 64);
}

bool IoUring::maps_at(uint64_t offset) {
  return offset == IORING_OFF_SQ_RING || offset == IORING_OFF_CQ_RING || offset == IORING_OFF_SQES;
}

void IoUring::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  const KernelMemory& memory = files.kernel_memory();
  const std::optional<KernelRing> ring = read_ring(memory, view.fd);
  if (!ring)
    throw Error(Reason::FEATURE_MISSING, "this kernel keeps rings of io_uring in a way that this version does not know")
        .object(view.who())
        .remedy("use Linux 6.16 or later, or let the program close the ring before the dump");
  refuse_rings_that_cannot_be_made(view, *ring);
  state.setup_flags = ring->setup_flags | IORING_SETUP_CQSIZE;
  state.sq_entries = ring->sq_entries;
  state.cq_entries = ring->cq_entries;
  state.sq_head = ring->sq_head;
  state.cq_tail = ring->cq_tail;
  find_threads(view, *ring, state);
  Seen seen{
      .id = view.id, .registered = state.registered, .pid = view.pid, .files = {}, .eventfd = -1, .who = view.who()};
  find_registered(view, memory, *ring, seen);
  Registered& registered = *state.registered;
  for (const KernelRing::RegisteredFile& f : ring->files) registered.files.push_back({0, f.tag});
  for (const KernelRing::RegisteredBuffer& b : ring->buffers) registered.buffers.push_back({b.address, b.bytes, b.tag});
  registered.file_alloc_start = ring->file_alloc_start;
  registered.file_alloc_end = ring->file_alloc_end;
  registered.eventfd_async = ring->eventfd_async;
  const RingMemory rings(view.fd, IORING_OFF_SQ_RING, ring_bytes(state), view.who());
  const RingMemory entries(view.fd, IORING_OFF_SQES, entry_bytes(state), view.who());
  if (rings.word(RingMemory::sq_head) != state.sq_head || rings.word(RingMemory::cq_tail) != state.cq_tail ||
      (ring->array_offset != 0 && ring->array_offset + state.sq_entries * sizeof(uint32_t) != ring_bytes(state)) ||
      rings.word(RingMemory::sq_entries) != state.sq_entries || rings.word(RingMemory::cq_entries) != state.cq_entries)
    throw Error(Reason::FEATURE_MISSING, "this kernel keeps rings of io_uring in a way that this version does not know")
        .object(view.who());
  state.rings = without_zeros(rings.bytes());
  state.entries = without_zeros(entries.bytes());
  shared.seen.push_back(std::move(seen));
}

void IoUring::conclude(DumpFiles& files, Shared& shared) {
  for (const Seen& seen : shared.seen) {
    const auto id_of = [&](int number) {
      const uint32_t id = files.file_at(seen.pid, number);
      if (id == 0)
        throw Error(Reason::UNSUPPORTED_FILE, "a registered file is in a descriptor table that is shared crosswise")
            .object(seen.who)
            .remedy("let the program unregister its files before the dump");
      if (std::ranges::find(shared.seen, id, &Seen::id) != shared.seen.end())
        throw Error(Reason::UNSUPPORTED_FILE, "a ring is among its registered files")
            .object(seen.who)
            .remedy("let the program unregister the ring before the dump");
      return id;
    };
    for (size_t i = 0; i < seen.files.size(); ++i)
      if (seen.files[i] >= 0) seen.registered->files[i].id = id_of(seen.files[i]);
    if (seen.eventfd >= 0) seen.registered->eventfd = id_of(seen.eventfd);
  }
}

void IoUring::encode(const State& state, pb::file_entry& out) {
  out.set_type(type);
  out.set_id(state.id);
}

void IoUring::decode(const pb::file_entry& in, State& state) {
  state.id = in.id();
}

void IoUring::encode_extension(const State& state, pb::extension_file& file) {
  pb::extension_io_uring& out = *file.mutable_io_uring();
  out.set_flags(state.flags);
  encode_file_owner(state.owner, *out.mutable_owner());
  out.set_setup_flags(state.setup_flags);
  out.set_sq_entries(state.sq_entries);
  out.set_cq_entries(state.cq_entries);
  out.set_sq_head(state.sq_head);
  out.set_cq_tail(state.cq_tail);
  out.set_rings(state.rings);
  out.set_entries(state.entries);
  if (state.submitter != 0) out.set_submitter(static_cast<uint32_t>(state.submitter));
  const Registered& r = *state.registered;
  for (const RegisteredFile& f : r.files) {
    pb::extension_io_uring_file& slot = *out.add_files();
    if (f.id != 0) slot.set_id(f.id);
    if (f.tag != 0) slot.set_tag(f.tag);
  }
  if (!r.files.empty() && (r.file_alloc_start != 0 || r.file_alloc_end != r.files.size())) {
    out.set_file_alloc_start(r.file_alloc_start);
    out.set_file_alloc_end(r.file_alloc_end);
  }
  for (const RegisteredBuffer& b : r.buffers) {
    pb::extension_io_uring_buffer& slot = *out.add_buffers();
    if (b.bytes != 0) {
      slot.set_address(b.address);
      slot.set_bytes(b.bytes);
    }
    if (b.tag != 0) slot.set_tag(b.tag);
  }
  if (r.eventfd != 0) out.set_eventfd(r.eventfd);
  if (r.eventfd_async) out.set_eventfd_async(true);
  for (const RegisteredRing& ring : r.rings) {
    pb::extension_io_uring_registered& entry = *out.add_registered();
    entry.set_thread(static_cast<uint32_t>(ring.tid));
    entry.set_index(ring.index);
  }
}

void IoUring::decode_extension(const pb::extension_file& file, State& state) {
  const pb::extension_io_uring& in = file.io_uring();
  state.flags = in.flags();
  state.owner = decode_file_owner(in.owner());
  state.setup_flags = in.setup_flags();
  state.sq_entries = in.sq_entries();
  state.cq_entries = in.cq_entries();
  state.sq_head = in.sq_head();
  state.cq_tail = in.cq_tail();
  state.rings = in.rings();
  state.entries = in.entries();
  state.submitter = static_cast<pid_t>(in.submitter());
  Registered& r = *state.registered;
  for (const auto& f : in.files()) r.files.push_back({f.id(), f.tag()});
  r.file_alloc_start = in.file_alloc_start();
  r.file_alloc_end = in.has_file_alloc_end() ? in.file_alloc_end() : static_cast<uint32_t>(r.files.size());
  for (const auto& b : in.buffers()) r.buffers.push_back({b.address(), b.bytes(), b.tag()});
  r.eventfd = in.eventfd();
  r.eventfd_async = in.eventfd_async();
  for (const auto& ring : in.registered()) r.rings.push_back({static_cast<pid_t>(ring.thread()), ring.index()});
  if ((state.setup_flags & ~kKeptFlags) != 0)
    throw Error(Reason::IMAGE_UNSUPPORTED, fmt::format("setup flags {:#x}", state.setup_flags))
        .object(ring_of(state.id));
  if (!std::has_single_bit(state.sq_entries) || !std::has_single_bit(state.cq_entries) ||
      state.sq_entries > kMostEntries || state.cq_entries > 2 * kMostEntries || state.cq_entries < state.sq_entries)
    throw bad_ring(state, "a ring cannot have so many entries");
  if (state.rings.size() > ring_bytes(state) || state.entries.size() > entry_bytes(state))
    throw bad_ring(state, "the contents are larger than the ring");
  if (r.file_alloc_start > r.file_alloc_end || r.file_alloc_end > r.files.size())
    throw bad_ring(state, "slots are to be taken from beyond the table of registered files");
  if ((state.setup_flags & IORING_SETUP_R_DISABLED) != 0 && (state.sq_head != 0 || state.cq_tail != 0))
    throw bad_ring(state, "a ring that was never enabled has been used");
  for (const RegisteredRing& ring : r.rings)
    if (ring.tid != r.rings.front().tid || (state.submitter != 0 && ring.tid != state.submitter))
      throw bad_ring(state, "several threads have registered it");
}

void IoUring::plan(const State& state, RestoreFiles& files, Shared&) {
  if (state.sq_entries == 0) throw bad_ring(state, "extension.img does not tell what it is");
  const auto check_file = [&](uint32_t id) {
    if (id != 0 && (files.state_of(id) == nullptr || files.type_of(id) == type))
      throw bad_ring(state, "a registered file is not in the images");
  };
  for (const RegisteredFile& f : state.registered->files) check_file(f.id);
  check_file(state.registered->eventfd);
}

pid_t IoUring::maker(const State& state) {
  if (state.submitter != 0) return state.submitter;
  return state.registered->rings.empty() ? 0 : state.registered->rings.front().tid;
}

void IoUring::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, ring_of(state.id));
}

void await_rings(pid_t pid, const KernelMemory& memory) noexcept {
  try {
    ProcDir proc(pid);
    const Fd pidfd(pidfd_open(pid));
    std::vector<Fd> rings;
    for (const int number : proc.fds())
      if (proc.readlink(fmt::format("fd/{}", number).c_str()) == kRingLink)
        if (Fd ring(pidfd_getfd(pidfd.get(), number)); ring) rings.push_back(std::move(ring));
    const auto deadline = std::chrono::steady_clock::now() + kRingPatience;
    for (const Fd& ring : rings)
      for (;;) {
        const auto seen = read_ring(memory, ring.get());
        if (!seen || seen->requests == 0 || std::chrono::steady_clock::now() > deadline) break;
        ::usleep(std::chrono::microseconds(kRingPoll).count());
      }
  } catch (const Error& e) {
    log_debug("rings of pid {} were not waited for: {}", pid, e.what());
  }
}

}  // namespace stasis

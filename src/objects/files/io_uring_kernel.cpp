#include "objects/files/io_uring_kernel.h"

#include <array>
#include <cstring>
#include <span>
#include <string_view>

namespace stasis {
namespace {

// More than any ring can have.
constexpr uint64_t kMostRequests = 1u << 20;
constexpr uint32_t kMostSlots = 1u << 20;
constexpr size_t kMostUsers = 1u << 16;
constexpr size_t kMostRegisteredRings = 16;  // IO_RINGFD_REG_MAX
constexpr uint64_t kFlagsOfFile = 7;         // in the low bits of the address in a slot

struct Missing {};

// The bytes of one structure of the kernel, which were read at once.
class Struct {
 public:
  Struct(const KernelMemory& memory, std::string_view type, uint64_t address)
      : memory_(&memory), type_(type), address_(address) {
    const auto bytes = memory.types().size(type);
    if (!bytes) throw Missing{};
    bytes_.resize(*bytes);
    if (!memory.read(address, bytes_.data(), bytes_.size())) throw Missing{};
  }

  uint32_t offset(std::string_view path) const {
    const auto at = memory_->types().offset(type_, path);
    if (!at) throw Missing{};
    return *at;
  }
  uint64_t address_of(std::string_view path) const { return address_ + offset(path); }
  template <class T>
  T get(std::string_view path) const {
    T out;
    const size_t at = offset(path);
    if (at + sizeof out > bytes_.size()) throw Missing{};
    std::memcpy(&out, bytes_.data() + at, sizeof out);
    return out;
  }
  uint32_t word(std::string_view path) const { return get<uint32_t>(path); }
  uint64_t pointer(std::string_view path) const { return get<uint64_t>(path); }
  // Of a bit field, or of a bool.
  bool bit(std::string_view path) const {
    const auto m = memory_->types().member(type_, path);
    if (!m || m->bit_offset / 8 >= bytes_.size()) throw Missing{};
    const auto byte = static_cast<unsigned>(bytes_[m->bit_offset / 8]);
    return m->bits == 0 ? byte != 0 : (byte >> m->bit_offset % 8 & 1) != 0;
  }
  bool has(std::string_view path) const { return memory_->types().member(type_, path).has_value(); }
  bool list_is_empty(std::string_view path) const { return pointer(path) == address_of(path); }

 private:
  const KernelMemory* memory_;
  std::string_view type_;
  uint64_t address_;
  std::vector<std::byte> bytes_;
};

std::vector<uint64_t> read_pointers(const KernelMemory& memory, uint64_t address, uint32_t count) {
  if (count > kMostSlots) throw Missing{};
  std::vector<uint64_t> out(count);
  if (count != 0 && !memory.read(address, out.data(), out.size() * sizeof(uint64_t))) throw Missing{};
  return out;
}

// What a newer kernel may have beside this is unknown, and so is what it means.
std::string unsupported_state(const Struct& ctx) {
  struct Check {
    std::string_view member;
    std::string_view what;
  };
  constexpr Check pointers[] = {
      {"io_bl_xa.xa_head", "provided buffers"},
      {"personalities.xa_head", "registered personalities"},
      {"zcrx_ctxs.xa_head", "a queue of a network device"},
      {"sq_creds", "a thread that polls for submissions (SQPOLL)"},
      {"cq_wait_arg", "a registered memory region"},
  };
  for (const Check& c : pointers)
    if (ctx.has(c.member) && ctx.pointer(c.member) != 0) return std::string(c.what);
  constexpr Check bits[] = {{"restricted", "restrictions"},
                            {"restrictions.registered", "restrictions"},
                            {"iowq_limits_set", "limits of its worker threads"}};
  for (const Check& c : bits)
    if (ctx.has(c.member) && ctx.bit(c.member)) return std::string(c.what);
  if (ctx.has("clockid") && ctx.word("clockid") != 1) return "a clock other than CLOCK_MONOTONIC";
  constexpr uint8_t kNoTracking = 255;
  if (ctx.has("napi_track_mode") && ctx.get<uint8_t>("napi_track_mode") != kNoTracking)
    return "busy polling of network devices";
  if (ctx.has("param_region.nr_pages") && ctx.word("param_region.nr_pages") != 0) return "a registered memory region";
  return {};
}

void read_registered(const KernelMemory& memory, const Struct& ctx, KernelRing& out) {
  for (const uint64_t at :
       read_pointers(memory, ctx.pointer("file_table.data.nodes"), ctx.word("file_table.data.nr"))) {
    KernelRing::RegisteredFile& slot = out.files.emplace_back();
    if (at == 0) continue;
    const Struct node(memory, "io_rsrc_node", at);
    slot = {node.pointer("file_ptr") & ~kFlagsOfFile, node.pointer("tag")};
  }
  out.file_alloc_start = ctx.word("file_alloc_start");
  out.file_alloc_end = ctx.word("file_alloc_end");
  for (const uint64_t at : read_pointers(memory, ctx.pointer("buf_table.nodes"), ctx.word("buf_table.nr"))) {
    KernelRing::RegisteredBuffer& slot = out.buffers.emplace_back();
    if (at == 0) continue;
    const Struct node(memory, "io_rsrc_node", at);
    const Struct buffer(memory, "io_mapped_ubuf", node.pointer("buf"));
    slot = {buffer.pointer("ubuf"), buffer.word("len"), node.pointer("tag")};
    if (buffer.has("is_kbuf") && buffer.bit("is_kbuf")) out.unsupported = "a registered buffer of a device";
  }
  const uint64_t eventfd = ctx.pointer("io_ev_fd");
  if (eventfd == 0) return;
  const Struct registered(memory, "io_ev_fd", eventfd);
  out.eventfd = registered.pointer("cq_ev_fd");
  out.eventfd_async = (registered.word("eventfd_async") & 1) != 0;
}

void read_users(const KernelMemory& memory, const Struct& ctx, uint64_t file, KernelRing& out) {
  const uint64_t head = ctx.address_of("tctx_list");
  const auto link = memory.types().offset("io_tctx_node", "ctx_node");
  if (!link) throw Missing{};
  for (uint64_t at = ctx.pointer("tctx_list.next"); at != head;) {
    if (out.users.size() == kMostUsers) throw Missing{};
    const Struct node(memory, "io_tctx_node", at - *link);
    at = node.pointer("ctx_node.next");
    KernelRing::User& user = out.users.emplace_back();
    user.task = node.pointer("task");
    const Struct task(memory, "task_struct", user.task);
    user.tid = static_cast<pid_t>(task.word("pid"));
    user.pid = static_cast<pid_t>(task.word("tgid"));
    if (task.pointer("io_uring") == 0) continue;
    const Struct own(memory, "io_uring_task", task.pointer("io_uring"));
    const auto rings = own.get<std::array<uint64_t, kMostRegisteredRings>>("registered_rings");
    for (uint32_t i = 0; i < rings.size(); ++i)
      if (rings[i] == file) user.registered.push_back(i);
  }
  const uint64_t submitter = ctx.pointer("submitter_task");
  if (submitter != 0) out.submitter = static_cast<pid_t>(Struct(memory, "task_struct", submitter).word("pid"));
}

}  // namespace

std::shared_ptr<KernelMemory> open_ring_memory() {
  return KernelMemory::open({"task_struct", "files_struct", "fdtable", "file", "io_ring_ctx", "io_uring_task",
                             "io_tctx_node", "io_rsrc_node", "io_mapped_ubuf", "io_ev_fd"});
}

std::vector<OpenFile> open_files_of(const KernelMemory& memory, uint64_t task) {
  std::vector<OpenFile> out;
  try {
    const Struct files(memory, "files_struct", Struct(memory, "task_struct", task).pointer("files"));
    const Struct table(memory, "fdtable", files.pointer("fdt"));
    const std::vector<uint64_t> all = read_pointers(memory, table.pointer("fd"), table.word("max_fds"));
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i] != 0) out.push_back({static_cast<int>(i), all[i]});
  } catch (const Missing&) {
    out.clear();
  }
  return out;
}

uint64_t private_data_of(const KernelMemory& memory, uint64_t file) {
  const auto at = memory.types().offset("file", "private_data");
  uint64_t out = 0;
  return at && memory.read(file + *at, out) ? out : 0;
}

std::optional<KernelRing> read_ring(const KernelMemory& memory, int fd) {
  uint64_t file = 0;
  for (const OpenFile& f : open_files_of(memory, memory.own_task()))
    if (f.number == fd) file = f.file;
  if (file == 0) return std::nullopt;
  try {
    KernelRing out;
    const Struct ctx(memory, "io_ring_ctx", private_data_of(memory, file));
    out.setup_flags = ctx.word("flags");
    out.sq_entries = ctx.word("sq_entries");
    out.cq_entries = ctx.word("cq_entries");
    out.sq_head = ctx.word("cached_sq_head");
    out.cq_tail = ctx.word("cached_cq_tail");
    if (const uint64_t array = ctx.pointer("sq_array"); array != 0) out.array_offset = array - ctx.pointer("rings");
    out.overflowed = !ctx.list_is_empty("cq_overflow_list");
    out.skipped = ctx.bit("drain_disabled");
    out.compat = ctx.bit("compat");
    // All that were ever made, and those of them that wait to be used again.
    const int64_t unused = memory.list_length(ctx.pointer("submit_state.free_list.next"), kMostRequests);
    if (unused < 0 || unused > ctx.word("nr_req_allocated")) return std::nullopt;
    out.requests = ctx.word("nr_req_allocated") - static_cast<uint32_t>(unused);
    out.unsupported = unsupported_state(ctx);
    read_registered(memory, ctx, out);
    read_users(memory, ctx, file, out);
    return out;
  } catch (const Missing&) {
    return std::nullopt;
  }
}

}  // namespace stasis

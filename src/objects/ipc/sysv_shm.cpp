#include "objects/ipc/sysv_shm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/securebits.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/page_size.h"
#include "base/scope_guard.h"
#include "proto/ipc-shm.pb.h"

namespace stasis {

namespace {

constexpr uint32_t kPermissions = 0777;
constexpr uint32_t kHugeSizes = uint32_t{SHM_HUGETLB} | 63u << 26;

uint64_t nanoseconds(const struct statx_timestamp& t) {
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

// When the inode of a segment was made. hugetlbfs does not keep it, but nothing changes such an inode afterwards.
uint64_t birth_ns(const struct statx& st) {
  return nanoseconds((st.stx_mask & STATX_BTIME) != 0 ? st.stx_btime : st.stx_ctime);
}

struct statx look_at(int directory, const char* path, int flags, const std::string& who) {
  struct statx st;
  if (::statx(directory, path, flags, STATX_BASIC_STATS | STATX_BTIME, &st) != 0)
    throw Error(Reason::SYSTEM, "a segment cannot be looked at").object(who).error_number(errno);
  return st;
}

uint32_t huge_flags_of(int fd, const std::string& who) {
  struct statfs info;
  if (::fstatfs(fd, &info) != 0)
    throw Error(Reason::SYSTEM, "the file system of a segment cannot be looked at").object(who).error_number(errno);
  if (info.f_type != HUGETLBFS_MAGIC) return 0;
  return SHM_HUGETLB | static_cast<uint32_t>(std::countr_zero(static_cast<uint64_t>(info.f_bsize))) << 26;
}

std::optional<struct shmid_ds> status_of(uint32_t id) {
  struct shmid_ds status;
  if (::shmctl(static_cast<int>(id), IPC_STAT, &status) == 0) return status;
  return std::nullopt;
}

// The name of an own attachment below /proc/self.
std::string own_link(const void* address, uint64_t bytes) {
  const auto start = reinterpret_cast<uint64_t>(address);
  return fmt::format("/proc/self/map_files/{:x}-{:x}", start, start + bytes);
}

}  // namespace

std::string SysvSegment::describe() const {
  return fmt::format("shared memory segment {} (key {:#x})", id, key);
}

uint64_t SysvSegment::page_bytes() const {
  return huge_flags != 0 ? uint64_t{1} << (huge_flags >> 26) : page_size_bytes();
}

uint64_t SysvSegment::mapped_bytes() const {
  const uint64_t page = page_bytes();
  return (size_bytes + page - 1) / page * page;
}

// ---- dump ------------------------------------------------------------------------------------------------

void SysvShmTable::add(const ProcDir& proc, const Mapping& mapping, const Vma& vma, const std::string& who,
                       std::vector<MemoryObject>& objects) {
  if (segments_.contains(vma.shmid)) return;
  SysvSegment s;
  s.id = static_cast<uint32_t>(vma.shmid);
  Fd fd = open_mapped(proc, mapping.start, mapping.end, who);
  const struct statx st = look_at(fd.get(), "", AT_EMPTY_PATH, who);
  const auto status = status_of(s.id);
  // Tasks keep what they attached before they went to another namespace.
  if (!status || status->shm_segsz != st.stx_size || status->shm_perm.cuid != st.stx_uid ||
      status->shm_perm.cgid != st.stx_gid)
    throw Error(Reason::UNSUPPORTED_MAPPING,
                fmt::format("mapping {} is shared memory segment {}, which this IPC namespace does not have",
                            ::stasis::describe(vma), s.id))
        .object(who)
        .remedy("let the program detach it before the dump");
  s.key = static_cast<uint32_t>(status->shm_perm.__key);
  s.uid = status->shm_perm.uid, s.gid = status->shm_perm.gid;
  s.cuid = status->shm_perm.cuid, s.cgid = status->shm_perm.cgid;
  s.mode = status->shm_perm.mode;
  s.size_bytes = status->shm_segsz;
  s.huge_flags = huge_flags_of(fd.get(), who);
  s.born_ns = birth_ns(st);
  objects.push_back({s.id, std::move(fd), s.describe()});
  segments_.emplace(vma.shmid, s);
}

void SysvShmTable::write_images(ImageStore& store, uint32_t ipc_namespace) const {
  if (segments_.empty()) return;
  ImageWriter& writer = store.writer(ImageKind::IPCNS_SHM, ipc_namespace);
  for (const auto& [id, s] : segments_) {
    pb::ipc_shm_entry entry;
    pb::ipc_desc_entry& desc = *entry.mutable_desc();
    desc.set_id(s.id);
    desc.set_key(s.key);
    desc.set_uid(s.uid);
    desc.set_gid(s.gid);
    desc.set_cuid(s.cuid);
    desc.set_cgid(s.cgid);
    desc.set_mode(s.mode);
    entry.set_size(s.size_bytes);
    entry.set_in_pagemaps(true);
    if (s.huge_flags != 0) entry.set_hugetlb_flag(s.huge_flags);
    writer.write(entry);
  }
}

void SysvShmTable::encode_extension(pb::extension_head& head) const {
  for (const auto& [id, s] : segments_) {
    pb::extension_segment& out = *head.add_segments();
    out.set_id(s.id);
    out.set_born_ns(*s.born_ns);
  }
}

// ---- images ----------------------------------------------------------------------------------------------

std::map<uint64_t, SysvSegment> read_segments(const ImageStore& store, uint32_t ipc_namespace,
                                              const pb::extension_head* head) {
  std::map<uint64_t, SysvSegment> out;
  std::optional<ImageReader> reader = store.reader(ImageKind::IPCNS_SHM, ipc_namespace);
  if (!reader) return out;
  for (pb::ipc_shm_entry entry; reader->next(entry);) {
    const pb::ipc_desc_entry& desc = entry.desc();
    SysvSegment s{.id = desc.id(),
                  .key = desc.key(),
                  .uid = desc.uid(),
                  .gid = desc.gid(),
                  .cuid = desc.cuid(),
                  .cgid = desc.cgid(),
                  .mode = desc.mode(),
                  .size_bytes = entry.size(),
                  .huge_flags = entry.hugetlb_flag()};
    if (!entry.in_pagemaps())
      throw Error(Reason::IMAGE_UNSUPPORTED, "it holds the contents of segments in a form that is not read any more")
          .object(reader->shown_name());
    const bool odd_pages = s.huge_flags != 0 && ((s.huge_flags & ~kHugeSizes) != 0 || s.huge_flags >> 26 < 12 ||
                                                 s.huge_flags >> 26 > 40 || (s.huge_flags & SHM_HUGETLB) == 0);
    if (s.id > INT32_MAX || s.size_bytes == 0 || s.size_bytes > INT64_MAX / 2 || odd_pages ||
        (s.mode & ~(kPermissions | SHM_DEST | SHM_LOCKED)) != 0)
      reader->corrupt(fmt::format("{} has an impossible id, size or mode", s.describe()));
    if (head != nullptr)
      for (const pb::extension_segment& more : head->segments())
        if (more.id() == s.id) s.born_ns = more.born_ns();
    if (!out.emplace(s.id, s).second) reader->corrupt(fmt::format("{} appears twice", s.describe()));
  }
  return out;
}

std::vector<SysvAttachment> attachments_of(std::span<const Vma> areas) {
  std::vector<SysvAttachment> out;
  for (size_t i = 0; i < areas.size(); ++i) {
    const Vma& v = areas[i];
    if (!v.is_segment()) continue;
    const bool read_only = v.fdflags.value_or(O_RDWR) == O_RDONLY;
    const uint64_t base = v.start - v.pgoff_bytes;
    const auto same = std::ranges::find_if(out, [&](const SysvAttachment& a) {
      return a.segment == v.shmid && a.base == base && a.read_only == read_only;
    });
    if (same != out.end())
      same->pieces.push_back(i);
    else
      out.push_back({v.shmid, base, read_only, {i}});
  }
  return out;
}

void drop_parts_of_attachments(std::span<const Vma> areas, std::vector<AddressRange>& inherited) {
  const auto find = [&](const Vma& v) {
    const auto at = std::ranges::lower_bound(inherited, v.start, {}, &AddressRange::start);
    return at != inherited.end() && at->start == v.start ? at : inherited.end();
  };
  for (const SysvAttachment& a : attachments_of(areas)) {
    if (std::ranges::all_of(a.pieces, [&](size_t i) { return find(areas[i]) != inherited.end(); })) continue;
    for (const size_t i : a.pieces)
      if (const auto at = find(areas[i]); at != inherited.end()) inherited.erase(at);
  }
}

// ---- restore ---------------------------------------------------------------------------------------------

namespace {

Error failed(const SysvSegment& s, std::string what) {
  return Error(Reason::RESTORE_CALL_FAILED, std::move(what)).object(s.describe()).error_number(errno);
}

Error taken(const SysvSegment& s, const char* what) {
  return Error(Reason::IPC_ID_TAKEN, fmt::format("another segment has its {}", what)).object(s.describe());
}

void* attach(const SysvSegment& s, int flags) {
  void* at = ::shmat(static_cast<int>(s.id), nullptr, flags);
  if (at == reinterpret_cast<void*>(-1)) throw failed(s, "it cannot be attached");
  return at;
}

// Attaches what has the id, if it is the one of the dump.
void* attach_existing(const SysvSegment& s) {
  const auto status = status_of(s.id);
  if (!status) return nullptr;
  const auto another = [&] {
    return taken(s, "id").remedy(
        fmt::format("remove that one (ipcrm -m {}), or end its users; it is made again then", s.id));
  };
  if (status->shm_segsz != s.size_bytes || !s.born_ns) throw another();
  void* at = attach(s, SHM_RDONLY);
  ScopeGuard detach([&] { ::shmdt(at); });
  const struct statx st = look_at(AT_FDCWD, own_link(at, s.mapped_bytes()).c_str(), 0, s.describe());
  if (birth_ns(st) != *s.born_ns) throw another();
  detach.dismiss();
  return at;
}

// The kernel gives the next new segment this id, if its place is free (CAP_CHECKPOINT_RESTORE).
void ask_for_id(const SysvSegment& s) {
  constexpr const char* kFile = "/proc/sys/kernel/shm_next_id";
  const Fd fd(::open(kFile, O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(s.id);
  if (fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) return;
  const bool denied = errno == EPERM || errno == EACCES;
  throw failed(s, fmt::format("{} cannot be written, which gives a segment its id", kFile))
      .remedy(denied ? "run it with CAP_CHECKPOINT_RESTORE" : "");
}

// For the owner only, until it is whole. Returns the id or -errno.
int get_new(const SysvSegment& s) {
  const int flags = IPC_CREAT | IPC_EXCL | 0600 | static_cast<int>(s.huge_flags);
  const int id = ::shmget(static_cast<key_t>(s.key), s.size_bytes, flags);
  return id >= 0 ? id : -errno;
}

// The creator is the thread that makes it, for good: one that takes his ids for this. Without the privilege for that
// the creator is this program.
int get_new_as_creator(const SysvSegment& s) {
  if (s.cuid == geteuid() && s.cgid == getegid()) return get_new(s);
  const int dumpable = ::prctl(PR_GET_DUMPABLE);
  int result = 0;
  std::thread([&] {
    ::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
    ::syscall(SYS_setresgid, -1, s.cgid, -1);
    ::syscall(SYS_setresuid, -1, s.cuid, -1);
    result = get_new(s);
  }).join();
  // It belongs to the memory that the threads share.
  ::prctl(PR_SET_DUMPABLE, dumpable);
  return result;
}

void make_with_id(const SysvSegment& s) {
  // Anybody may make a segment in between, and get the id.
  constexpr int kTries = 5;
  for (int i = 0; i < kTries; ++i) {
    ask_for_id(s);
    const int id = get_new_as_creator(s);
    if (id == -EEXIST) throw taken(s, "key");
    if (id < 0) throw failed(s, "it cannot be made").error_number(-id);
    if (id == static_cast<int>(s.id)) return;
    ::shmctl(id, IPC_RMID, nullptr);
  }
  throw taken(s, "place in the table of segments");
}

}  // namespace

RestoredSegments::RestoredSegments(const std::map<uint64_t, SysvSegment>& segments) {
  ScopeGuard let_go([&] { release(); });
  for (const auto& [id, s] : segments) {
    held_.push_back({.segment = &s, .address = attach_existing(s)});
    if (held_.back().address != nullptr)
      log_info("The {} still exists: it is attached as it is", s.describe());
    else if (s.key != IPC_PRIVATE && (::shmget(static_cast<key_t>(s.key), 0, 0) >= 0 || errno != ENOENT))
      throw taken(s, "key");
  }
  let_go.dismiss();
}

RestoredSegments::~RestoredSegments() {
  for (const Held& h : held_)
    if (h.made) ::shmctl(static_cast<int>(h.segment->id), IPC_RMID, nullptr);
  release();
}

void RestoredSegments::create(const ImageStore& store) {
  for (Held& h : held_)
    if (h.address == nullptr) make(h, store);
}

void RestoredSegments::make(Held& held, const ImageStore& store) {
  const SysvSegment& s = *held.segment;
  make_with_id(s);
  held.made = true;
  held.address = attach(s, 0);
  const int id = static_cast<int>(s.id);
  if (const auto pages = PagemapReader::open(store, ImageKind::SHMEM_PAGEMAP, s.id)) {
    const std::string link = own_link(held.address, s.mapped_bytes());
    const Fd fd(::open(link.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd) throw failed(s, fmt::format("cannot open {}", link));
    shmem_fill(fd.get(), *pages, s.describe());
  }
  struct shmid_ds owner {};
  owner.shm_perm.uid = s.uid;
  owner.shm_perm.gid = s.gid;
  owner.shm_perm.mode = static_cast<unsigned short>(s.mode & kPermissions);
  if (::shmctl(id, IPC_SET, &owner) != 0) throw failed(s, "its owner cannot be set");
  if ((s.mode & SHM_LOCKED) != 0 && ::shmctl(id, SHM_LOCK, nullptr) != 0) throw failed(s, "it cannot be locked");
  // Marked at once, it goes with this program if that dies. Linux lets it be attached by its id for as long as it is
  // attached by anybody (O-23).
  if ((s.mode & SHM_DEST) != 0 && ::shmctl(id, IPC_RMID, nullptr) != 0) throw failed(s, "it cannot be marked");
}

void RestoredSegments::release() {
  for (const Held& h : held_)
    if (h.address != nullptr) ::shmdt(h.address);
  held_.clear();
}

}  // namespace stasis

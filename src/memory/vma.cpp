#include "memory/vma.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/page_size.h"
#include "proto/mm.pb.h"
#include "proto/vma.pb.h"

namespace stasis {

namespace {

struct Refusal {
  std::string_view what;
  std::string_view remedy;
};

// What a mapping is called when the format or this program has no way to bring it back.
struct FlagRefusal {
  VmFlag flag;
  Refusal refusal;
};
constexpr FlagRefusal refused_flags[] = {
    {VmFlag::ss, {"is a shadow stack", "run the program with glibc.cpu.x86_shstk=off in GLIBC_TUNABLES"}},
    {VmFlag::um, {"is registered with a userfaultfd", "let the program unregister it before the dump"}},
    {VmFlag::uw, {"is write-protected through a userfaultfd", "end the write tracking before the dump"}},
    {VmFlag::ui, {"is registered with a userfaultfd", "let the program unregister it before the dump"}},
    {VmFlag::sf, {"is a MAP_SYNC mapping of persistent memory", "let the program map the file without MAP_SYNC"}},
    {VmFlag::mt, {"has memory tags", "run the program without memory tagging"}},
    {VmFlag::pf, {"is memory of a device", "let the program close the device before the dump"}},
    {VmFlag::io, {"is memory of a device", "let the program close the device before the dump"}},
};

struct NameRefusal {
  std::string_view prefix;
  bool deleted;  // only when the file has no name any more
  Refusal refusal;
};
constexpr NameRefusal refused_names[] = {
    {"[uprobes]", false, {"is the code page of a uprobe", "remove the uprobe before the dump"}},
    {"/SYSV", true, {"is private memory of a System V segment", "let the program unmap it before the dump"}},
    {"/[aio]", true, {"is the ring of an AIO context", "let the program destroy its AIO contexts before the dump"}},
    {"/secretmem", true, {"is memory of memfd_secret(), which nobody else may read", "let the program unmap it"}},
    {"anon_inode:", false, {"is memory of a kernel object", "let the program unmap it before the dump"}},
    {"socket:", false, {"is the ring of a packet socket", "let the program unmap it before the dump"}},
};

// Which descriptor it belongs to is found out with the files.
constexpr std::string_view ring_name = "anon_inode:[io_uring]";
constexpr Refusal no_path = {"is of an unknown kind", "let the program unmap it before the dump"};
constexpr Refusal shared_guards = {"may have guard regions in shared memory", "let the program unmap it first"};
constexpr Refusal protection_key = {"has a memory protection key", "run the program without protection keys"};

std::string describe_mapping(const Mapping& m) {
  return fmt::format("mapping {:x}-{:x} {}{}{}{}{}{}{}", m.start, m.end, m.read ? 'r' : '-', m.write ? 'w' : '-',
                     m.exec ? 'x' : '-', m.shared ? 's' : 'p', m.name.empty() ? "" : " ", m.name,
                     m.deleted ? " (deleted)" : "");
}

[[noreturn]] void refuse(const Mapping& m, const Refusal& refusal) {
  throw Error(Reason::UNSUPPORTED_MAPPING, std::string(refusal.what))
      .object(describe_mapping(m))
      .remedy(std::string(refusal.remedy));
}

// Memory behind an inode that no path leads to: shared anonymous memory and memfds, of small or huge pages.
bool is_memory_object(const Mapping& m) {
  if (m.name.starts_with("[anon_shmem:")) return true;
  return m.deleted &&
         (m.name == "/dev/zero" || m.name.starts_with("/memfd:") || (m.shared && m.name == "/anon_hugepage"));
}

// An attached segment of System V shared memory, "/SYSV" and its key in hexadecimal: the inode number is its id.
bool is_segment(const Mapping& m) {
  return m.shared && m.deleted && m.name.size() == 13 && m.name.starts_with("/SYSV");
}

bool is_private_anonymous(const Mapping& m) {
  // The kernel keeps private huge pages behind an inode of their own.
  if (!m.shared && m.deleted && m.name == "/anon_hugepage" && m.has(VmFlag::ht)) return true;
  if (m.shared || m.inode != 0 || m.dev_major != 0 || m.dev_minor != 0) return false;
  return m.name.empty() || m.name == "[heap]" || m.name.starts_with("[stack") || m.name.starts_with("[anon:");
}

// The size of huge pages as mmap() takes it, beside MAP_HUGETLB: its logarithm.
uint32_t huge_page_flags(const Mapping& m) {
  const uint64_t bytes = uint64_t{m.kernel_page_size_kib} << 10;
  return MAP_HUGETLB | static_cast<uint32_t>(std::countr_zero(bytes)) << MAP_HUGE_SHIFT;
}

// Mappings that the kernel makes for every task: 0 if it is none of them.
uint32_t special_status(const Mapping& m) {
  if (m.name == "[vdso]") return vma_status::vdso | vma_status::anon_private | vma_status::regular;
  // [vvar], and [vvar_vclock] since Linux 6.13.
  if (m.name.starts_with("[vvar")) return vma_status::vvar | vma_status::anon_private | vma_status::regular;
  if (m.name == "[vsyscall]") return vma_status::vsyscall | vma_status::anon_private;
  return 0;
}

// Status of anything else. Throws what cannot be saved.
uint32_t ordinary_status(const Mapping& m) {
  for (const FlagRefusal& r : refused_flags) {
    if (m.has(r.flag)) refuse(m, r.refusal);
  }
  // The page scan finds guard regions in private memory; to walk shared memory for them would take too long.
  if (m.shared && m.has(VmFlag::gu)) refuse(m, shared_guards);
  // Memory that may only be executed gets a key of its own from the kernel.
  if (m.protection_key != 0 && (m.read || m.write || !m.exec)) refuse(m, protection_key);
  if (!m.unknown_vm_flags.empty()) log_info("{}: VmFlags {} are not known", describe_mapping(m), m.unknown_vm_flags);

  const uint32_t file = m.shared ? vma_status::file_shared : vma_status::file_private;
  if (is_memory_object(m)) return vma_status::regular | vma_status::memfd | file;
  if (is_segment(m)) return vma_status::regular | vma_status::sysv_shm | vma_status::anon_shared;
  if (m.name == ring_name && m.shared) return vma_status::regular | file;
  for (const NameRefusal& r : refused_names) {
    if (m.name.starts_with(r.prefix) && (m.deleted || !r.deleted)) refuse(m, r.refusal);
  }
  if (is_private_anonymous(m)) {
    return vma_status::regular | vma_status::anon_private | (m.name == "[heap]" ? vma_status::heap : 0);
  }
  if (!m.name.starts_with('/')) refuse(m, no_path);
  return vma_status::regular | file;
}

uint32_t mmap_flags(const Mapping& m, uint32_t status) {
  uint32_t flags = m.shared ? MAP_SHARED : m.has(VmFlag::dp) ? map_droppable : MAP_PRIVATE;
  if ((status & (vma_status::anon_private | vma_status::anon_shared)) != 0) flags |= MAP_ANONYMOUS;
  if (m.has(VmFlag::gd)) flags |= MAP_GROWSDOWN;
  if (m.has(VmFlag::lo)) flags |= MAP_LOCKED;
  if (m.has(VmFlag::nr)) flags |= MAP_NORESERVE;
  if (m.has(VmFlag::ht) && (flags & MAP_ANONYMOUS) != 0) flags |= huge_page_flags(m);
  return flags;
}

uint64_t advice_bits(const Mapping& m) {
  constexpr struct {
    VmFlag flag;
    int advice;
  } advices[] = {{VmFlag::rr, MADV_RANDOM},    {VmFlag::sr, MADV_SEQUENTIAL}, {VmFlag::dc, MADV_DONTFORK},
                 {VmFlag::mg, MADV_MERGEABLE}, {VmFlag::hg, MADV_HUGEPAGE},   {VmFlag::nh, MADV_NOHUGEPAGE},
                 {VmFlag::dd, MADV_DONTDUMP},  {VmFlag::wf, MADV_WIPEONFORK}};
  uint64_t bits = 0;
  for (const auto& a : advices) {
    if (m.has(a.flag)) bits |= uint64_t{1} << a.advice;
  }
  return bits;
}

Vma classify_one(const Mapping& m, size_t index) {
  const uint32_t special = special_status(m);
  Vma vma;
  vma.start = m.start;
  vma.end = m.end;
  vma.prot = (m.read ? PROT_READ : 0u) | (m.write ? PROT_WRITE : 0u) | (m.exec ? PROT_EXEC : 0u);
  vma.status = special != 0 ? special : ordinary_status(m);
  vma.mapping = index;
  if (special != 0) {
    vma.flags = MAP_PRIVATE | MAP_ANONYMOUS;
    return vma;
  }
  vma.flags = mmap_flags(m, vma.status);
  vma.madv = advice_bits(m);
  vma.was_writable = m.has(VmFlag::ac);
  vma.lock_on_fault = m.has(VmFlag::lf);
  vma.sealed = m.has(VmFlag::sl);
  if (vma.is_file() || vma.is_segment()) vma.pgoff_bytes = m.offset;
  if (vma.is_segment()) vma.shmid = m.inode;
  // "sh" stays only when the file of a shared mapping was opened for writing, too (do_mmap()); mmap() takes no file
  // that was opened for writing only. Attaching a segment opens it, too.
  if (vma.is_file() || vma.is_segment()) vma.fdflags = m.shared && m.has(VmFlag::sh) ? O_RDWR : O_RDONLY;
  return vma;
}

}  // namespace

bool Vma::is_private() const noexcept {
  return (flags & MAP_PRIVATE) != 0;
}

bool Vma::is_locked() const noexcept {
  return (flags & MAP_LOCKED) != 0;
}

bool Vma::is_huge() const noexcept {
  return (flags & MAP_HUGETLB) != 0;
}

bool Vma::stores_pages() const noexcept {
  return is_private() && (status & (vma_status::vvar | vma_status::vsyscall)) == 0;
}

std::vector<Vma> classify(std::span<const Mapping> smaps) {
  std::vector<Vma> vmas;
  vmas.reserve(smaps.size());
  for (size_t i = 0; i < smaps.size(); ++i) {
    Vma vma = classify_one(smaps[i], i);
    if (vma.has(vma_status::vvar) && !vmas.empty() && vmas.back().has(vma_status::vvar) &&
        vmas.back().end == vma.start) {
      vmas.back().end = vma.end;
      continue;
    }
    vmas.push_back(vma);
  }
  return vmas;
}

namespace {

struct KindName {
  uint32_t status;
  std::string_view name;
};
constexpr KindName kind_names[] = {
    {vma_status::guard, "guard region"},
    {vma_status::vdso, "vdso"},
    {vma_status::vvar, "vvar"},
    {vma_status::vsyscall, "vsyscall"},
    {vma_status::aio_ring, "AIO ring"},
    {vma_status::sysv_shm, "System V shared memory"},
    {vma_status::packet_socket, "packet socket ring"},
    {vma_status::memfd, "memfd"},
    {vma_status::shadow_stack, "shadow stack"},
    {vma_status::plugin_device, "device memory"},
    {vma_status::heap, "heap"},
    {vma_status::file_private, "private file"},
    {vma_status::file_shared, "shared file"},
    {vma_status::anon_shared, "shared memory"},
    {vma_status::anon_private, "private memory"},
};

constexpr uint32_t restorable_status = vma_status::regular | vma_status::vsyscall | vma_status::vdso |
                                       vma_status::vvar | vma_status::heap | vma_status::file_private |
                                       vma_status::file_shared | vma_status::anon_shared | vma_status::anon_private |
                                       vma_status::memfd | vma_status::sysv_shm;
constexpr uint32_t kind_status =
    vma_status::file_private | vma_status::file_shared | vma_status::anon_shared | vma_status::anon_private;
constexpr uint32_t restorable_flags = MAP_TYPE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE |
                                      MAP_HUGETLB | uint32_t{MAP_HUGE_MASK} << MAP_HUGE_SHIFT;

// The first kind among `status`.
std::string_view kind_name(uint32_t status) {
  for (const KindName& k : kind_names) {
    if ((status & k.status) != 0) return k.name;
  }
  return "unknown kind";
}

[[noreturn]] void corrupt(const Vma& vma, const std::string& shown_name, std::string_view why) {
  throw Error(Reason::IMAGE_CORRUPT, fmt::format("mapping {}: {}", describe(vma), why)).object(shown_name);
}

void check_bounds(const Vma& vma, const std::string& shown_name) {
  const uint64_t page = page_size_bytes();
  if (vma.start >= vma.end) corrupt(vma, shown_name, "it ends before it begins");
  if (vma.start % page != 0 || vma.end % page != 0 || vma.pgoff_bytes % page != 0) {
    corrupt(vma, shown_name, "it is not page aligned");
  }
  if (vma.pgoff_bytes > UINT64_MAX - vma.size_bytes()) corrupt(vma, shown_name, "it ends beyond all file offsets");
}

void check_kind(const Vma& vma, const std::string& shown_name) {
  const uint32_t foreign = vma.status & ~restorable_status;
  if (foreign != 0 || (vma.flags & ~restorable_flags) != 0) {
    const std::string what = foreign != 0 ? fmt::format("{} (status {:#x})", kind_name(foreign), vma.status)
                                          : fmt::format("flags {:#x}", vma.flags & ~restorable_flags);
    throw Error(Reason::IMAGE_UNSUPPORTED,
                fmt::format("mapping {} is of a kind that is not restored: {}", describe(vma), what))
        .object(shown_name)
        .remedy("dump the program again without such a mapping");
  }
  const uint32_t kind = vma.status & kind_status;
  if (kind == 0 || (kind & (kind - 1)) != 0) corrupt(vma, shown_name, "its status names no kind");
  if (vma.is_segment() && kind != vma_status::anon_shared) corrupt(vma, shown_name, "it is no shared memory");
  const uint32_t type = vma.flags & MAP_TYPE;
  const bool shared = kind == vma_status::file_shared || kind == vma_status::anon_shared;
  const bool droppable = type == map_droppable && kind == vma_status::anon_private;
  if (!droppable && type != (shared ? uint32_t{MAP_SHARED} : uint32_t{MAP_PRIVATE})) {
    corrupt(vma, shown_name, "its flags do not fit its kind");
  }
  if ((vma.prot & ~uint32_t{PROT_READ | PROT_WRITE | PROT_EXEC}) != 0) {
    corrupt(vma, shown_name, "it has an unknown protection");
  }
}

}  // namespace

std::string describe(const Vma& vma) {
  return fmt::format("{:x}-{:x} {}{}{}{} ({})", vma.start, vma.end, (vma.prot & PROT_READ) != 0 ? 'r' : '-',
                     (vma.prot & PROT_WRITE) != 0 ? 'w' : '-', (vma.prot & PROT_EXEC) != 0 ? 'x' : '-',
                     (vma.flags & MAP_TYPE) == MAP_SHARED ? 's' : 'p', kind_name(vma.status));
}

void encode(const Vma& vma, pb::vma_entry& entry) {
  entry.set_start(vma.start);
  entry.set_end(vma.end);
  entry.set_pgoff(vma.pgoff_bytes);
  entry.set_shmid(vma.shmid);
  entry.set_prot(vma.prot);
  entry.set_flags(vma.flags);
  entry.set_status(vma.status);
  entry.set_fd(-1);
  if (vma.madv != 0) entry.set_madv(vma.madv);
  if (vma.fdflags) entry.set_fdflags(*vma.fdflags);
}

void encode_guard(const AddressRange& guard, pb::vma_entry& entry) {
  Vma vma;
  vma.start = guard.start;
  vma.end = guard.end;
  vma.status = vma_status::guard;
  encode(vma, entry);
}

Vma decode(const pb::vma_entry& entry) {
  Vma vma;
  vma.start = entry.start();
  vma.end = entry.end();
  vma.pgoff_bytes = entry.pgoff();
  vma.shmid = entry.shmid();
  vma.prot = entry.prot();
  vma.flags = entry.flags();
  vma.status = entry.status();
  vma.madv = entry.madv();
  if (entry.has_fdflags()) vma.fdflags = entry.fdflags();
  return vma;
}

VmaList decode_vmas(const pb::mm_entry& mm, const std::string& shown_name) {
  VmaList list;
  list.areas.reserve(static_cast<size_t>(mm.vmas_size()));
  for (const pb::vma_entry& entry : mm.vmas()) {
    const Vma vma = decode(entry);
    check_bounds(vma, shown_name);
    if (vma.has(vma_status::guard)) {
      list.guards.push_back({vma.start, vma.end});
      continue;
    }
    check_kind(vma, shown_name);
    if (!list.areas.empty() && vma.start < list.areas.back().end) {
      corrupt(vma, shown_name, "it overlaps another one, or they are not in order");
    }
    list.areas.push_back(vma);
  }
  return list;
}

bool maps_writable_first(const Vma& vma, uint64_t stored_pages) noexcept {
  if (!vma.is_private() || (vma.prot & PROT_WRITE) != 0 || vma.has(vma_status::vdso)) return false;
  return vma.told ? vma.was_writable : stored_pages > 0;
}

bool locks_on_fault(const Vma& vma, uint64_t stored_pages) noexcept {
  if (vma.lock_on_fault) return vma.is_locked() && *vma.lock_on_fault;
  return vma.is_locked() && vma.is_private() && vma.has(vma_status::anon_private) && (vma.prot & PROT_WRITE) != 0 &&
         stored_pages < vma.size_bytes() / page_size_bytes();
}

}  // namespace stasis

// Probes: memory, userfaultfd, vdso.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/page_size.h"
#include "kernel/probe_list.h"
#include "kernel/probe_support.h"
#include "kernel/proc.h"
#include "kernel/process.h"

namespace stasis::probes {
namespace {

// One anonymous private page, written to, unmapped at the end.
class Page {
 public:
  explicit Page(int protection = PROT_READ | PROT_WRITE) {
    void* area = ::mmap(nullptr, page_size_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return;
    data_ = static_cast<volatile char*>(area);
    data_[0] = 1;
    if (protection != (PROT_READ | PROT_WRITE)) ::mprotect(area, page_size_bytes(), protection);
  }
  ~Page() {
    if (data_ != nullptr) ::munmap(address_pointer(), page_size_bytes());
  }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;

  explicit operator bool() const { return data_ != nullptr; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }
  void* address_pointer() const { return reinterpret_cast<void*>(address()); }
  void touch() { data_[0] = static_cast<char>(data_[0] + 1); }

 private:
  volatile char* data_ = nullptr;
};

Fd open_own(const char* name, int flags = O_RDONLY) {
  return Fd(::open((std::string("/proc/self/") + name).c_str(), flags | O_CLOEXEC));
}

uapi::pm_scan_arg scan_of(const Page& page, uint64_t mask, uint64_t flags = 0) {
  uapi::pm_scan_arg arg;
  arg.flags = flags;
  arg.start = page.address();
  arg.end = page.address() + page_size_bytes();
  arg.category_mask = mask;
  return arg;
}

// Number of regions of one page that match, or negative errno.
long scan_page(int pagemap, const Page& page, uint64_t mask, uint64_t flags = 0) {
  uapi::page_region region{};
  uapi::pm_scan_arg arg = scan_of(page, mask, flags);
  arg.vec = reinterpret_cast<uint64_t>(&region);
  arg.vec_len = 1;
  arg.return_mask = mask;
  return stasis::pagemap_scan(pagemap, arg);
}

FeatureResult scan_knows(uint64_t category, std::string_view what) {
  const Fd pagemap = open_own("pagemap");
  if (!pagemap) return by_errno(-1, "cannot open pagemap");
  const Page page;
  uapi::pm_scan_arg arg = scan_of(page, category);
  return by_result(stasis::pagemap_scan(pagemap.get(), arg), what);
}

// An opened userfaultfd with `wanted` features agreed, or why not. `offered` gets all that the kernel has.
FeatureResult open_uffd(uint64_t wanted, Fd& out, uint64_t& offered) {
  // Without privilege only faults of user mode may be handled; the features are the same.
  int fd = stasis::userfaultfd(O_CLOEXEC | O_NONBLOCK);
  if (fd == -EPERM) fd = stasis::userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) return by_result(fd, "userfaultfd is refused", "CAP_SYS_PTRACE");
  out.reset(fd);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = wanted;
  FeatureResult result = by_errno(::ioctl(fd, UFFDIO_API, &api), "userfaultfd refuses a feature", "CAP_SYS_PTRACE");
  offered = api.features;
  return result;
}

FeatureResult write_protect_tracking() {
  Fd uffd_fd;
  uint64_t offered = 0;
  FeatureResult opened = open_uffd(uapi::uffd_feature_wp_async, uffd_fd, offered);
  if (!opened.supported) return opened;
  const Fd pagemap = open_own("pagemap");
  Page page;
  uffdio_register range{};
  range.range = {page.address(), page_size_bytes()};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(uffd_fd.get(), UFFDIO_REGISTER, &range) < 0) return by_errno(-1, "cannot register a page");
  const uint64_t protect = uapi::pm_scan_wp_matching | uapi::pm_scan_check_wpasync;
  const long first = scan_page(pagemap.get(), page, uapi::page_is_written, protect);
  if (first < 0) return by_result(first, "PAGEMAP_SCAN cannot write-protect");
  if (scan_page(pagemap.get(), page, uapi::page_is_written) != 0) return missing("a clean page reads as written");
  page.touch();
  if (scan_page(pagemap.get(), page, uapi::page_is_written) != 1) return missing("a write is not seen");
  return supported();
}

bool soft_dirty_bit(int pagemap, const Page& page) {
  uint64_t entry = 0;
  const auto offset = static_cast<off_t>(page.address() / page_size_bytes() * sizeof entry);
  if (::pread(pagemap, &entry, sizeof entry, offset) != sizeof entry) return false;
  return (entry & uapi::pm_soft_dirty) != 0;
}

// Writing to clear_refs succeeds even where soft-dirty is not compiled in, so only the bit itself tells.
FeatureResult soft_dirty_tracking() {
  const Fd pagemap = open_own("pagemap");
  const Fd clear_refs = open_own("clear_refs", O_WRONLY);
  Page page;
  if (!pagemap || !clear_refs) return by_errno(-1, "cannot open clear_refs");
  if (::write(clear_refs.get(), "4", 1) != 1) return by_errno(-1, "cannot clear the soft-dirty bits");
  if (soft_dirty_bit(pagemap.get(), page)) return missing("the soft-dirty bit does not clear");
  page.touch();
  return soft_dirty_bit(pagemap.get(), page) ? supported() : missing("the soft-dirty bit is never set");
}

}  // namespace

FeatureResult mem_dirty_track() {
  return in_child([] {
    FeatureResult async = write_protect_tracking();
    if (async.supported) return async;
    FeatureResult soft = soft_dirty_tracking();
    if (soft.supported) return soft;
    return missing(async.why + "; " + soft.why);
  });
}

FeatureResult uffd() {
  Fd fd;
  uint64_t offered = 0;
  return open_uffd(0, fd, offered);
}

FeatureResult uffd_noncoop() {
  Fd fd;
  uint64_t offered = 0;
  FeatureResult opened = open_uffd(0, fd, offered);
  if (!opened.supported) return opened;
  constexpr uint64_t events =
      UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
  if ((offered & events) != events) return missing("userfaultfd lacks events for fork, mremap, madvise or munmap");
  // Fork events need CAP_SYS_PTRACE, which the list of features does not show.
  return open_uffd(events, fd, offered);
}

FeatureResult pagemap_scan() {
  return scan_knows(uapi::page_is_present, "the kernel has no PAGEMAP_SCAN");
}

FeatureResult pagemap_scan_guard_pages() {
  return scan_knows(uapi::page_is_guard, "PAGEMAP_SCAN does not know guard pages");
}

FeatureResult pagemap_pfn() {
  const Fd pagemap = open_own("pagemap");
  const Page page;
  uint64_t entry = 0;
  const auto offset = static_cast<off_t>(page.address() / page_size_bytes() * sizeof entry);
  if (!pagemap || ::pread(pagemap.get(), &entry, sizeof entry, offset) != sizeof entry)
    return by_errno(-1, "cannot read pagemap");
  if ((entry & uapi::pm_pfn_mask) != 0) return supported();
  return missing("cannot tell without CAP_SYS_ADMIN: frame numbers read as 0");
}

FeatureResult memfd_hugetlb() {
  const Fd fd(::memfd_create("probe", MFD_CLOEXEC | MFD_HUGETLB));
  return by_errno(fd.get(), "memfd_create refuses huge pages");
}

// An empty file is no program, so the attempt to run it ends in ENOEXEC; a policy against it answers EACCES before.
FeatureResult memfd_exec() {
  return in_child([] {
    int fd = ::memfd_create("probe", MFD_CLOEXEC | uapi::mfd_exec);
    if (fd < 0 && errno == EINVAL) fd = ::memfd_create("probe", MFD_CLOEXEC);
    const Fd file(fd);
    if (!file) return by_errno(-1, "memfd_create refuses an executable file (sysctl vm.memfd_noexec)");
    char name[] = "probe";
    char* const arguments[] = {name, nullptr};
    char* const environment[] = {nullptr};
    ::syscall(SYS_execveat, file.get(), "", arguments, environment, AT_EMPTY_PATH);
    return by_result(errno == ENOEXEC ? 0 : -errno, "a program in a memfd cannot be started");
  });
}

FeatureResult aio_remap() {
  return in_child([] {
    aio_context_t context = 0;
    if (::syscall(SYS_io_setup, 1, &context) < 0) return by_errno(-1, "io_setup fails");
    ProcDir self(::getpid());
    const auto maps = parse_maps(self.read("maps"));
    const auto ring = std::ranges::find(maps, uint64_t{context}, &Mapping::start);
    if (ring == maps.end()) return missing("the AIO ring is no mapping of its own");
    void* target = ::mmap(nullptr, ring->size_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* moved = ::mremap(reinterpret_cast<void*>(context), ring->size_bytes(), ring->size_bytes(),
                           MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (moved == MAP_FAILED) return by_errno(-1, "the AIO ring cannot be moved");
    timespec now{};
    return by_errno(::syscall(SYS_io_getevents, reinterpret_cast<aio_context_t>(moved), 0l, 1l, nullptr, &now),
                    "the AIO context does not follow its ring");
  });
}

FeatureResult process_vm() {
  return in_child([] {
    static int subject = 0;
    subject = 17;
    const TracedChild child;
    if (!child.state().supported) return child.state();
    const uint64_t remote = reinterpret_cast<uint64_t>(&subject);
    const int sent = 4711;
    int got = 0;
    const int written = process_vm_write_all(child.pid(), remote, &sent, sizeof sent);
    if (written < 0) return by_result(written, "process_vm_writev fails", "CAP_SYS_PTRACE");
    const int result = process_vm_read_all(child.pid(), remote, &got, sizeof got);
    if (result < 0) return by_result(result, "process_vm_readv fails", "CAP_SYS_PTRACE");
    return got == sent ? supported() : missing("process_vm_readv returns other data");
  });
}

// Kernels from 6.12 on may allow such writes to tracers only, or to nobody (PROC_MEM_FORCE_PTRACE, PROC_MEM_NO_FORCE).
FeatureResult proc_mem_write() {
  return in_child([] {
    const Page page(PROT_READ);
    const TracedChild child;
    if (!child.state().supported) return child.state();
    const Fd memory = ProcDir(child.pid()).open("mem", O_RDWR);
    const char sent = 42;
    if (::pwrite(memory.get(), &sent, 1, static_cast<off_t>(page.address())) != 1)
      return by_errno(-1, "/proc/PID/mem refuses to write to a read-only page");
    char got = 0;
    if (::pread(memory.get(), &got, 1, static_cast<off_t>(page.address())) != 1 || got != sent)
      return missing("/proc/PID/mem loses a write to a read-only page");
    return supported();
  });
}

FeatureResult prctl_mm_map() {
  unsigned size_bytes = 0;
  if (::prctl(uapi::pr_set_mm, uapi::pr_set_mm_map_size, &size_bytes, 0, 0) < 0)
    return by_errno(-1, "the kernel has no PR_SET_MM_MAP");
  if (size_bytes == sizeof(uapi::prctl_mm_map)) return supported();
  return missing(fmt::format("PR_SET_MM_MAP has {} bytes, not {}", size_bytes, sizeof(uapi::prctl_mm_map)));
}

#ifdef __x86_64__

namespace {

long arch_prctl(int code, uint64_t argument) {
  return ::syscall(SYS_arch_prctl, code, argument) < 0 ? -errno : 0;
}

// While a vdso is mapped the call answers EEXIST; EINVAL means that it is not known.
FeatureResult knows_map_vdso(int code, std::string_view what) {
  const long result = arch_prctl(code, 0);
  return by_result(result == -EEXIST ? 0 : result, what);
}

}  // namespace

FeatureResult can_map_vdso() {
  return in_child([] { return knows_map_vdso(uapi::arch_map_vdso_64, "the kernel cannot map a vdso on demand"); });
}

FeatureResult map_vdso() {
  return in_child([] {
    ProcDir self(::getpid());
    // From here on no C library call may read the clock: it would jump into the vdso.
    for (const Mapping& m : parse_maps(self.read("maps")))
      if (m.name.starts_with("[vdso") || m.name.starts_with("[vvar"))
        ::munmap(reinterpret_cast<void*>(m.start), m.size_bytes());
    constexpr size_t room_bytes = 256 << 10;
    void* room = ::mmap(nullptr, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ::munmap(room, room_bytes);
    const uint64_t wanted = reinterpret_cast<uint64_t>(room);
    const long result = arch_prctl(uapi::arch_map_vdso_64, wanted);
    if (result < 0) return by_result(result, "the vdso cannot be mapped again");
    const auto maps = parse_maps(self.read("maps"));
    const auto found = std::ranges::find(maps, "[vdso]", &Mapping::name);
    if (found == maps.end() || found->start < wanted || found->end > wanted + room_bytes)
      return missing("the vdso is not where it was asked to be");
    return supported();
  });
}

FeatureResult compat_cr() {
  return in_child([] {
    FeatureResult vdso = knows_map_vdso(uapi::arch_map_vdso_32, "the kernel cannot map a 32-bit vdso");
    if (!vdso.supported) return vdso;
    // 20 is getpid of the 32-bit table. Without 32-bit emulation the instruction faults, which ends this child.
    long result = 20;
    asm volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
    return result == ::getpid() ? supported() : missing("32-bit system calls do not work");
  });
}

#else

FeatureResult can_map_vdso() {
  return missing("this architecture moves the vdso by mremap");
}
FeatureResult map_vdso() {
  return missing("this architecture moves the vdso by mremap");
}
FeatureResult compat_cr() {
  return missing("32-bit tasks are supported on x86 only");
}

#endif

}  // namespace stasis::probes

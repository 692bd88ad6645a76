#include "tracee/borrowed.h"

#include <elf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "tracee/area.h"

namespace stasis {

namespace {

// Bounds what is read in search of free bytes.
constexpr size_t kLargestCode = size_t{256} << 10;

struct Elf64 {
  using Header = Elf64_Ehdr;
  using Segment = Elf64_Phdr;
};
struct Elf32 {
  using Header = Elf32_Ehdr;
  using Segment = Elf32_Phdr;
};

// The class of the ELF file at an address (ELFCLASS32, ELFCLASS64), 0 if there is none.
int elf_class(uint64_t address, const MemoryView& memory) {
  unsigned char ident[EI_NIDENT];
  if (!memory.read(address, ident, sizeof ident) || std::memcmp(ident, ELFMAG, SELFMAG) != 0) return 0;
  return ident[EI_CLASS];
}

template <class Elf>
uint64_t end_of_image(const Mapping& m, const MemoryView& memory) {
  typename Elf::Header h;
  if (!memory.read(m.start, &h, sizeof h)) return 0;
  // The section headers are the last thing in an image made by ld.
  const uint64_t end = m.start + h.e_shoff + uint64_t{h.e_shnum} * h.e_shentsize;
  return h.e_shoff != 0 && end <= m.end ? align16(end) : 0;
}

// First address behind the ELF image that `m` maps whole (the vdso); 0 if it is not understood.
uint64_t end_of_elf_image(const Mapping& m, const MemoryView& memory) {
  switch (elf_class(m.start, memory)) {
    case ELFCLASS64:
      return end_of_image<Elf64>(m, memory);
    case ELFCLASS32:
      return end_of_image<Elf32>(m, memory);
    default:
      return 0;
  }
}

// Free (zero) bytes between `from` and `to`, `bytes` long. What a dead controller left stays untouched: a signal
// handler may still return into it.
uint64_t find_zeros(const MemoryView& memory, uint64_t from, uint64_t to, size_t bytes) {
  if (from == 0 || to - from < bytes || to - from > kLargestCode) return 0;
  std::vector<char> text(to - from);
  if (!memory.read(from, text.data(), text.size())) return 0;
  size_t run = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    run = text[i] == 0 ? run + 1 : 0;
    const size_t begin = i + 1 - run;
    const size_t aligned = align16(begin);
    if (run != 0 && i + 1 >= aligned + bytes) return from + aligned;
  }
  return 0;
}

bool is_code_area_shape(const Mapping& m) {
  return m.exec && !m.write && !m.shared && m.inode == 0 && m.name.empty();
}

bool begins_with(std::span<const std::byte> text, std::span<const std::byte> head) {
  return text.size() >= head.size() && std::equal(head.begin(), head.end(), text.begin());
}

// What dead controllers left in a range: areas that their bootstraps map. A thread whose controller died right after it
// was sent off still maps its area, but nobody writes the loop into that.
void find_orphaned_areas(AddressRange where, const MemoryView& memory, std::vector<uint64_t>& areas) {
  std::vector<std::byte> text(where.size_bytes());
  if (!memory.read(where.start, text.data(), text.size())) return;
  const auto loop = arch::bootstrap_loop();
  for (size_t at = 0; at + loop.size() <= text.size(); at += 16)
    if (begins_with(std::span(text).subspan(at), loop))
      if (const auto call = arch::first_bootstrap_call(std::span(text).subspan(at)); call && call->number == SYS_mmap)
        areas.push_back(call->args[0]);
}

// Address ranges that hold only code of controllers, dead ones when a new one looks: the bytes behind the image of the
// vdso, code areas with the loop in them, code areas that a bootstrap in one of these has mapped.
std::vector<AddressRange> code_of_controllers(std::span<const Mapping> mappings, const MemoryView& memory) {
  std::vector<AddressRange> out;
  std::vector<uint64_t> orphans;
  for (const Mapping& m : mappings) {
    if (m.name == "[vdso]") {
      if (const uint64_t end = end_of_elf_image(m, memory); end != 0) out.push_back({end, m.end});
    } else if (is_code_area_shape(m)) {
      std::vector<std::byte> head(arch::batch_loop().size());
      if (memory.read(m.start, head.data(), head.size()) && BatchArea::looks_like_code(head))
        out.push_back({m.start, m.end});
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].size_bytes() > kLargestCode) continue;
    orphans.clear();
    find_orphaned_areas(out[i], memory, orphans);
    for (const Mapping& m : mappings)
      if (is_code_area_shape(m) && std::find(orphans.begin(), orphans.end(), m.start) != orphans.end() &&
          std::none_of(out.begin(), out.end(), [&](const AddressRange& r) { return r.start == m.start; }))
        out.push_back({m.start, m.end});
  }
  return out;
}

// Where in the mapping `code` of a file that begins at `start` the bytes end that its program headers map; 0 if
// nowhere.
template <class Elf>
uint64_t end_of_mapped_code(const Mapping& code, uint64_t start, const MemoryView& memory) {
  typename Elf::Header h;
  if (!memory.read(start, &h, sizeof h) || h.e_phentsize != sizeof(typename Elf::Segment) || h.e_phnum > 64) return 0;
  std::vector<typename Elf::Segment> headers(h.e_phnum);
  if (!memory.read(start + h.e_phoff, headers.data(), headers.size() * sizeof headers[0])) return 0;
  for (const auto& p : headers) {
    if (p.p_type != PT_LOAD || (p.p_flags & PF_X) == 0 || p.p_filesz != p.p_memsz) continue;
    const uint64_t file_end = uint64_t{p.p_offset} + p.p_filesz;
    if (file_end >= code.offset && file_end < code.offset + code.size_bytes())
      return code.start + (file_end - code.offset);
  }
  return 0;
}

// The padding between the end of a file's code and the end of its last page: behind the bytes that the program header
// maps nothing in memory means anything.
uint64_t find_hole_in_padding(std::span<const Mapping> mappings, const MemoryView& memory, size_t bytes) {
  for (const Mapping& code : mappings) {
    if (!code.exec || code.shared || code.inode == 0) continue;
    const auto first = std::find_if(mappings.begin(), mappings.end(), [&](const Mapping& m) {
      return m.offset == 0 && m.inode == code.inode && m.dev_major == code.dev_major && m.dev_minor == code.dev_minor;
    });
    if (first == mappings.end()) continue;
    const int width = elf_class(first->start, memory);
    const uint64_t end = width == ELFCLASS64   ? end_of_mapped_code<Elf64>(code, first->start, memory)
                         : width == ELFCLASS32 ? end_of_mapped_code<Elf32>(code, first->start, memory)
                                               : 0;
    if (end == 0) continue;
    if (const uint64_t at = find_zeros(memory, align16(end), code.end, bytes)) return at;
  }
  return 0;
}

}  // namespace

bool MemoryView::read(uint64_t address, void* out, size_t bytes) const {
  if (address >= address_ && bytes <= copy_.size() && address - address_ <= copy_.size() - bytes) {
    std::memcpy(out, copy_.data() + (address - address_), bytes);
    return true;
  }
  return pread(fd_, out, bytes, static_cast<off_t>(address)) == static_cast<ssize_t>(bytes);
}

uint64_t find_bootstrap_hole(std::span<const Mapping> mappings, const MemoryView& memory, size_t bytes) {
  for (const auto& [from, to] : code_of_controllers(mappings, memory))
    if (const uint64_t at = find_zeros(memory, from, to, bytes)) return at;
  return find_hole_in_padding(mappings, memory, bytes);
}

std::vector<AddressRange> controller_code(std::span<const Mapping> mappings, const MemoryView& memory) {
  return code_of_controllers(mappings, memory);
}

Borrowed::Borrowed(pid_t pid, std::string name, Tracee& leader, Fd memory)
    : host_(pid, std::move(name)), leader_(&leader), memory_(std::move(memory)) {
  host_.set_memory_of(leader.tid());
}

Borrowed::~Borrowed() {
  if (!memory_ || (!open_ && !started_)) return;
  try {
    StopWaiter waiter;
    if (started_ && !open_) finish_open(waiter);
    start_close();
    finish_close(waiter);
  } catch (const Error& e) {
    log_warning("{}: the batch area stays behind: {}", host_.describe(), e.what());
  }
}

void Borrowed::send_bootstrap(std::span<const arch::BootstrapCall> calls) {
  const arch::SlotHead head = leader_->way_home(host_.report());
  const auto code = arch::bootstrap_code(hole_, head, calls);
  const ssize_t n = pwrite(memory_.get(), code.data(), code.size(), static_cast<off_t>(hole_));
  if (n != static_cast<ssize_t>(code.size()))
    throw Error(Reason::NO_ROOM_FOR_BATCH, "its memory cannot be written")
        .object(host_.describe())
        .error_number(n < 0 ? errno : EFAULT)
        .remedy("boot without proc_mem.force_override=never");
  hole_used_ = std::max(hole_used_, code.size());
  leader_->send_to(arch::bootstrap_registers(leader_->own_registers(), hole_, calls.size()), host_.report());
  leader_->start(host_.report());
}

int64_t Borrowed::await_bootstrap(StopWaiter& waiter) {
  leader_->await_report(waiter, host_.report(), hole_ + arch::bootstrap_reported_offset(),
                        Clock::now() + BatchHost::kPatience);
  return arch::bootstrap_result(leader_->current_registers());
}

void Borrowed::clear_bootstrap() {
  const std::vector<std::byte> zeros(hole_used_);
  if (pwrite(memory_.get(), zeros.data(), zeros.size(), static_cast<off_t>(hole_)) < 0)
    log_warning("{}: the bootstrap bytes stay behind", host_.describe());
}

size_t Borrowed::bootstrap_bytes(bool compat) {
  return arch::bootstrap_size(2, compat);
}

void Borrowed::start_open(std::span<const Mapping> mappings, const Shape& shape, ReportSignal report) {
  hole_ = shape.hole != 0 ? shape.hole
                          : find_bootstrap_hole(mappings, memory_.get(),
                                                bootstrap_bytes(arch::is_compat(leader_->own_registers())));
  const uint64_t address =
      shape.address != 0
          ? shape.address
          : find_free_range(mappings, BatchArea::bytes_for(shape.slots, shape.first_slot_bytes, shape.other_slot_bytes),
                            arch::address_end(arch::is_compat(leader_->own_registers()), 0));
  if (hole_ == 0 || address == 0)
    throw Error(Reason::NO_ROOM_FOR_BATCH,
                hole_ == 0 ? "no executable memory with free bytes was found" : "no free address range was found")
        .object(host_.describe());
  host_.set_report(report);
  host_.set_area(BatchArea(address, shape.slots, shape.first_slot_bytes, shape.other_slot_bytes));
  const BatchArea& area = host_.area();
  const uint64_t flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  // Code is never writable: it is written from outside, so that memory-deny-write-execute tasks can be borrowed.
  const arch::BootstrapCall calls[] = {
      {SYS_mmap, {area.address(), area.code_bytes(), PROT_READ | PROT_EXEC, flags, ~uint64_t{0}, 0}},
      {SYS_mmap, {area.slots_address(), area.slots_bytes(), PROT_READ | PROT_WRITE, flags, ~uint64_t{0}, 0}},
  };
  send_bootstrap(calls);
  started_ = true;
}

void Borrowed::finish_open(StopWaiter& waiter) {
  const int64_t result = await_bootstrap(waiter);
  if (result < 0 && result >= -4095) {
    leader_->give_back();
    clear_bootstrap();
    started_ = false;
    throw Error(Reason::NO_ROOM_FOR_BATCH, "mmap made in the task failed")
        .object(host_.describe())
        .error_number(static_cast<int>(-result))
        .remedy("see whether a limit (RLIMIT_AS, vm.max_map_count) or a security module forbids executable memory");
  }
  open_ = true;
  const auto image = host_.area().code_image();
  if (pwrite(memory_.get(), image.data(), image.size(), static_cast<off_t>(host_.area().address())) !=
      static_cast<ssize_t>(image.size()))
    throw Error(Reason::NO_ROOM_FOR_BATCH, "its batch area cannot be written")
        .object(host_.describe())
        .error_number(errno)
        .remedy("boot without proc_mem.force_override=never");
}

void Borrowed::start_close() {
  const BatchArea& area = host_.area();
  const arch::BootstrapCall calls[] = {{SYS_munmap, {area.address(), area.bytes(), 0, 0, 0, 0}}};
  send_bootstrap(calls);
}

void Borrowed::finish_close(StopWaiter& waiter) {
  const int64_t result = await_bootstrap(waiter);
  leader_->give_back();
  clear_bootstrap();
  open_ = started_ = false;
  if (result < 0 && result >= -4095)
    log_warning("{}: the batch area cannot be unmapped: {}", host_.describe(), errno_text(static_cast<int>(-result)));
}

}  // namespace stasis

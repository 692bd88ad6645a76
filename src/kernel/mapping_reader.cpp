#include "kernel/mapping_reader.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string_view>

#include "base/log.h"
#include "kernel/kernel_types.h"

namespace stasis {

namespace {

// The page of the vsyscall belongs to no address space: it is in the text, and the iterator does not know it.
constexpr uint64_t kVsyscallWord = ~uint64_t{0};
constexpr std::string_view kVsyscall = "[vsyscall]";

long bpf(int command, union bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

// ---- the program ----

enum Register : uint8_t { r0, r1, r2, r3, r6 = 6, r10 = 10 };

bpf_insn load(Register to, Register from, int16_t offset) {
  return {BPF_LDX | BPF_MEM | BPF_DW, to, from, offset, 0};
}
bpf_insn keep(int16_t stack_offset, Register value) {
  return {BPF_STX | BPF_MEM | BPF_DW, r10, value, stack_offset, 0};
}
bpf_insn set(Register to, int32_t value) {
  return {BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value};
}

// Writes three words for each mapping: start, end, flags. The context is struct bpf_iter__task_vma: pointers to struct
// bpf_iter_meta (which begins with the seq_file), the task and the mapping, which is null at the end.
Fd load_program(uint32_t function, int16_t start, int16_t end, int16_t flags) {
  const bpf_insn code[] = {
      load(r6, r1, 16),
      {BPF_JMP | BPF_JEQ | BPF_K, r6, 0, 12, 0},
      load(r2, r6, start),
      keep(-24, r2),
      load(r2, r6, end),
      keep(-16, r2),
      load(r2, r6, flags),
      keep(-8, r2),
      load(r1, r1, 0),
      load(r1, r1, 0),
      {BPF_ALU64 | BPF_MOV | BPF_X, r2, r10, 0, 0},
      {BPF_ALU64 | BPF_ADD | BPF_K, r2, 0, 0, -24},
      set(r3, 24),
      {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_seq_write},
      set(r0, 0),
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  };
  union bpf_attr a;
  std::memset(&a, 0, sizeof a);
  a.prog_type = BPF_PROG_TYPE_TRACING;
  a.insns = reinterpret_cast<uint64_t>(code);
  a.insn_cnt = sizeof code / sizeof code[0];
  // The kernel gives bpf_seq_write() only to programs that say so. This concerns the table above, which is dual
  // licensed.
  a.license = reinterpret_cast<uint64_t>("Dual MIT/GPL");
  a.expected_attach_type = BPF_TRACE_ITER;
  a.attach_btf_id = function;
  std::memcpy(a.prog_name, "stasis_vmas", 12);
  return Fd(static_cast<int>(bpf(BPF_PROG_LOAD, a)));
}

// ---- mappings to learn from ----

// Kinds of mappings that most programs have, made for as long as this object lives: a word that is not known costs a
// reading of smaps up to its mapping, in the freeze.
class Samples {
 public:
  Samples() {
    const int none = PROT_NONE, ro = PROT_READ, rw = PROT_READ | PROT_WRITE, rx = PROT_READ | PROT_EXEC;
    for (int protection : {none, ro, rw, rx, rw | PROT_EXEC}) {
      map(protection, MAP_PRIVATE | MAP_ANONYMOUS);
      map(protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
      map(protection, MAP_SHARED | MAP_ANONYMOUS);
      // Accounted, as it was writable.
      mprotect(map(rw, MAP_PRIVATE | MAP_ANONYMOUS), kBytes, protection);
      for (int advice : {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DONTFORK})
        madvise(map(protection, MAP_PRIVATE | MAP_ANONYMOUS), kBytes, advice);
    }
    // Stacks of threads, where their guard was taken off a writable mapping or the stack added to an unreadable one.
    for (int protection : {none, rw}) {
      void* stack = map(rw ^ protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE);
      mprotect(stack, kBytes, protection);
      madvise(stack, kBytes, MADV_NOHUGEPAGE);
    }
    const Fd writable(memfd_create("sample", MFD_CLOEXEC));
    char path[32];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", writable.get());
    const Fd readable(::open(path, O_RDONLY | O_CLOEXEC));
    for (int file : {writable.get(), readable.get()})
      for (int protection : {none, ro, rw, rx}) {
        map(protection, MAP_PRIVATE, file);
        map(protection, MAP_SHARED, file);
      }
  }
  Samples(const Samples&) = delete;
  Samples& operator=(const Samples&) = delete;
  ~Samples() {
    for (void* m : made_) munmap(m, kBytes);
  }

 private:
  static constexpr size_t kBytes = 16384;

  void* map(int protection, int flags, int file = -1) {
    void* m = mmap(nullptr, kBytes, protection, flags, file, 0);
    if (m != MAP_FAILED) made_.push_back(m);
    return m;
  }

  std::vector<void*> made_;
};

}  // namespace

std::unique_ptr<MappingReader> MappingReader::open() {
  const KernelTypes types({"vm_area_struct"}, "bpf_iter_task_vma");
  const auto start = types.offset("vm_area_struct", "vm_start"), end = types.offset("vm_area_struct", "vm_end"),
             flags = types.offset("vm_area_struct", "vm_flags");
  if (types.function_id() == 0 || !start || !end || !flags) return nullptr;
  Fd program = load_program(types.function_id(), static_cast<int16_t>(*start), static_cast<int16_t>(*end),
                            static_cast<int16_t>(*flags));
  if (!program) {
    log_debug("No iterator of mappings: {}", std::strerror(errno));
    return nullptr;
  }
  auto reader = std::unique_ptr<MappingReader>(new MappingReader(std::move(program)));
  // Kernels before 6.1 ignore the task and would go through all there are.
  std::vector<FlagWord> own;
  const Samples samples;
  ProcDir self(getpid());
  std::vector<Mapping> mappings = parse_smaps(self.read("smaps"));
  if (!reader->iterate(getpid(), own) || own.size() > mappings.size() + 64) return nullptr;
  reader->learn(own, mappings);
  return reader;
}

bool MappingReader::iterate(pid_t pid, std::vector<FlagWord>& out) const {
  union bpf_iter_link_info which;
  std::memset(&which, 0, sizeof which);
  which.task.tid = static_cast<uint32_t>(pid);
  union bpf_attr a;
  std::memset(&a, 0, sizeof a);
  a.link_create.prog_fd = static_cast<uint32_t>(program_.get());
  a.link_create.attach_type = BPF_TRACE_ITER;
  a.link_create.iter_info = reinterpret_cast<uint64_t>(&which);
  a.link_create.iter_info_len = sizeof which;
  const Fd link(static_cast<int>(bpf(BPF_LINK_CREATE, a)));
  if (!link) return false;
  std::memset(&a, 0, sizeof a);
  a.iter_create.link_fd = static_cast<uint32_t>(link.get());
  const Fd iterator(static_cast<int>(bpf(BPF_ITER_CREATE, a)));
  if (!iterator) return false;
  // A read gives at most eight pages. The one behind the end gives the last of them again if there were several (seen
  // on 6.18), so the end is where addresses do not ascend.
  constexpr size_t kRoom = size_t{2} * 8 * 4096 / sizeof(FlagWord);
  size_t used = 0;
  for (;;) {
    if (out.size() < used + kRoom) out.resize(used + std::max(used, kRoom));
    const ssize_t n = ::read(iterator.get(), out.data() + used, (out.size() - used) * sizeof(FlagWord));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 || static_cast<size_t>(n) % sizeof(FlagWord) != 0) return false;
    if (n == 0 || (used != 0 && out[used].start < out[used - 1].end)) break;
    used += static_cast<size_t>(n) / sizeof(FlagWord);
  }
  out.resize(used);
  return true;
}

void MappingReader::read(ProcDir& proc, ProcBuffer& buffer, std::vector<Mapping>& out) {
  thread_local std::vector<FlagWord> words;
  if (iterate(proc.pid(), words)) {
    if (last_unknown(words) != nullptr) learn(proc, buffer, words);
    out.clear();
    parse_maps(proc.read("maps", buffer), out);
    if (explain(words, out)) return;
  }
  out.clear();
  parse_smaps(proc.read("smaps", buffer), out);
}

const MappingReader::FlagWord* MappingReader::last_unknown(const std::vector<FlagWord>& words) const {
  const std::shared_lock lock(mutex_);
  for (auto w = words.rbegin(); w != words.rend(); ++w)
    if (!meanings_.contains(w->flags)) return &*w;
  return nullptr;
}

void MappingReader::learn(ProcDir& proc, ProcBuffer& buffer, const std::vector<FlagWord>& words) {
  const Fd smaps = proc.open("smaps", O_RDONLY);
  constexpr size_t kChunk = size_t{64} << 10;
  if (buffer.capacity < kChunk) buffer = {std::make_unique_for_overwrite<char[]>(kChunk), kChunk};
  size_t used = 0;
  std::vector<Mapping> mappings;
  while (const FlagWord* wanted = last_unknown(words)) {
    const ssize_t n = ::read(smaps.get(), buffer.bytes.get() + used, buffer.capacity - used);
    if (n <= 0) return;
    used += static_cast<size_t>(n);
    // VmFlags is the last line of a mapping.
    const std::string_view text(buffer.bytes.get(), used);
    const size_t last = text.rfind("\nVmFlags:");
    const size_t end = last == std::string_view::npos ? last : text.find('\n', last + 1);
    if (end == std::string_view::npos) {
      if (used == buffer.capacity) return;
      continue;
    }
    mappings.clear();
    parse_smaps(text.substr(0, end + 1), mappings);
    learn(words, mappings);
    if (!mappings.empty() && mappings.back().end >= wanted->end) return;
    used -= end + 1;
    std::memmove(buffer.bytes.get(), buffer.bytes.get() + end + 1, used);
  }
}

bool MappingReader::explain(const std::vector<FlagWord>& words, std::vector<Mapping>& mappings) const {
  const std::shared_lock lock(mutex_);
  size_t next = 0;
  for (Mapping& m : mappings) {
    uint64_t word = kVsyscallWord;
    if (m.name != kVsyscall) {
      if (next == words.size() || words[next].start != m.start || words[next].end != m.end) return false;
      word = words[next++].flags;
    }
    const auto known = meanings_.find(word);
    if (known == meanings_.end()) return false;
    m.vm_flags = known->second.vm_flags;
    m.unknown_vm_flags = known->second.unknown_vm_flags;
    m.protection_key = known->second.protection_key;
  }
  return next == words.size();
}

void MappingReader::learn(const std::vector<FlagWord>& words, const std::vector<Mapping>& mappings) {
  // Mappings of hugetlbfs are never learned: only smaps tells their page size.
  const std::unique_lock lock(mutex_);
  size_t next = 0;
  for (const Mapping& m : mappings) {
    uint64_t word = kVsyscallWord;
    if (m.name != kVsyscall) {
      while (next < words.size() && words[next].start < m.start) ++next;
      if (next == words.size() || words[next].start != m.start || words[next].end != m.end) continue;
      word = words[next].flags;
    }
    if (!m.has(VmFlag::ht)) meanings_.try_emplace(word, Meaning{m.vm_flags, m.unknown_vm_flags, m.protection_key});
  }
}

}  // namespace stasis

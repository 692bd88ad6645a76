#include "kernel/mapping_reader.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>

#include "base/log.h"

namespace stasis {

namespace {

// The page of the vsyscall belongs to no address space: it is in the text, and the iterator does not know it.
constexpr uint64_t kVsyscallWord = ~uint64_t{0};
constexpr std::string_view kVsyscall = "[vsyscall]";

long bpf(int command, union bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

// ---- the kernel's type information (Documentation/bpf/btf.rst) ----

// The file, in huge pages where the kernel has some: touching memory costs more than the copy.
class KernelTypes {
 public:
  KernelTypes() {
    const Fd file(::open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC));
    struct stat st;
    if (!file || fstat(file.get(), &st) != 0 || st.st_size < static_cast<off_t>(sizeof(btf_header))) return;
    constexpr size_t kHugePage = size_t{2} << 20;
    mapped_bytes_ = (static_cast<size_t>(st.st_size) + 2 * kHugePage - 1) / kHugePage * kHugePage;
    void* map = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return;
    mapped_ = static_cast<char*>(map);
    ::madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
    char* at = mapped_ + (kHugePage - reinterpret_cast<uintptr_t>(mapped_) % kHugePage) % kHugePage;
    size_t used = 0;
    for (ssize_t n; used < static_cast<size_t>(st.st_size) &&
                    (n = ::read(file.get(), at + used, static_cast<size_t>(st.st_size) - used)) > 0;)
      used += static_cast<size_t>(n);
    text_ = {at, used};
    parse();
  }
  KernelTypes(const KernelTypes&) = delete;
  KernelTypes& operator=(const KernelTypes&) = delete;
  ~KernelTypes() {
    if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
  }

  uint32_t function_id() const { return function_; }

  // Byte offset of a member of struct vm_area_struct; anonymous members are looked into.
  std::optional<int16_t> member(std::string_view name) const {
    return area_ == nullptr ? std::nullopt : member(area_, name, 0);
  }

 private:
  void parse() {
    btf_header header;
    std::memcpy(&header, text_.data(), sizeof header);
    const uint64_t types_at = uint64_t{header.hdr_len} + header.type_off;
    const uint64_t strings_at = uint64_t{header.hdr_len} + header.str_off;
    if (header.magic != BTF_MAGIC || types_at + header.type_len > text_.size() ||
        strings_at + header.str_len > text_.size() || types_at % 4 != 0)
      return;
    strings_ = text_.substr(strings_at, header.str_len);
    const uint32_t function_name = string_offset("bpf_iter_task_vma"), area_name = string_offset("vm_area_struct");
    if (function_name == 0 || area_name == 0) return;
    const char* at = text_.data() + types_at;
    const char* const end = at + header.type_len;
    types_.push_back(nullptr);  // type 0 is void
    while (end - at >= static_cast<ptrdiff_t>(sizeof(btf_type))) {
      const auto* type = reinterpret_cast<const btf_type*>(at);
      const uint32_t kind = BTF_INFO_KIND(type->info);
      if (kind == BTF_KIND_FUNC && type->name_off == function_name) function_ = static_cast<uint32_t>(types_.size());
      if (kind == BTF_KIND_STRUCT && type->name_off == area_name) area_ = type;
      types_.push_back(type);
      const std::optional<size_t> bytes = size_of(kind, BTF_INFO_VLEN(type->info));
      if (!bytes || static_cast<size_t>(end - at) < *bytes) break;
      at += *bytes;
    }
  }

  static std::optional<size_t> size_of(uint32_t kind, uint32_t entries) {
    size_t bytes = sizeof(btf_type);
    switch (kind) {
      case BTF_KIND_INT:
      case BTF_KIND_VAR:
      case BTF_KIND_DECL_TAG:
        return bytes + sizeof(uint32_t);
      case BTF_KIND_ARRAY:
        return bytes + sizeof(btf_array);
      case BTF_KIND_STRUCT:
      case BTF_KIND_UNION:
        return bytes + entries * sizeof(btf_member);
      case BTF_KIND_ENUM:
        return bytes + entries * sizeof(btf_enum);
      case BTF_KIND_ENUM64:
        return bytes + entries * sizeof(btf_enum64);
      case BTF_KIND_FUNC_PROTO:
        return bytes + entries * sizeof(btf_param);
      case BTF_KIND_DATASEC:
        return bytes + entries * sizeof(btf_var_secinfo);
      default:
        return kind < NR_BTF_KINDS ? std::optional(bytes) : std::nullopt;
    }
  }

  // Strings are unique; 0 is the empty one.
  uint32_t string_offset(std::string_view name) const {
    std::string wanted(1, '\0');
    wanted.append(name).push_back('\0');
    const size_t at = strings_.find(wanted);
    return at == std::string_view::npos ? 0 : static_cast<uint32_t>(at) + 1;
  }

  std::string_view string_at(uint32_t offset) const {
    if (offset >= strings_.size()) return {};
    const std::string_view rest = strings_.substr(offset);
    return rest.substr(0, rest.find('\0'));
  }

  std::optional<int16_t> member(const btf_type* type, std::string_view name, int depth) const {
    const auto* members = reinterpret_cast<const btf_member*>(type + 1);
    for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); ++i) {
      const uint32_t bits = BTF_INFO_KFLAG(type->info) ? BTF_MEMBER_BIT_OFFSET(members[i].offset) : members[i].offset;
      std::optional<int16_t> inner;
      if (members[i].name_off != 0) {
        if (string_at(members[i].name_off) == name) inner = 0;
      } else if (depth < 4 && members[i].type < types_.size() && types_[members[i].type] != nullptr) {
        const btf_type* nested = types_[members[i].type];
        const uint32_t kind = BTF_INFO_KIND(nested->info);
        if (kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION) inner = member(nested, name, depth + 1);
      }
      if (inner) return static_cast<int16_t>(static_cast<int>(bits / 8) + *inner);
    }
    return std::nullopt;
  }

  char* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  std::string_view text_, strings_;
  std::vector<const btf_type*> types_;
  uint32_t function_ = 0;
  const btf_type* area_ = nullptr;
};

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
  const KernelTypes types;
  const auto start = types.member("vm_start"), end = types.member("vm_end"), flags = types.member("vm_flags");
  if (types.function_id() == 0 || !start || !end || !flags) return nullptr;
  Fd program = load_program(types.function_id(), *start, *end, *flags);
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

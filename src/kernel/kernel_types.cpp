#include "kernel/kernel_types.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/fd.h"

namespace stasis {

namespace {

std::optional<size_t> size_of(uint32_t kind, uint32_t entries) {
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

}  // namespace

// The file, in huge pages where the kernel has some: touching memory costs more than the copy.
KernelTypes::KernelTypes(std::initializer_list<std::string_view> structures, std::string_view function) {
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
  parse(structures, function);
}

KernelTypes::~KernelTypes() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
}

void KernelTypes::parse(std::initializer_list<std::string_view> structures, std::string_view function) {
  btf_header header;
  std::memcpy(&header, text_.data(), sizeof header);
  const uint64_t types_at = uint64_t{header.hdr_len} + header.type_off;
  const uint64_t strings_at = uint64_t{header.hdr_len} + header.str_off;
  if (header.magic != BTF_MAGIC || types_at + header.type_len > text_.size() ||
      strings_at + header.str_len > text_.size() || types_at % 4 != 0)
    return;
  strings_ = text_.substr(strings_at, header.str_len);
  const uint32_t function_name = function.empty() ? 0 : string_offset(function);
  std::vector<std::pair<uint32_t, std::string_view>> names;
  for (const std::string_view s : structures)
    if (const uint32_t name = string_offset(s); name != 0) names.emplace_back(name, s);
  const char* at = text_.data() + types_at;
  const char* const end = at + header.type_len;
  types_.push_back(nullptr);  // type 0 is void
  while (end - at >= static_cast<ptrdiff_t>(sizeof(btf_type))) {
    const auto* type = reinterpret_cast<const btf_type*>(at);
    const uint32_t kind = BTF_INFO_KIND(type->info);
    if (kind == BTF_KIND_FUNC && type->name_off != 0 && type->name_off == function_name)
      function_ = static_cast<uint32_t>(types_.size());
    if (kind == BTF_KIND_STRUCT)
      for (const auto& [name, text] : names)
        if (type->name_off == name) structures_.try_emplace(std::string(text), type);
    types_.push_back(type);
    const std::optional<size_t> bytes = size_of(kind, BTF_INFO_VLEN(type->info));
    if (!bytes || static_cast<size_t>(end - at) < *bytes) break;
    at += *bytes;
  }
}

// Strings are unique; 0 is the empty one.
uint32_t KernelTypes::string_offset(std::string_view name) const {
  std::string wanted(1, '\0');
  wanted.append(name).push_back('\0');
  const size_t at = strings_.find(wanted);
  return at == std::string_view::npos ? 0 : static_cast<uint32_t>(at) + 1;
}

std::string_view KernelTypes::string_at(uint32_t offset) const {
  if (offset >= strings_.size()) return {};
  const std::string_view rest = strings_.substr(offset);
  return rest.substr(0, rest.find('\0'));
}

// The structure or union behind a type; null if it is something else.
const btf_type* KernelTypes::inner(uint32_t id) const {
  if (id >= types_.size() || types_[id] == nullptr) return nullptr;
  const uint32_t kind = BTF_INFO_KIND(types_[id]->info);
  return kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION ? types_[id] : nullptr;
}

std::optional<KernelTypes::Member> KernelTypes::find(const btf_type* type, std::string_view path, int depth) const {
  const std::string_view name = path.substr(0, path.find('.'));
  const std::string_view rest = name.size() == path.size() ? std::string_view() : path.substr(name.size() + 1);
  const auto* members = reinterpret_cast<const btf_member*>(type + 1);
  for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); ++i) {
    const bool flag = BTF_INFO_KFLAG(type->info);
    const Member here{flag ? BTF_MEMBER_BIT_OFFSET(members[i].offset) : members[i].offset,
                      flag ? BTF_MEMBER_BITFIELD_SIZE(members[i].offset) : 0};
    const bool anonymous = members[i].name_off == 0;
    if (!anonymous && string_at(members[i].name_off) != name) continue;
    if (!anonymous && rest.empty()) return here;
    const btf_type* nested = inner(members[i].type);
    if (nested == nullptr || depth >= 4) continue;
    if (const auto found = find(nested, anonymous ? path : rest, depth + 1))
      return Member{here.bit_offset + found->bit_offset, found->bits};
  }
  return std::nullopt;
}

std::optional<KernelTypes::Member> KernelTypes::member(std::string_view structure, std::string_view path) const {
  const auto at = structures_.find(structure);
  return at == structures_.end() ? std::nullopt : find(at->second, path, 0);
}

std::optional<uint32_t> KernelTypes::offset(std::string_view structure, std::string_view path) const {
  const auto found = member(structure, path);
  return found ? std::optional(found->bit_offset / 8) : std::nullopt;
}

std::optional<uint32_t> KernelTypes::size(std::string_view structure) const {
  const auto at = structures_.find(structure);
  return at == structures_.end() ? std::nullopt : std::optional(at->second->size);
}

}  // namespace stasis

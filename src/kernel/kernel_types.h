// The kernel's own type information (Documentation/bpf/btf.rst): where the members of its structures are.
//
// Reading it takes some milliseconds (5.5 MB): not in a freeze where that can be avoided.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

struct btf_type;

namespace stasis {

class KernelTypes {
 public:
  // Finds these structures and, if it has a name, a function. What is not there is not found by the questions below.
  explicit KernelTypes(std::initializer_list<std::string_view> structures, std::string_view function = {});
  KernelTypes(const KernelTypes&) = delete;
  KernelTypes& operator=(const KernelTypes&) = delete;
  ~KernelTypes();

  // 0: there is none.
  uint32_t function_id() const { return function_; }

  struct Member {
    uint32_t bit_offset = 0;
    uint32_t bits = 0;  // of a bit field; else 0
  };
  // "a.b": member b of the structure that is member a. Members of anonymous ones are looked into.
  std::optional<Member> member(std::string_view structure, std::string_view path) const;
  // Bytes from the beginning of the structure.
  std::optional<uint32_t> offset(std::string_view structure, std::string_view path) const;
  std::optional<uint32_t> size(std::string_view structure) const;

 private:
  void parse(std::initializer_list<std::string_view> structures, std::string_view function);
  uint32_t string_offset(std::string_view name) const;
  std::string_view string_at(uint32_t offset) const;
  const btf_type* inner(uint32_t id) const;
  std::optional<Member> find(const btf_type* type, std::string_view path, int depth) const;

  char* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  std::string_view text_, strings_;
  std::vector<const btf_type*> types_;
  uint32_t function_ = 0;
  std::map<std::string, const btf_type*, std::less<>> structures_;
};

}  // namespace stasis

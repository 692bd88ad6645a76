// The extended state of x86: bytes in XSAVE standard format, as ptrace transfers them (NT_X86_XSTATE), to and from the
// parts of an image. Where a component lies is asked from the CPU: the places differ between CPUs, the parts do not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "proto/core-x86.pb.h"

namespace stasis {

struct XsaveLayout {
  struct Component {
    uint32_t offset = 0, bytes = 0;
  };
  uint64_t features = 0;                   // XCR0: components that the CPU has and the kernel switched on
  uint64_t on_demand = 0;                  // of these: a process has to ask for them (XFD)
  size_t bytes = 0;                        // of the whole area
  std::array<Component, 64> components{};  // by feature bit; x87 and SSE lie in the legacy area

  static const XsaveLayout& of_this_cpu();
};

// A component in use that the core image has no place for.
struct ExtraComponent {
  uint32_t number = 0;
  std::vector<std::byte> bytes;
  bool operator==(const ExtraComponent&) const = default;
};
// Throws UNSUPPORTED_STATE for one that `layout` does not tell the place of.
std::vector<ExtraComponent> extra_components(std::span<const std::byte> area, const XsaveLayout& layout);
// Throws CPU_LACKS_FEATURE if `layout` has no such component, IMAGE_CORRUPT if that is of another kind.
void place_extra(const ExtraComponent& extra, const XsaveLayout& layout, std::span<std::byte> area);
// The components that `area` marks as in use.
uint64_t components_in_use(std::span<const std::byte> area);
// "AMX tiles", for messages.
std::string component_name(uint32_t number);

void encode_xsave(std::span<const std::byte> area, const XsaveLayout& layout, pb::user_x86_fpregs_entry& out);
// Throws IMAGE_CORRUPT, IMAGE_UNSUPPORTED; CPU_LACKS_FEATURE if a component that `layout` lacks was in use.
std::vector<std::byte> decode_xsave(const pb::user_x86_fpregs_entry& in, const XsaveLayout& layout);

}  // namespace stasis

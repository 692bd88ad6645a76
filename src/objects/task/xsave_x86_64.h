// The extended state of x86: bytes in XSAVE standard format, as ptrace transfers them (NT_X86_XSTATE), to and from the
// parts of an image. Where a component lies is asked from the CPU: the places differ between CPUs, the parts do not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "proto/core-x86.pb.h"

namespace stasis {

struct XsaveLayout {
  struct Component {
    uint32_t offset = 0, bytes = 0;
  };
  uint64_t features = 0;                   // XCR0: components that the CPU has and the kernel switched on
  size_t bytes = 0;                        // of the whole area
  std::array<Component, 64> components{};  // by feature bit; x87 and SSE lie in the legacy area

  static const XsaveLayout& of_this_cpu();
};

// Throws UNSUPPORTED_STATE if a component that images have no place for is in use.
void refuse_unsaved_components(std::span<const std::byte> area, const XsaveLayout& layout);
void encode_xsave(std::span<const std::byte> area, const XsaveLayout& layout, pb::user_x86_fpregs_entry& out);
// Throws IMAGE_CORRUPT, IMAGE_UNSUPPORTED; CPU_LACKS_FEATURE if a component that `layout` lacks was in use.
std::vector<std::byte> decode_xsave(const pb::user_x86_fpregs_entry& in, const XsaveLayout& layout);

}  // namespace stasis

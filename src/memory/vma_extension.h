// What extension.img says of mappings: seals, locks that wait for the first touch, accounted memory, NUMA policies.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernel/number_set.h"
#include "memory/vma.h"

namespace stasis::pb {
class extension_task;
class extension_mm;
}  // namespace stasis::pb

namespace stasis {

// Where new pages of one area are (mbind(2)).
struct AreaPolicy {
  uint64_t start = 0, end = 0;
  uint32_t mode = 0;  // MPOL_* with its flags
  NumberSet nodes;
  bool operator==(const AreaPolicy&) const = default;
};

// `policies`: ascending.
void encode_extension(std::span<const Vma> areas, std::span<const AreaPolicy> policies, pb::extension_task& task);
// All areas are told about: an attribute without a record is not there. Throws IMAGE_CORRUPT for ranges that are not
// those of areas.
void decode_extension(const pb::extension_mm& mm, std::vector<Vma>& areas, std::vector<AreaPolicy>& policies,
                      const std::string& shown_name);

}  // namespace stasis

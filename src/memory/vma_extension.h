// What extension.img says of mappings: seals, locks that wait for the first touch, accounted memory.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "memory/vma.h"

namespace stasis::pb {
class extension_task;
class extension_mm;
}  // namespace stasis::pb

namespace stasis {

void encode_extension(std::span<const Vma> areas, pb::extension_task& task);
// All areas are told about: an attribute without a record is not there. Throws IMAGE_CORRUPT for ranges that are not
// those of areas.
void decode_extension(const pb::extension_mm& mm, std::vector<Vma>& areas, const std::string& shown_name);

}  // namespace stasis

// The build id of an ELF file: the note that the linker leaves there (NT_GNU_BUILD_ID), 20 bytes as a rule.
//
// Programs are recognised by it, because a new build of the same size is another program.
#pragma once

#include <cstdint>
#include <vector>

namespace stasis {

// As words in host order, the last one padded with zeros; empty for a file that is no ELF file or has no such note.
// `fd` is open for reading; its position is neither used nor moved. One read as a rule, two at most.
std::vector<uint32_t> read_build_id(int fd);

}  // namespace stasis

// Names that nobody else gives.
#pragma once

#include <string>

namespace stasis {

// A random UUID (RFC 4122, version 4) as text: 36 characters.
std::string random_uuid();

}  // namespace stasis

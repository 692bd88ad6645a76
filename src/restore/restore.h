// One restore: read and check all images, build the tree as puppets, let it go.
#pragma once

#include "base/restore_options.h"

namespace stasis {

// Throws Error; then nothing of the tree exists. Returns the exit status of this program: 0 when detached, else what
// the root ended with (128 + signal if one killed it).
int restore(const RestoreOptions& options);

}  // namespace stasis

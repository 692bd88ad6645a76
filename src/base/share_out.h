// One call for many independent things, on as many threads as are worth it.
#pragma once

#include <cstddef>
#include <functional>

namespace stasis {

// Calls part(from, to) for pieces of [0, count), of at least `piece` each: at once, where there is more than one piece
// and more than one processor. Rethrows the first exception; what was begun is still finished.
void share_out(size_t count, size_t piece, const std::function<void(size_t from, size_t to)>& part);

}  // namespace stasis

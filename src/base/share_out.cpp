#include "base/share_out.h"

#include <algorithm>

#include "base/workers.h"

namespace stasis {

void share_out(size_t count, size_t piece, const std::function<void(size_t from, size_t to)>& part) {
  const size_t threads = std::min<size_t>(usable_processors(), count / std::max<size_t>(piece, 1));
  if (threads < 2) {
    if (count > 0) part(0, count);
    return;
  }
  Workers workers(static_cast<unsigned>(threads) - 1);
  for (size_t i = 0; i < threads; ++i) workers.post([&, i] { part(count * i / threads, count * (i + 1) / threads); });
  workers.finish();
}

}  // namespace stasis

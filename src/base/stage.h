// One step of a run, timed for the log.
#pragma once

#include <chrono>

#include "base/log.h"

namespace stasis {

template <class Work>
void stage(const char* name, Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  log_info("Stage {}: {} us", name,
           std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin).count());
}

}  // namespace stasis

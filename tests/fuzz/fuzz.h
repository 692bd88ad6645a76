// What all fuzzers share: the input as parts, and the rule what bad input may do. It may be refused by an Error and by
// nothing else; anything that escapes ends the fuzzer, which is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"

namespace stasis::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  uint16_t word() {
    const uint16_t low = byte();
    return static_cast<uint16_t>(low | byte() << 8);
  }
  // At most `size` bytes.
  std::string_view take(size_t size) {
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(out.size());
    return out;
  }
  std::string_view rest() { return take(rest_.size()); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// Runs `action`; false if it refused its input. With FUZZ_VERBOSE in the environment it says why.
template <class Action>
bool accepts(Action&& action) {
  try {
    action();
    return true;
  } catch (const Error& e) {
    // The texts of refusals are made from the input too.
    const std::string report = e.report();
    if (std::getenv("FUZZ_VERBOSE") != nullptr) std::fprintf(stderr, "refused: %s\n", report.c_str());
    return false;
  }
}

}  // namespace stasis::fuzz

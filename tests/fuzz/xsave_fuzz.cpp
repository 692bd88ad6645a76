// Extended CPU state: byte 0 picks the layout of the CPU, the rest is the message of an image.
#include "fuzz.h"
#include "objects/task/xsave_x86_64.h"

namespace stasis {
namespace {

// A CPU with no more than SSE, whatever this one has.
XsaveLayout small_layout() {
  XsaveLayout layout;
  layout.features = 3;
  layout.bytes = 576;
  return layout;
}

}  // namespace
}  // namespace stasis

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  fuzz::Input input(data, size);
  const XsaveLayout layout = input.byte() % 2 == 0 ? XsaveLayout::of_this_cpu() : small_layout();
  pb::user_x86_fpregs_entry in;
  const std::string_view bytes = input.rest();
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return 0;
  fuzz::accepts([&] {
    const auto area = decode_xsave(in, layout);
    if (area.size() != layout.bytes) __builtin_trap();
    // What was decoded is what an image of it holds.
    pb::user_x86_fpregs_entry out;
    encode_xsave(area, layout, out);
    if (decode_xsave(out, layout) != area) __builtin_trap();
  });
  return 0;
}

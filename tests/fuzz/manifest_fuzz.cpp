// The list of files and checksums of a dump.
#include "fuzz.h"
#include "image/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  fuzz::accepts([&] {
    const Manifest manifest = decode_manifest(fuzz::Input(data, size).rest(), "fuzz");
    if (decode_manifest(encode_manifest(manifest), "again") != manifest) __builtin_trap();
  });
  return 0;
}

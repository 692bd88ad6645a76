// Configuration files of the command line.
#include "cli/config_file.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  fuzz::accepts([&] { cli::parse_config_text(fuzz::Input(data, size).rest(), "fuzz.conf"); });
  return 0;
}

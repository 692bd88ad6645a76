#include "base/error.h"
#include "cli/verbs.h"
#include "image/store.h"
#include "objects/cpu_info.h"

namespace stasis::cli {

int run_cpuinfo(const CommandLine& line, Workplace place) {
  if (line.words.front() == "dump") {
    write_lone_image(place.images_dir.get(), place.images_dir_shown, ImageKind::CPUINFO, describe_this_cpu());
    return 0;
  }
  const ImageStore store = ImageStore::in_directory(std::move(place.images_dir), place.images_dir_shown);
  pb::cpuinfo_entry saved;
  store.require_single(ImageKind::CPUINFO, 0, saved);
  require_features(saved, describe_this_cpu(), line.cpu);
  return 0;
}

}  // namespace stasis::cli

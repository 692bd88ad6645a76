// The directories and the log of one run.
#pragma once

#include <string>

#include "base/fd.h"
#include "cli/options.h"

namespace stasis::cli {

struct Workplace {
  Fd images_dir;
  std::string images_dir_shown;
  Fd work_dir;  // also the current directory
};

// Where log lines go, for telling the user. Empty name: standard error.
struct LogPlace {
  bool open = false;
  std::string name;
};

// Opens the image directory, enters the work directory and starts the log there. The log is started even if the
// image directory cannot be opened, as long as there is a place for it. `log` says where it is as soon as it is.
// Throws IMAGE_DIR or LOG_FILE.
Workplace open_workplace(const CommandLine& line, LogPlace& log);

// Throws NO_PRIVILEGE if the caller may not do what dump and restore need.
void check_privilege(const CommandLine& line);

}  // namespace stasis::cli

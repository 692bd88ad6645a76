// The file that tells a pid to whoever waits for it.
#pragma once

#include <sys/types.h>

#include <string>

namespace stasis {

// Creates `path` (relative to the directory `directory_fd`, or to the current one with AT_FDCWD) with mode 0600 and
// writes the decimal pid without a newline. An existing file is never overwritten: it may belong to a program that
// runs. Throws Reason::PIDFILE and leaves no file behind then.
void write_pid_file(int directory_fd, const std::string& path, pid_t pid);

}  // namespace stasis

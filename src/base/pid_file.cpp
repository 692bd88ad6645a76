#include "base/pid_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/fd.h"

namespace stasis {

void write_pid_file(int directory_fd, const std::string& path, pid_t pid) {
  const Fd file(::openat(directory_fd, path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) {
    throw Error(Reason::PIDFILE, "cannot create the pid file")
        .object(path)
        .error_number(errno)
        .remedy(errno == EEXIST ? "remove the old file if its program is gone, or name another one"
                                : "name another file");
  }
  const std::string text = fmt::format("{}", pid);
  const ssize_t written = ::write(file.get(), text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) return;
  const int error_number = written < 0 ? errno : ENOSPC;
  ::unlinkat(directory_fd, path.c_str(), 0);
  throw Error(Reason::PIDFILE, "cannot write the pid file")
      .object(path)
      .error_number(error_number)
      .remedy("free some space, or name another file");
}

}  // namespace stasis

#include "base/fd.h"

#include <unistd.h>

#include <cerrno>

namespace stasis {

void Fd::reset(int fd) noexcept {
  const int old = std::exchange(fd_, fd);
  if (old < 0) return;
  // close() frees the number even when it reports an error (close(2)); a destructor must not disturb errno.
  const int saved = errno;
  ::close(old);
  errno = saved;
}

}  // namespace stasis

#include "objects/task/own_status.h"

#include <unistd.h>

#include "kernel/proc.h"

namespace stasis {

const ProcStatus& own_status() {
  static const ProcStatus status = parse_status(ProcDir::of_thread(getpid(), gettid()).read("status"));
  return status;
}

}  // namespace stasis

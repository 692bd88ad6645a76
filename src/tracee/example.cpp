// Runs one system call in a foreign process: example PID. Prints what getpid() returns there.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>

#include <cstdlib>

#include "base/error.h"
#include "kernel/proc.h"
#include "tracee/borrowed.h"
#include "tracee/seize_tree.h"

using namespace stasis;

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} PID\n", argv[0]);
    return 2;
  }
  try {
    const pid_t pid = std::atoi(argv[1]);
    StopWaiter waiter;
    Tracee thread = Tracee::seize(pid, pid);
    thread.interrupt();
    if (!thread.await_stop(waiter, Clock::now() + std::chrono::seconds(5))) return 1;
    thread.save_own_state();

    ProcDir proc(pid);
    const ProcStatus status = parse_status(proc.read("status"));
    const auto mappings = parse_maps(proc.read("maps"));
    const ReportSignal report = choose_report_signal({.ignored = status.sig_ignored,
                                                      .caught = status.sig_caught,
                                                      .blocked = status.sig_blocked,
                                                      .pending = status.sig_pending | status.shared_pending});
    Borrowed borrowed(pid, status.name, thread, proc.open("mem", O_RDWR));
    borrowed.start_open(mappings, {}, report);
    borrowed.finish_open(waiter);

    SyscallBatch batch;
    const auto call = batch.call(SYS_getpid, {});
    borrowed.host().run(thread, 0, batch, waiter);
    fmt::print("{} says: I am {}\n", borrowed.host().describe(), batch.result(call));
    return 0;  // the destructors give the process back and let it run
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.report());
    return 1;
  }
}

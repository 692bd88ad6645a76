// The seccomp filters of a thread, and whether they let it come home.
//
// They are suspended while it runs batches (Tracee::suspend_seccomp()). That ends with the tracer: what a thread does
// after the death of its controller meets the filters. So the calls of the way home are evaluated here.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <vector>

#include "tracee/tracee.h"

namespace stasis {

using SeccompProgram = std::vector<sock_filter>;

struct SeccompFilter {
  SeccompProgram program;
  uint32_t flags = 0;  // SECCOMP_FILTER_FLAG_LOG; the kernel does not tell the others
};

// The filters of a stopped thread, the first installed first. Needs CAP_SYS_ADMIN in the initial user namespace and an
// unfiltered caller: throws NO_PRIVILEGE otherwise.
std::vector<SeccompFilter> read_seccomp_filters(const Tracee& thread);

// What one filter answers to a call (SECCOMP_RET_*), seccomp(2).
uint32_t evaluate_seccomp(std::span<const sock_filter> program, uint64_t number, std::span<const uint64_t> args,
                          uint64_t instruction_pointer);

// Do all filters allow what a thread does that comes home from a batch without a controller: report, and set its mask?
bool allow_way_home(std::span<const SeccompFilter> filters, const Tracee& thread, ReportSignal report);

// May the program answer SECCOMP_RET_USER_NOTIF? Then it has, or had, a process that decides on calls.
bool may_notify(std::span<const sock_filter> program);

}  // namespace stasis

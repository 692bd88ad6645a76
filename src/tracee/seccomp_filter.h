// Whether the seccomp filters of a thread let the calls of a batch through.
//
// PTRACE_O_SUSPEND_SECCOMP is no way for a running process: suspension ends with the tracer, and the rest of the table
// of a controller that dies would meet the filter. So the filters are evaluated here, call by call.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tracee/batch.h"
#include "tracee/tracee.h"

namespace stasis {

using SeccompProgram = std::vector<sock_filter>;

// The filters of a stopped thread, the first installed first. Needs CAP_SYS_ADMIN in the initial user namespace and an
// unfiltered caller: throws NO_PRIVILEGE otherwise.
std::vector<SeccompProgram> read_seccomp_filters(const Tracee& thread);

// What one filter answers to a call (SECCOMP_RET_*), seccomp(2).
uint32_t evaluate_seccomp(std::span<const sock_filter> program, uint64_t number, std::span<const uint64_t> args,
                          uint64_t instruction_pointer);

// Throws SECCOMP_REFUSES naming the call if any filter does not allow every call that `numbers` lists (whatever its
// arguments are taken to be: zeros) .
void require_calls_allowed(std::span<const SeccompProgram> filters, std::span<const long> numbers,
                           const std::string& who);

}  // namespace stasis

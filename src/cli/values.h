// Parsers for the arguments of options. Each takes text, returns a value and throws Reason::BAD_OPTION with what
// is wrong; the caller adds which option it was.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/choices.h"
#include "base/restore_options.h"

namespace stasis::cli {

// Decimal digits only, within [low, high].
uint64_t parse_number(std::string_view text, uint64_t low, uint64_t high);
// Decimal digits and an optional K, M or G (powers of 1024).
uint64_t parse_size_bytes(std::string_view text);
// "--verbosity=4", "-v4", "-vvv", "-v" and, because callers have it, "-verbosity=4" (which getopt_long hands over
// as -v with the argument "erbosity=4"). `text` is nullptr for the bare option. Returns the new level.
int parse_verbosity(const char* text, int level);
// "fpu,ins", "all", "none", "^cpu": changes `checks` word by word. nullptr means all.
void parse_cpu_list(const char* text, CpuChecks& checks);
std::vector<std::string> split(std::string_view text, char separator);

NetworkLock parse_network_lock(std::string_view text);
// One of kLosses.
std::string parse_loss(std::string_view text);
MemorySnapshot parse_memory_snapshot(std::string_view text);
CpuAffinityChoice parse_cpu_affinity(std::string_view text);
FileValidation parse_file_validation(std::string_view text);
CgroupMode parse_cgroup_mode(std::string_view text);
CgroupRoot parse_cgroup_root(std::string_view text);
// "fd[N]:KEY" or "debug[N]:TEXT"; `is_debug` tells which.
InheritedFd parse_inherit_fd(std::string_view text, bool& is_debug);
// "NS:PID-OR-FILE[,UID,GID]".
JoinNamespace parse_join_ns(std::string_view text);
// Throws if "TYPE[KEY]" or "TYPE[KEY]:VALUE" is not what that type needs. Unknown types pass: their keys are
// compared as strings and match nothing.
void check_external(std::string_view text);

}  // namespace stasis::cli

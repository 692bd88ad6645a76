// The label under which a security module confines a thread (/proc/PID/task/TID/attr, apparmor(7), selinux(8)).
//
// AppArmor: each thread changes into its profile by itself, behind its credentials (O-49, O-58): the file that takes
// the name must have been opened with them. The profile has to be loaded where the task is restored. SELinux and
// others: a task that has the label of this program comes back with the label of the restore; every other one is
// refused.
#pragma once

#include "objects/task_object.h"
#include "proto/inventory.pb.h"

namespace stasis {

struct SecurityLabel {
  static constexpr std::string_view name = "security label";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::string profile;  // of AppArmor, without its mode; empty: unconfined, or no such module
  };

  static void prepare(const ProcStatus& root);
  static void look(const LookView&, State&);
  static void encode(const State&, pb::core_entry&);
  static void decode(const pb::core_entry&, State&);
  // Throws FEATURE_MISSING, FILE_MISSING when there is no such profile.
  static void settle(const State&, const SettleView&, SyscallBatch&);
};

// The module that labels tasks on this machine.
pb::lsmtype security_module();

// "/usr/bin/man (enforce)" -> "/usr/bin/man", "unconfined" -> "".
std::string apparmor_profile(std::string_view label);

}  // namespace stasis

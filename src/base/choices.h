// Choices that a dump and a restore have in common: small plain types, used by their option structs and by the
// layers below them. Values that end up in images or messages are written out.
#pragma once

#include <string>
#include <string_view>

namespace stasis {

// How a saved regular file is recognised at restore.
enum class FileValidation {
  size,      // by size alone
  build_id,  // by the ELF build id where the file has one, else by size
};

// How packets of saved TCP connections are kept away while nobody answers them. The numbers go into the images.
enum class NetworkLock {
  iptables = 1,
  nftables = 2,
  skip = 3,  // the caller has cut the network already
};

// How the memory of tasks that run on is held still while it is saved.
enum class MemorySnapshot {
  automatic,  // by how much there is and how fast it is written
  fork,       // in a forked copy, if that can be made
  copy,       // the tasks stand still until it is copied
};

// What of the control groups is saved and brought back. The numbers are bits of a mask in the images.
enum class CgroupMode {
  ignore = 0,  // the tasks stay in the group of whoever restores
  none = 1,    // tasks are moved, groups must exist
  props = 2,   // and properties of existing groups are set
  soft = 4,    // and missing groups are made; properties only of those
  full = 8,    // groups are made, all properties are set
  strict = 16  // no group may exist yet
};

// Which CPU features the images demand of the restoring machine.
struct CpuChecks {
  bool fpu = true;     // extended register state in use
  bool cpu = false;    // every feature bit of the CPU
  bool ins = true;     // instruction set extensions
  bool image = false;  // write (dump) or check (restore) the CPU description

  bool operator==(const CpuChecks&) const = default;
};

// State that no image can hold, by the names under which a user may give it up for a dump.
inline constexpr std::string_view kLosses[] = {"core-scheduling", "landlock", "unread-events"};

// The processors that the images bind tasks to.
enum class CpuAffinityChoice {
  keep,
  inherit,  // tasks run where the restoring program may run
};

// A new place for control groups.
struct CgroupRoot {
  std::string controller;  // empty: for all
  std::string path;        // absolute within the hierarchy
};

}  // namespace stasis

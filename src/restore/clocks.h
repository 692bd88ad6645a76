// Clocks that go on where they were: a time namespace whose offsets make up for the time between dump and restore.
#pragma once

#include "base/fd.h"
#include "proto/timens.pb.h"
#include "tracee/stop.h"

namespace stasis {

// The clocks of the restored tasks: they read this at one moment of ours, and go on from there.
struct RestoredClocks {
  uint64_t monotonic_ns = 0, boottime_ns = 0;
  uint64_t since_ns = 0;  // of ours: CLOCK_MONOTONIC
  uint64_t went_on_ns() const;
};
// From construction on, children of the calling thread are born into a new time namespace in which CLOCK_MONOTONIC and
// CLOCK_BOOTTIME read what `saved` says; the destructor puts the caller back. Throws FEATURE_MISSING, NO_PRIVILEGE.
class ClocksOfChildren {
 public:
  explicit ClocksOfChildren(const pb::timens_entry& saved);
  ~ClocksOfChildren();
  ClocksOfChildren(const ClocksOfChildren&) = delete;
  ClocksOfChildren& operator=(const ClocksOfChildren&) = delete;

  const RestoredClocks& clocks() const { return clocks_; }

 private:
  RestoredClocks clocks_;
  Fd original_;
};

}  // namespace stasis

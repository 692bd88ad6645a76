// The vdso of every process of a tree: where it comes from, and the calls that bring it back.
//
// A child is cloned with the vdso of its parent. Whoever has the present vdso in a place of its own, behind jumps, has
// it at one address that is free in all processes of the tree.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "memory/vdso.h"
#include "restore/plan.h"
#include "tracee/batch.h"

namespace stasis {

class TreeVdso {
 public:
  // Reads the images. A vdso in them that is not mapped again stays in the list of areas, as one. `jumps_only`: as if
  // the vdso of this kernel were another one. Throws IMAGE_UNSUPPORTED, NO_ROOM_FOR_BATCH.
  TreeVdso(RestorePlan& plan, bool jumps_only);

  // The copy that the clone brought from the parent stays: all of its areas, and present(parent).
  bool inherited(const PlannedProcess& p) const;
  // Where the present vdso is mapped beside the areas of the images; empty if it is not.
  AddressRange beside(const PlannedProcess& p) const;
  // What a process that does not inherit calls, when everything that it does not keep is unmapped.
  void map(const PlannedProcess& p, SyscallBatch& batch) const;
  // And what is written into it then, or found there: throws IMAGE_UNSUPPORTED.
  void write(const PlannedProcess& p, int memory_fd) const;

 private:
  enum class Way { none, in_place, jumps };
  struct Choice {
    Way way = Way::none;
    VdsoLayout layout;
    size_t image = 0;  // of images_
    bool compat = false;
    bool operator==(const Choice&) const = default;
  };
  struct Image {
    std::vector<std::byte> dumped;
    VdsoLayout layout;                  // that of the first process which has it; the distances are those of all
    bool is_own;                        // in place, and the code is that of this kernel
    std::vector<std::byte> with_jumps;  // made when it is needed
  };
  // That of a program of the narrower width comes back in its place, or not at all: this program has none to compare it
  // with before it is mapped.
  void check_compat(const PlannedProcess& p, int memory_fd) const;
  Choice choose(PlannedProcess& p, bool jumps_only);
  void place_beside(const RestorePlan& plan);

  Vdso own_;
  uint64_t beside_ = 0;
  std::vector<Image> images_;  // the different ones
  std::map<const PlannedProcess*, Choice> choices_;
};

}  // namespace stasis

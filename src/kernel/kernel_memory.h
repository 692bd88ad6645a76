// Memory of the kernel itself, read through a BPF program, for what it tells in no other way.
//
// CAP_BPF and CAP_PERFMON are needed, and type information in the kernel (CONFIG_DEBUG_INFO_BTF). Nothing is
// written there, and an address that leads nowhere is an error and no harm. The caller guarantees that what it reads
// does not change meanwhile, or that it makes no difference.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>

#include "base/fd.h"
#include "kernel/kernel_types.h"

namespace stasis {

class KernelMemory {
 public:
  // `structures`: whose members can be asked for. Nothing where the kernel does not have it or does not permit it.
  static std::unique_ptr<KernelMemory> open(std::initializer_list<std::string_view> structures);

  const KernelTypes& types() const { return types_; }
  // struct task_struct of the thread that calls.
  uint64_t own_task() const;
  // False if some of it is not there.
  bool read(uint64_t address, void* out, size_t bytes) const;
  template <class T>
  bool read(uint64_t address, T& out) const {
    return read(address, &out, sizeof out);
  }
  // The number of elements of a list that is linked by the first word of each, from the one at `first` (0: none); -1 if
  // it has more than `most` or leads nowhere.
  int64_t list_length(uint64_t first, uint64_t most) const;

 private:
  explicit KernelMemory(std::initializer_list<std::string_view> structures) : types_(structures) {}

  KernelTypes types_;
  Fd reader_, walker_;
};

}  // namespace stasis

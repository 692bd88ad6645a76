// An address in another task. It cannot be dereferenced here; it can be computed with, sent in batches and read
// through the task's memory.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace stasis {

template <class T = void>
class RemotePtr {
 public:
  constexpr RemotePtr() = default;
  constexpr explicit RemotePtr(uint64_t address) : address_(address) {}
  template <class U>
  constexpr explicit RemotePtr(RemotePtr<U> other) : address_(other.address()) {}

  constexpr uint64_t address() const { return address_; }
  constexpr explicit operator bool() const { return address_ != 0; }
  constexpr auto operator<=>(const RemotePtr&) const = default;

  template <class U = T>
  constexpr RemotePtr operator+(ptrdiff_t count) const {
    return RemotePtr(address_ + static_cast<uint64_t>(count) * sizeof(U));
  }

 private:
  uint64_t address_ = 0;
};

}  // namespace stasis

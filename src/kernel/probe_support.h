// Tools of the feature probes: results, a disposable child, a traced child.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "kernel/features.h"

namespace stasis::probes {

inline FeatureResult supported() {
  return {true, {}};
}
inline FeatureResult missing(std::string why) {
  return {false, std::move(why)};
}
// `result` >= 0: supported; else missing because of `what` and the errno. A refusal (EPERM, EACCES) where a `privilege`
// is named says nothing about the kernel: "cannot tell without PRIVILEGE".
FeatureResult by_result(long result, std::string_view what, std::string_view privilege = {});
// The same with the result of a libc call, -1 and errno.
FeatureResult by_errno(long result, std::string_view what, std::string_view privilege = {});

// Runs `body` in a forked child and hands its result over. The child dies with this process and after a few seconds at
// the latest; when it dies of its own accord the feature is missing. The body may change anything of its process.
FeatureResult in_child(const std::function<FeatureResult()>& body);

// For bodies of in_child(): a mount namespace of its own with nothing propagating out. Supported, or why not.
FeatureResult enter_private_mounts();
// The same for a network namespace (loopback only, down).
FeatureResult enter_private_network();

// A child that runs `setup` (0: fine), then sleeps, seized and stopped. Killed and reaped by the destructor. Use it
// inside in_child(), so that no wait of the surrounding program can catch it.
class TracedChild {
 public:
  explicit TracedChild(unsigned seize_options = 0, int (*setup)() = nullptr);
  ~TracedChild();
  TracedChild(const TracedChild&) = delete;
  TracedChild& operator=(const TracedChild&) = delete;

  pid_t pid() const noexcept { return pid_; }
  // Whether it was seized and stopped; if not, why.
  const FeatureResult& state() const noexcept { return state_; }
  // Raw ptrace request on it: value, or negative errno.
  long request(unsigned request, unsigned long address, const void* data) const noexcept;

 private:
  FeatureResult start(unsigned seize_options, int (*setup)());

  pid_t pid_ = -1;
  FeatureResult state_;
};

}  // namespace stasis::probes

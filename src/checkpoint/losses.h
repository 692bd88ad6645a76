// What a dump has to leave out: state that no image can hold. It is refused by name, or left out, told and recorded
// when the user gives it up.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/dump_options.h"
#include "objects/files/file_kind.h"
#include "objects/task_object.h"
#include "proto/extension.pb.h"

namespace stasis {

class Losses {
 public:
  explicit Losses(const DumpOptions& options) : options_(options) {}

  // Placement in control groups: told, not refused. Reads /proc of running tasks.
  void look_at_groups(std::span<const pid_t> pids);
  // Throws UNSUPPORTED_STATE for the first loss that the user does not allow.
  void collect(const ObjectStates& states, const std::string& who);
  void collect(std::span<const FileLoss> losses);
  // Tells the user, after the tasks are saved.
  void tell() const;
  void encode(pb::extension_head& head) const;

 private:
  struct LeftOut {
    std::string_view name;
    std::string what, first_task;
    size_t tasks = 0;
  };
  void require_allowed(std::string_view name, const std::string& what, const std::string& who) const;
  void add(std::string_view name, std::string what, const std::string& who);

  const DumpOptions& options_;
  std::vector<LeftOut> left_out_;
  std::vector<Loss> found_;
};

}  // namespace stasis

// Which mappings go into a core file (/proc/PID/coredump_filter).
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct CoreDumpFilter {
  static constexpr std::string_view name = "core dump filter";
  static constexpr Scope scope = Scope::process;
  static constexpr const char* proc_files[] = {"coredump_filter"};
  static constexpr uint32_t kDefault = 0x33;
  struct State {
    std::optional<uint32_t> bits;  // nothing: what the task inherits stays
  };
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis

#include "objects/task/core_dump_filter.h"

#include <fmt/format.h>
#include <unistd.h>

namespace stasis {

namespace {

// Nothing on a kernel without core files.
std::optional<uint32_t> filter_of(ProcDir& proc) {
  const auto text = proc.try_read("coredump_filter");
  if (!text) return std::nullopt;
  return parse_coredump_filter(*text);
}

}  // namespace

void CoreDumpFilter::look(const LookView& view, State& state) {
  state.bits = filter_of(view.proc);
}

void CoreDumpFilter::encode_extension(const State& state, pb::extension_task& task) {
  if (state.bits.value_or(kDefault) != kDefault) task.mutable_mm()->set_core_dump_filter(*state.bits);
}

void CoreDumpFilter::decode_extension(const pb::extension_task& task, State& state) {
  state.bits = task.mm().has_core_dump_filter() ? task.mm().core_dump_filter() : kDefault;
}

void CoreDumpFilter::apply(const State& state, const SettleView& view) {
  static const std::optional<uint32_t> own = [] {
    ProcDir self(getpid());
    return filter_of(self);
  }();
  if (state.bits && own && *state.bits != *own)
    ProcDir(view.pid).write("coredump_filter", fmt::format("{:#x}", *state.bits));
}

}  // namespace stasis

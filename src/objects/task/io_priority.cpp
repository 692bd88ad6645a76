#include "objects/task/io_priority.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

constexpr uint32_t kClassShift = 13, kLastClass = 3;  // of linux/ioprio.h, which is no C++

uint32_t priority_of(pid_t tid) {
  return static_cast<uint32_t>(fail_if(ioprio_get(tid), "its I/O priority cannot be read"));
}

}  // namespace

void IoPriority::look(const LookView& view, State& state) {
  state.value = priority_of(view.tid);
}

void IoPriority::encode_extension(const State& state, pb::extension_task& task) {
  if (state.value.value_or(0) != 0) task.mutable_thread()->set_io_priority(*state.value);
}

void IoPriority::decode_extension(const pb::extension_task& task, State& state) {
  state.value = task.thread().io_priority();
  if (*state.value >> kClassShift > kLastClass)
    throw Error(Reason::IMAGE_CORRUPT, "the I/O priority has an unknown class");
}

void IoPriority::apply(const State& state, const SettleView& view) {
  // Setting it, even to what it is, makes the kernel keep more of the task.
  if (!state.value || priority_of(view.tid) == *state.value) return;
  const int result = ioprio_set(view.tid, *state.value);
  if (result == 0) return;
  Error error = Error(result == -EPERM ? Reason::NO_PRIVILEGE : Reason::RESTORE_CALL_FAILED,
                      fmt::format("I/O priority {} cannot be set", *state.value))
                    .object(view.who)
                    .error_number(-result);
  if (result == -EPERM) error.default_remedy("run the restore with CAP_SYS_NICE");
  throw error;
}

}  // namespace stasis

#include "checkpoint/losses.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "kernel/proc.h"

namespace stasis {

void Losses::look_at_groups(std::span<const pid_t> pids) {
  if (options_.manage_cgroups == CgroupMode::ignore) return;
  ProcDir self(getpid());
  const auto own = self.try_read("cgroup");
  if (!own) return;
  const std::string here(*own);
  for (const pid_t pid : pids) try {
      ProcDir proc(pid);
      const auto text = proc.try_read("cgroup");
      if (!text || *text == here) continue;
      add("control-groups", "its place in the control groups: a restored task is where the restore runs",
          fmt::format("pid {}", pid));
    } catch (const Error&) {
      // It ended meanwhile.
    }
}

void Losses::require_allowed(std::string_view name, const std::string& what, const std::string& who) const {
  if (std::find(options_.allow_lossy.begin(), options_.allow_lossy.end(), name) != options_.allow_lossy.end()) return;
  throw Error(Reason::UNSUPPORTED_STATE, what + ", which no image can hold")
      .object(who)
      .remedy(fmt::format("add --allow-lossy {} to save it without", name));
}

void Losses::collect(const ObjectStates& states, const std::string& who) {
  found_.clear();
  states.losses(found_);
  for (Loss& loss : found_) {
    if (loss.refuses) require_allowed(loss.name, loss.what, who);
    add(loss.name, std::move(loss.what), who);
  }
}

void Losses::collect(std::span<const FileLoss> losses) {
  for (const FileLoss& loss : losses) {
    require_allowed(loss.name, loss.what, loss.who);
    add(loss.name, loss.what, loss.who);
  }
}

void Losses::add(std::string_view name, std::string what, const std::string& who) {
  auto at = std::find_if(left_out_.begin(), left_out_.end(), [&](const LeftOut& l) { return l.name == name; });
  if (at == left_out_.end()) at = left_out_.insert(at, {name, std::move(what), who});
  ++at->tasks;
}

void Losses::tell() const {
  for (const LeftOut& l : left_out_)
    log_message("Left out ({}): {}: {}{}", l.name, l.first_task, l.what,
                l.tasks > 1 ? fmt::format(" (and {} more tasks)", l.tasks - 1) : std::string());
}

void Losses::encode(pb::extension_head& head) const {
  for (const LeftOut& l : left_out_) {
    pb::extension_loss& out = *head.add_left_out();
    out.set_name(std::string(l.name));
    out.set_what(l.what);
    out.set_first_task(l.first_task);
    out.set_tasks(l.tasks);
  }
}

}  // namespace stasis

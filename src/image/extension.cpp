#include "image/extension.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace stasis {

namespace {

constexpr uint32_t kVersion = 1;

bool says_nothing(const pb::extension_task& task) {
  return !task.has_thread() && !task.has_process() && !task.has_mm();
}

// Fields that a later version has added; the lite runtime keeps them as bytes.
template <class Message>
bool known(const Message& m) {
  return m.unknown_fields().empty();
}
template <class Messages>
bool each_known(const Messages& all) {
  return std::all_of(all.begin(), all.end(), [](const auto& m) { return known(m); });
}

bool all_known(const pb::extension_task& task) {
  const pb::extension_thread& thread = task.thread();
  return known(task) && known(thread) && known(thread.numa()) && each_known(thread.speculation()) &&
         known(thread.deadline()) && each_known(thread.sem_undo()) && known(thread.session_keyring()) &&
         known(thread.tables()) && known(task.process()) && known(task.mm()) && each_known(task.mm().vmas()) &&
         std::ranges::all_of(task.mm().vmas(), [](const auto& v) { return known(v.numa()); });
}

[[noreturn]] void of_the_future(const std::string& shown_name) {
  throw Error(Reason::IMAGE_UNSUPPORTED, "it holds state that this version does not know")
      .object(shown_name)
      .remedy("restore with the version of the program that made the dump");
}

}  // namespace

ExtensionWriter::ExtensionWriter(ImageStore& store, pb::extension_head head)
    : writer_(store.writer(ImageKind::EXTENSION)) {
  head.set_version(kVersion);
  writer_.write(head);
}

void ExtensionWriter::write(const pb::extension_task& task) {
  if (!says_nothing(task)) writer_.write(task);
}

std::optional<Extension> Extension::read(const ImageStore& store) {
  std::optional<ImageReader> reader = store.reader(ImageKind::EXTENSION);
  if (!reader) return std::nullopt;
  Extension out;
  out.shown_name_ = reader->shown_name();
  reader->require(out.head_);
  if (out.head_.version() != kVersion)
    throw Error(Reason::IMAGE_VERSION,
                fmt::format("its format has version {}, this program knows {}", out.head_.version(), kVersion))
        .object(out.shown_name_);
  if (!known(out.head_) || !each_known(out.head_.left_out()) || !each_known(out.head_.segments()))
    of_the_future(out.shown_name_);
  for (pb::extension_task task; reader->next(task);) {
    if (!all_known(task)) of_the_future(out.shown_name_);
    const uint32_t tid = task.tid();
    if (!out.tasks_.try_emplace(tid, Record{std::move(task)}).second)
      reader->corrupt(fmt::format("the task {} appears twice", tid));
  }
  return out;
}

const pb::extension_task& Extension::task(uint32_t tid, bool leader) const {
  const auto at = tasks_.find(tid);
  if (at == tasks_.end()) return pb::extension_task::default_instance();
  at->second.asked = true;
  const pb::extension_task& task = at->second.task;
  if (!leader && (task.has_process() || task.has_mm()))
    throw Error(Reason::IMAGE_CORRUPT, fmt::format("the task {} has parts of a process, but leads none", tid))
        .object(shown_name_);
  return task;
}

void Extension::expect_all_asked() const {
  for (const auto& [tid, record] : tasks_)
    if (!record.asked)
      throw Error(Reason::IMAGE_CORRUPT, fmt::format("the task {} is no living one of the tree", tid))
          .object(shown_name_);
}

}  // namespace stasis

#include "objects/files/restored_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <climits>

#include "base/error.h"
#include "base/log.h"
#include "base/share_out.h"

namespace stasis {
namespace {

// So many files take longer than a thread takes to begin.
constexpr size_t kWorthAThread = 250;

std::string type_name(pb::fd_types type) {
  return fmt::format("{} ({})", pb::fd_types_Name(type), static_cast<int>(type));
}

Error corrupt(std::string what_failed, std::string object) {
  return Error(Reason::IMAGE_CORRUPT, std::move(what_failed)).object(std::move(object));
}

}  // namespace

RestoredFiles::RestoredFiles(const ImageStore& store, const RestoreOptions& options,
                             std::span<const uint32_t> files_ids, const pb::extension_head* extension)
    : context_(options) {
  context_.fd_of = [this](uint32_t id) {
    const auto at = by_id_.find(id);
    return at == by_id_.end() ? -1 : files_[at->second].fd.get();
  };
  context_.type_of = [this](uint32_t id) { return file(id).kind->type; };
  context_.state_of = [this](uint32_t id) {
    const auto at = by_id_.find(id);
    return at == by_id_.end() ? nullptr : &files_[at->second].state;
  };
  context_.file_beside = [this](uint32_t id, int number) { return file_beside(id, number); };
  for (const FileKind& kind : file_kinds()) {
    std::any& shared = shared_.emplace_back();
    kind.make_shared(shared);
    if (kind.read_images) kind.read_images(store, shared);
  }
  read_files(store);
  read_remaps(store, extension);
  if (extension != nullptr) read_extension(*extension);
  for (const uint32_t id : files_ids) read_table(store, id);
  std::optional<ImageReader> locks = store.reader(ImageKind::FILE_LOCKS);
  pb::file_lock_entry lock;
  while (locks && locks->next(lock)) locks_.push_back({decode_lock(lock), 0});
  std::ranges::stable_sort(locks_, {}, [](const Lock& l) { return l.saved.pid; });
}

RestoredFiles::~RestoredFiles() {
  // Programs that this process becomes or starts must not find a raised limit.
  if (old_limit_) ::setrlimit(RLIMIT_NOFILE, &*old_limit_);
}

void RestoredFiles::read_files(const ImageStore& store) {
  std::optional<ImageReader> reader = store.reader(ImageKind::FILES);
  if (!reader) return;
  const std::vector<FileKind>& kinds = file_kinds();
  pb::file_entry entry;
  while (reader->next(entry)) {
    const auto kind = std::ranges::find(kinds, entry.type(), &FileKind::type);
    if (kind == kinds.end())
      throw Error(Reason::IMAGE_UNSUPPORTED,
                  fmt::format("open files of type {} cannot be restored by this version", type_name(entry.type())))
          .object(fmt::format("file {} in {}", entry.id(), reader->shown_name()));
    if (!by_id_.try_emplace(entry.id(), files_.size()).second)
      reader->corrupt(fmt::format("two files have the id {}", entry.id()));
    File& file = files_.emplace_back();
    file.kind = &*kind;
    file.kind_index = static_cast<size_t>(kind - kinds.begin());
    file.id = entry.id();
    kind->make_state(file.state);
    try {
      kind->decode(entry, file.state);
    } catch (Error& e) {
      e.while_doing(fmt::format("reading file {} of {}", entry.id(), reader->shown_name()));
      throw;
    }
    if (entry.tty().has_regf_id()) device_nodes_.insert(entry.tty().regf_id());
  }
}

void RestoredFiles::read_remaps(const ImageStore& store, const pb::extension_head* extension) {
  RestoredRemaps& remaps = context_.remaps;
  remaps.read(store);
  for (const RestoredRemaps::Remap& remap : remaps.remaps()) {
    const RegularFile::State& state = path_file(remap.file_id);
    const bool link = remap.type == pb::LINKED;
    remaps.set_name(remap, state.path, state.flags, link ? path_file(remap.stand_in).path : std::string());
  }
  if (extension != nullptr) remaps.read_extension(*extension);
}

void RestoredFiles::read_extension(const pb::extension_head& head) {
  for (const pb::extension_file& entry : head.files()) {
    const auto at = by_id_.find(entry.id());
    if (at == by_id_.end() || files_[at->second].kind->decode_extension == nullptr)
      throw corrupt("the extension speaks of a file that has none", fmt::format("file {}", entry.id()));
    files_[at->second].kind->decode_extension(entry, files_[at->second].state);
  }
}

void RestoredFiles::read_table(const ImageStore& store, uint32_t files_id) {
  Table& table = tables_.emplace_back(Table{.files_id = files_id, .slots = {}});
  std::optional<ImageReader> reader = store.reader(ImageKind::FDINFO, files_id);
  if (!reader) return;  // a table without descriptors has no file
  pb::fdinfo_entry entry;
  while (reader->next(entry)) {
    const auto found = by_id_.find(entry.id());
    if (found == by_id_.end())
      reader->corrupt(fmt::format("fd {} refers to file {}, which is not in files.img", entry.fd(), entry.id()));
    File& file = files_[found->second];
    if (file.kind->type != entry.type())
      reader->corrupt(fmt::format("fd {} refers to file {} as a {}, but it is a {}", entry.fd(), entry.id(),
                                  type_name(entry.type()), type_name(file.kind->type)));
    if (entry.fd() > INT_MAX) reader->corrupt(fmt::format("{} cannot be a descriptor number", entry.fd()));
    file.used = true;
    table.slots.push_back({static_cast<int>(entry.fd()), entry.id(), (entry.flags() & FD_CLOEXEC) != 0});
  }
  std::ranges::sort(table.slots, {}, &DescriptorSlot::number);
  const auto twice = std::ranges::adjacent_find(table.slots, {}, &DescriptorSlot::number);
  if (twice != table.slots.end()) reader->corrupt(fmt::format("fd {} occurs twice", twice->number));
}

void RestoredFiles::plan() {
  share_out(files_.size(), kWorthAThread, [&](size_t from, size_t to) {
    for (File& file : std::span(files_).subspan(from, to - from))
      if (file.kind->independent) plan(file);
  });
  for (File& file : files_)
    if (!file.kind->independent) plan(file);
  // Executables, directories and mapped files are opened by the tasks' memory.
  for (const File& file : files_) {
    if (file.used || device_nodes_.contains(file.id)) continue;
    if (const auto* state = std::any_cast<RegularFile::State>(&file.state)) verify_path_file(*state, context_);
  }
}

std::optional<SessionTerminal> RestoredFiles::session_terminal(pid_t session) {
  raise_limit();
  for (size_t i = 0; i < shared_.size(); ++i) {
    const FileKind& kind = file_kinds()[i];
    if (!kind.session_terminal) continue;
    if (auto terminal = kind.session_terminal(session, context_, shared_[i])) return terminal;
  }
  return std::nullopt;
}

void RestoredFiles::plan(File& file) {
  if (file.used && file.kind->plan) file.kind->plan(file.state, context_, shared_[file.kind_index]);
}

void RestoredFiles::raise_limit() {
  if (old_limit_) return;
  rlimit limit;
  check(::getrlimit(RLIMIT_NOFILE, &limit), "cannot read the limit of open files");
  // Beside the files: what this program has open itself, and the spare ends of pipes.
  const uint64_t wanted = 2 * files_.size() + 1024;
  if (limit.rlim_cur >= wanted) return;
  rlimit raised = limit;
  raised.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted);
  if (raised.rlim_cur == limit.rlim_cur) return;
  check(::setrlimit(RLIMIT_NOFILE, &raised), "cannot raise the limit of open files");
  old_limit_ = limit;
}

void RestoredFiles::create_deleted(const ImageStore& store) {
  raise_limit();
  context_.remaps.create(store);
}

void RestoredFiles::create() {
  raise_limit();
  share_out(files_.size(), kWorthAThread, [&](size_t from, size_t to) {
    for (File& file : std::span(files_).subspan(from, to - from))
      if (file.kind->independent) create(file);
  });
  for (File& file : files_) {
    if (!file.kind->independent) create(file);
    if (file.used) log_debug("file {} ({}) is fd {}", file.id, file.kind->name, file.fd.get());
  }
}

void RestoredFiles::create(File& file) {
  if (!file.used || file.kind->made_by_task) return;
  try {
    file.fd = file.kind->create(file.state, context_, shared_[file.kind_index]);
  } catch (Error& e) {
    if (e.error_number() == EMFILE) e.default_remedy("raise the hard limit of open files (ulimit -Hn)");
    e.while_doing(fmt::format("making file {} ({})", file.id, file.kind->name));
    throw;
  }
}

bool RestoredFiles::made_by_task(uint32_t id) const {
  const auto at = by_id_.find(id);
  return at != by_id_.end() && files_[at->second].kind->made_by_task;
}

pid_t RestoredFiles::maker(uint32_t id) const {
  const File& found = file(id);
  return found.kind->maker(found.state);
}

void RestoredFiles::make(uint32_t id, MakingTask& task) {
  File& found = files_[by_id_.at(id)];
  try {
    found.kind->make(found.state, task, context_);
    found.fd = task.duplicate(task.number);
  } catch (Error& e) {
    e.default_object(task.who);
    e.while_doing(fmt::format("making file {} ({})", id, found.kind->name));
    throw;
  }
}

std::vector<DescriptorSlot> RestoredFiles::given_descriptors(uint32_t files_id) const {
  std::vector<DescriptorSlot> out = descriptors(files_id);
  std::erase_if(out, [&](const DescriptorSlot& slot) { return made_by_task(slot.id); });
  return out;
}

void RestoredFiles::finish() {
  for (File& file : files_)
    if (file.used && file.kind->finish)
      file.kind->finish(file.state, file.fd.get(), context_, shared_[file.kind_index]);
  // Times are set before anybody watches (O-29, O-30).
  context_.remaps.finish();
  for (size_t i = 0; i < shared_.size(); ++i)
    if (const FileKind& kind = file_kinds()[i]; kind.complete) kind.complete(context_, shared_[i]);
}

uint32_t RestoredFiles::file_beside(uint32_t id, int number) const {
  for (const Table& table : tables_) {
    if (std::ranges::find(table.slots, id, &DescriptorSlot::id) == table.slots.end()) continue;
    const auto at = std::ranges::find(table.slots, number, &DescriptorSlot::number);
    return at == table.slots.end() ? 0 : at->id;
  }
  return 0;
}

void RestoredFiles::call(uint32_t files_id, SyscallBatch& batch) {
  for (size_t i = 0; i < shared_.size(); ++i)
    if (const FileKind& kind = file_kinds()[i]; kind.call) kind.call(descriptors(files_id), batch, shared_[i]);
}

void RestoredFiles::plan_locks(std::span<const TableOwner> owners) {
  if (!locks_.empty() && !context_.options().file_locks)
    throw Error(Reason::FILE_LOCKS_HELD, fmt::format("the images hold {}", describe(locks_.front().saved)))
        .object(fmt::format("fd {} of pid {}", locks_.front().saved.number, locks_.front().saved.pid))
        .remedy("add --file-locks to take it again");
  for (Lock& lock : locks_) {
    const auto owner = std::ranges::find(owners, lock.saved.pid, &TableOwner::task);
    const auto* table = owner == owners.end() ? nullptr : &descriptors(owner->files_id);
    const auto no_slot = std::vector<DescriptorSlot>::const_iterator();
    const auto slot =
        table == nullptr ? no_slot : std::ranges::find(*table, lock.saved.number, &DescriptorSlot::number);
    if (table == nullptr || slot == table->end())
      throw corrupt("a file lock belongs to a descriptor that is not there",
                    fmt::format("fd {} of pid {}", lock.saved.number, lock.saved.pid));
    lock.file_id = slot->id;
  }
}

std::span<const RestoredFiles::Lock> RestoredFiles::locks_of(pid_t task) const {
  const auto found = std::ranges::equal_range(locks_, task, {}, [](const Lock& l) { return l.saved.pid; });
  return {found.begin(), found.end()};
}

FileOwner RestoredFiles::owner_of(uint32_t id) const {
  const auto* state = std::any_cast<RegularFile::State>(&file(id).state);
  return state == nullptr ? FileOwner{} : state->owner;
}

void RestoredFiles::take(const Lock& lock, SyscallBatch& batch) const {
  take_lock(lock.saved, fd_of(lock.file_id), batch);
}

void RestoredFiles::finish_leases() const {
  for (const Lock& lock : locks_)
    if (lock.saved.kind == SavedLock::Kind::lease)
      finish_lease(lock.saved, fd_of(lock.file_id), owner_of(lock.file_id), context_);
}

const std::vector<DescriptorSlot>& RestoredFiles::descriptors(uint32_t files_id) const {
  const auto found = std::ranges::find(tables_, files_id, &Table::files_id);
  if (found == tables_.end()) throw Error(Reason::INTERNAL, fmt::format("descriptor table {} was not read", files_id));
  return found->slots;
}

const RestoredFiles::File& RestoredFiles::file(uint32_t id) const {
  const auto found = by_id_.find(id);
  if (found == by_id_.end())
    throw corrupt("the images refer to a file that is not in files.img", fmt::format("file {}", id));
  return files_[found->second];
}

int RestoredFiles::fd_of(uint32_t id) const {
  const File& found = file(id);
  if (!found.fd)
    throw Error(Reason::INTERNAL, "an open file is asked for before it was made").object(fmt::format("file {}", id));
  return found.fd.get();
}

std::vector<RestoredFiles::AsyncSlot> RestoredFiles::async_slots(uint32_t files_id) const {
  std::vector<AsyncSlot> out;
  std::unordered_set<uint32_t> seen;
  for (const Table& table : tables_) {
    for (const DescriptorSlot& slot : table.slots) {
      const File& held = file(slot.id);
      const uint32_t flags = held.kind->flags(held.state);
      if ((flags & O_ASYNC) == 0 || !seen.insert(slot.id).second) continue;
      if (table.files_id == files_id) out.push_back({slot.number, flags});
    }
  }
  return out;
}

const RegularFile::State& RestoredFiles::path_file(uint32_t id) const {
  return path_file_state(context_, id);
}

Fd RestoredFiles::open_mapped(uint32_t id, int flags) {
  const File& found = file(id);
  if (found.kind->open_mapped == nullptr) return open_path(id, flags);
  return found.kind->open_mapped(found.state, flags, context_, shared_[found.kind_index]);
}

Fd RestoredFiles::open_path(uint32_t id, std::optional<int> other_flags) const {
  const RegularFile::State& state = path_file(id);
  return open_path_file(state, context_, other_flags ? *other_flags : reopen_flags(state.flags));
}

}  // namespace stasis

#include "objects/files/fifo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"

namespace stasis {
namespace {

bool same_inode(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Inodes of two file systems can have the same number; the images have nothing else to tell fifos apart.
uint32_t pipe_id_of(const struct stat& st, Fifo::Shared& shared) {
  const auto [at, fresh] = shared.ids.try_emplace({st.st_dev, st.st_ino}, static_cast<uint32_t>(st.st_ino));
  if (!fresh) return at->second;
  while (!shared.taken_ids.insert(at->second).second) ++at->second;
  return at->second;
}

bool hung_up(const FileView& view) {
  pollfd end{.fd = view.fd, .events = 0, .revents = 0};
  return ::poll(&end, 1, 0) > 0 && (end.revents & POLLHUP) != 0;
}

Error failed(const RegularFile::State& node, std::string what_failed) {
  return Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(node.path).error_number(errno);
}

Fd open_end(const RegularFile::State& node, const RestoreFiles& files, int flags) {
  Fd fd = try_open_path_file(node, files, flags | O_NONBLOCK);
  if (!fd && errno != ENXIO) throw failed(node, "cannot open a fifo");
  return fd;
}

// tee(2) tells whether anybody could still write, and takes nothing.
bool anybody_writes(int reader, const RegularFile::State& node) {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), "cannot make a pipe", Reason::RESTORE_CALL_FAILED);
  const Fd spare_reader(ends[0]), spare_writer(ends[1]);
  const ssize_t got = ::tee(reader, spare_writer.get(), 1, SPLICE_F_NONBLOCK);
  if (got < 0 && errno != EAGAIN) throw failed(node, "cannot look into a fifo");
  return got != 0;
}

void fill(const Fifo::Made& made, const RegularFile::State& node, const RestoreFiles& files,
          const PipeContent& content) {
  const Fd writer = open_end(node, files, O_WRONLY);
  if (!writer) throw failed(node, "cannot open a fifo to write");
  fill_pipe(writer.get(), node.path, content);
  // Writing counts as a change of the file, which the dump did not see.
  const struct timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, made.st.st_mtim};
  if (::futimens(writer.get(), times) < 0) log_debug("the time of {} is not put back: errno {}", node.path, errno);
}

Fifo::Made& make(const Fifo::State& state, const RegularFile::State& node, const RestoreFiles& files,
                 Fifo::Shared& shared) {
  const auto [at, fresh] = shared.made.try_emplace(state.pipe_id);
  Fifo::Made& made = at->second;
  if (!fresh) return made;
  // ENXIO: nobody reads.
  const bool read_elsewhere = bool(open_end(node, files, O_WRONLY));
  made.reader = open_end(node, files, O_RDONLY);
  if (::fstat(made.reader.get(), &made.st) < 0) throw failed(node, "cannot look at a fifo");
  if (!S_ISFIFO(made.st.st_mode))
    throw Error(Reason::FILE_CHANGED, "the path does not lead to a fifo any more")
        .object(node.path)
        .remedy("put the fifo of the dump back");
  const auto content = shared.contents.find(state.pipe_id);
  if (read_elsewhere || anybody_writes(made.reader.get(), node))
    log_info("{} is open elsewhere, and keeps what it holds", node.path);
  else if (content != shared.contents.end())
    fill(made, node, files, content->second);
  if (shared.ends[state.pipe_id].writer) made.writer = open_end(node, files, O_WRONLY);
  return made;
}

// Of an end that is a reader and nothing else: a writer there at the time of the open makes the difference.
Fd writer_to_be_missed(const Fifo::State& state, const RegularFile::State& node, const RestoreFiles& files,
                       const Fifo::Made& made) {
  if (writes_pipe(node.flags) || state.expects_writer || made.writer) return {};
  return open_end(node, files, O_WRONLY);
}

std::string key_of(const RegularFile::State& node) {
  return node.path.substr(1);
}

}  // namespace

bool Fifo::match(const FileView& view) {
  return S_ISFIFO(view.st.st_mode) && !view.path_only() && view.link.starts_with('/');
}

void Fifo::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  state.id = view.id;
  state.flags = view.flags;
  state.pipe_id = pipe_id_of(view.st, shared);
  state.node_id = files.add_path_file({.fd = view.fd,
                                       .st = view.st,
                                       .link = view.link,
                                       .flags = view.flags,
                                       .who = view.who(),
                                       .owner = dump_file_owner(view, files)});
  Ends& ends = shared.ends[state.pipe_id];
  const bool first = !ends.reader && !ends.writer;
  ends.reader |= reads_pipe(view.flags);
  ends.writer |= writes_pipe(view.flags);
  state.expects_writer = !writes_pipe(view.flags) && !hung_up(view);
  if (first) shared.copier.copy(view, shared.contents[state.pipe_id]);
}

void Fifo::encode(const State& state, pb::file_entry& out) {
  out.set_type(type);
  out.set_id(state.id);
  pb::fifo_entry& fifo = *out.mutable_fifo();
  fifo.set_id(state.id);
  fifo.set_pipe_id(state.pipe_id);
  fifo.set_regf_id(state.node_id);
}

void Fifo::encode_extension(const State& state, pb::extension_file& out) {
  if (state.expects_writer) out.set_fifo_expects_writer(true);
}

void Fifo::write_images(Shared& shared, ImageStore& store) {
  write_pipe_contents(shared.contents, ImageKind::FIFO_DATA, store);
}

void Fifo::decode(const pb::file_entry& in, State& state) {
  const pb::fifo_entry& fifo = in.fifo();
  state.id = fifo.id();
  state.pipe_id = fifo.pipe_id();
  state.node_id = fifo.has_regf_id() ? fifo.regf_id() : fifo.id();
}

void Fifo::decode_extension(const pb::extension_file& in, State& state) {
  state.expects_writer = in.fifo_expects_writer();
}

void Fifo::read_images(const ImageStore& store, Shared& shared) {
  read_pipe_contents(store, ImageKind::FIFO_DATA, shared.contents);
}

void Fifo::plan(const State& state, RestoreFiles& files, Shared& shared) {
  const uint32_t flags = path_file_state(files, state.node_id).flags;
  if ((flags & O_ACCMODE) == O_ACCMODE)
    throw Error(Reason::IMAGE_CORRUPT, "a fifo has an impossible access mode").object(fmt::format("file {}", state.id));
  Ends& ends = shared.ends[state.pipe_id];
  ends.reader |= reads_pipe(flags);
  ends.writer |= writes_pipe(flags);
  if (writes_pipe(flags) && (flags & O_DIRECT) != 0) shared.contents[state.pipe_id].packet_mode = true;
  if ((flags & O_ASYNC) != 0) shared.async.push_back({state.id, flags});
}

Fd Fifo::create(const State& state, RestoreFiles& files, Shared& shared) {
  const RegularFile::State& node = path_file_state(files, state.node_id);
  if (const int given = files.inherited(key_of(node)); given >= 0)
    return Fd(check(::fcntl(given, F_DUPFD_CLOEXEC, 3), "cannot duplicate an inherited descriptor"));
  const Made& made = make(state, node, files, shared);
  const Fd missed = writer_to_be_missed(state, node, files, made);
  // O_DIRECT is refused by open(2) and means packet mode.
  Fd fd = open_path_file(node, files, reopen_flags(node.flags & ~static_cast<uint32_t>(O_DIRECT)) | O_NONBLOCK);
  struct stat st;
  if (::fstat(fd.get(), &st) < 0 || !same_inode(st, made.st))
    throw Error(Reason::FILE_CHANGED, "two names of the dump do not lead to the same fifo any more")
        .object(node.path)
        .remedy("make the names links to one fifo again");
  if (::fcntl(fd.get(), F_SETFL, static_cast<int>(node.flags & settable_pipe_flags)) < 0)
    throw failed(node, "cannot set the flags of an end of a fifo");
  return fd;
}

void Fifo::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  const RegularFile::State& node = path_file_state(files, state.node_id);
  restore_file_owner(node.owner, fd, files, node.path);
}

void Fifo::complete(RestoreFiles&, Shared& shared) {
  shared.made.clear();
}

void Fifo::call(std::span<const DescriptorSlot> table, SyscallBatch& batch, Shared& shared) {
  std::erase_if(shared.async, [&](const Async& async) {
    const auto slot = std::ranges::find(table, async.id, &DescriptorSlot::id);
    if (slot == table.end()) return false;
    batch.must(SYS_fcntl, {slot->number, F_SETFL, async.flags});
    return true;
  });
}

}  // namespace stasis

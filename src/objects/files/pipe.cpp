#include "objects/files/pipe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"
#include "proto/pipe-data.pb.h"

namespace stasis {
namespace {

// The kernel's O_LARGEFILE, which the C library hides on 64-bit machines: set in every description that open(2) made,
// absent in those of pipe(2).
#if defined(__aarch64__)
constexpr uint32_t large_file = 0400000;
#elif defined(__powerpc64__)
constexpr uint32_t large_file = 0200000;
#else
constexpr uint32_t large_file = 0100000;
#endif
// What fcntl(F_SETFL) can set on a pipe. O_DIRECT is refused by open(2) there, and means packet mode.
constexpr uint32_t settable_flags = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

std::string pipe_key(uint32_t pipe_id) {
  return fmt::format("pipe:[{}]", pipe_id);
}

bool reads(uint32_t flags) {
  return (flags & O_ACCMODE) != O_WRONLY;
}
bool writes(uint32_t flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

Error dump_failed(const FileView& view, std::string what_failed) {
  return Error(Reason::SYSTEM, std::move(what_failed)).object(view.who()).error_number(errno);
}

// An own pipe with as many slots as the one to copy: tee() moves references to the filled slots.
void prepare_scratch(Pipe::Shared& shared, uint32_t capacity_bytes, const FileView& view) {
  if (!shared.scratch_reader) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) throw dump_failed(view, "cannot make a pipe to copy data into");
    shared.scratch_reader = Fd(ends[0]);
    shared.scratch_writer = Fd(ends[1]);
  }
  const int size = ::fcntl(shared.scratch_writer.get(), F_GETPIPE_SZ);
  if (size >= 0 && static_cast<uint32_t>(size) >= capacity_bytes) return;
  if (::fcntl(shared.scratch_writer.get(), F_SETPIPE_SZ, capacity_bytes) < 0)
    throw dump_failed(view, fmt::format("cannot make a pipe of {} bytes to copy data into", capacity_bytes));
}

// One read takes everything up to the end of a packet (pipe2(2), O_DIRECT), as one of the task's own would.
void drain_scratch(Pipe::Shared& shared, size_t bytes, Pipe::Content& content, const FileView& view) {
  for (size_t left = bytes; left > 0;) {
    std::string packet(left, '\0');
    const ssize_t got = ::read(shared.scratch_reader.get(), packet.data(), packet.size());
    if (got <= 0) throw dump_failed(view, "cannot read the copied data of a pipe");
    left -= static_cast<size_t>(got);
    packet.resize(static_cast<size_t>(got));
    content.packets.push_back(std::move(packet));
  }
}

void take_content(const FileView& view, Pipe::Shared& shared, Pipe::Content& content) {
  const int capacity = ::fcntl(view.fd, F_GETPIPE_SZ);
  if (capacity < 0) throw dump_failed(view, "cannot read the size of a pipe");
  content.capacity_bytes = static_cast<uint32_t>(capacity);
  int bytes = 0;
  if (::ioctl(view.fd, FIONREAD, &bytes) < 0) throw dump_failed(view, "cannot read how much a pipe holds");
  if (bytes <= 0) return;
  prepare_scratch(shared, content.capacity_bytes, view);
  const ssize_t copied = ::tee(view.fd, shared.scratch_writer.get(), static_cast<size_t>(bytes), SPLICE_F_NONBLOCK);
  if (copied < 0) throw dump_failed(view, "cannot copy the data of a pipe");
  drain_scratch(shared, static_cast<size_t>(copied), content, view);
  if (copied != bytes)
    throw Error(Reason::SYSTEM, fmt::format("a pipe holds {} bytes, but only {} could be copied", bytes, copied))
        .object(view.who())
        .remedy("somebody outside of the tree reads from it: include that process, or stop it");
}

// A pipe tells by poll() whether its opposite end is open anywhere (pipe(7)); our own duplicates are the tree's.
void look_at_opposite_end(const FileView& view, Pipe::Ends& ends) {
  pollfd opposite{.fd = view.fd, .events = 0, .revents = 0};
  if (::poll(&opposite, 1, 0) < 0) throw dump_failed(view, "cannot poll a pipe");
  if (reads(view.flags)) ends.other_writer = (opposite.revents & POLLHUP) == 0;
  if (writes(view.flags)) ends.other_reader = (opposite.revents & POLLERR) == 0;
}

void write_all(int fd, const std::string& data, uint32_t pipe_id) {
  // Whole or not at all: packets must not be split, and the rest always fits into an empty pipe of the saved size.
  const ssize_t put = ::write(fd, data.data(), data.size());
  if (put == static_cast<ssize_t>(data.size())) return;
  throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot put {} bytes of saved data into a pipe", data.size()))
      .object(pipe_key(pipe_id))
      .error_number(put < 0 ? errno : 0);
}

void fill(int writer, uint32_t pipe_id, const Pipe::Content& content) {
  uint64_t bytes = 0;
  for (const std::string& packet : content.packets) bytes += packet.size();
  const uint64_t wanted = content.capacity_bytes > 0 ? content.capacity_bytes : bytes;
  const int size = ::fcntl(writer, F_GETPIPE_SZ);
  const bool resize = wanted > 0 && static_cast<uint64_t>(size) != wanted &&
                      (content.capacity_bytes > 0 || wanted > static_cast<uint64_t>(size));
  if (resize && ::fcntl(writer, F_SETPIPE_SZ, wanted) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot give a pipe its size of {} bytes", wanted))
        .object(pipe_key(pipe_id))
        .error_number(errno)
        .remedy("raise the limit in /proc/sys/fs/pipe-max-size");
  if ((content.packet_mode || content.packets.size() > 1) && ::fcntl(writer, F_SETFL, O_NONBLOCK | O_DIRECT) < 0)
    throw_errno("cannot set a pipe to packet mode", Reason::RESTORE_CALL_FAILED);
  for (const std::string& packet : content.packets)
    if (!packet.empty()) write_all(writer, packet, pipe_id);
}

Pipe::Made& make(uint32_t pipe_id, const RestoreFiles& files, Pipe::Shared& shared) {
  const auto [at, fresh] = shared.made.try_emplace(pipe_id);
  Pipe::Made& made = at->second;
  if (!fresh) return made;
  made.any = files.inherited(pipe_key(pipe_id));
  if (made.any >= 0) return made;
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), "cannot make a pipe", Reason::RESTORE_CALL_FAILED);
  made.reader = Fd(ends[0]);
  made.writer = Fd(ends[1]);
  made.any = ends[0];
  if (const auto content = shared.contents.find(pipe_id); content != shared.contents.end())
    fill(made.writer.get(), pipe_id, content->second);
  return made;
}

// Ends that pipe(2) made get the descriptors of our own pipe2(); duplicates, so that more can be opened through them.
Fd take_end(const Pipe::State& state, Pipe::Made& made) {
  Fd& own = reads(state.flags) ? made.reader : made.writer;
  bool& taken = reads(state.flags) ? made.reader_taken : made.writer_taken;
  const bool both = reads(state.flags) && writes(state.flags);
  if (own && !both && (state.flags & large_file) == 0 && !std::exchange(taken, true))
    return Fd(::fcntl(own.get(), F_DUPFD_CLOEXEC, 0));
  Fd fd = reopen(made.any, reopen_flags(state.flags & ~static_cast<uint32_t>(O_DIRECT)));
  // The caller may give something that cannot be opened anew, such as a socket.
  if (!fd && errno == ENXIO && !own) return Fd(::fcntl(made.any, F_DUPFD_CLOEXEC, 0));
  return fd;
}

}  // namespace

bool Pipe::match(const FileView& view) {
  return S_ISFIFO(view.st.st_mode) && !view.path_only() && view.link.starts_with("pipe:[");
}

void Pipe::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  state.pipe_id = static_cast<uint32_t>(view.st.st_ino);
  dump_open_file(view, files, state);

  Ends& ends = shared.ends[state.pipe_id];
  if (ends.who.empty()) ends.who = view.who();
  look_at_opposite_end(view, ends);
  ends.writer |= writes(view.flags);
  if (reads(view.flags) && !std::exchange(ends.reader, true))
    take_content(view, shared, shared.contents[state.pipe_id]);
}

void Pipe::conclude(DumpFiles& files, Shared& shared) {
  for (const auto& [pipe_id, ends] : shared.ends) {
    const bool outside = (!ends.reader && ends.other_reader) || (!ends.writer && ends.other_writer);
    if (outside && !files.is_external(pipe_key(pipe_id)))
      throw Error(Reason::UNSUPPORTED_FILE,
                  fmt::format("the {} end of the pipe is held by a process outside of the tree only: a restored task "
                              "would find nobody there",
                              ends.reader ? "writing" : "reading"))
          .object(ends.who)
          .remedy(fmt::format("dump a tree that holds both ends, or add --external '{0}' now and give a replacement "
                              "with --inherit-fd 'fd[N]:{0}' at the restore",
                              pipe_key(pipe_id)));
  }
}

void Pipe::encode(const State& state, pb::file_entry& out) {
  pb::pipe_entry& pipe = *out.mutable_pipe();
  encode_open_file(state, pb::PIPE, out, pipe);
  pipe.set_pipe_id(state.pipe_id);
}

void Pipe::write_images(Shared& shared, ImageStore& store) {
  ImageWriter& writer = store.writer(ImageKind::PIPES_DATA);
  for (auto& [pipe_id, content] : shared.contents) {
    if (content.packets.empty()) content.packets.emplace_back();
    for (const std::string& packet : content.packets) {
      pb::pipe_data_entry record;
      record.set_pipe_id(pipe_id);
      record.set_bytes(static_cast<uint32_t>(packet.size()));
      record.set_size(content.capacity_bytes);
      writer.write(record);
      writer.write_raw(packet);
    }
  }
}

void Pipe::decode(const pb::file_entry& in, State& state) {
  const pb::pipe_entry& pipe = in.pipe();
  decode_open_file(pipe, state);
  state.pipe_id = pipe.pipe_id();
  if ((state.flags & O_ACCMODE) == O_ACCMODE)
    throw Error(Reason::IMAGE_CORRUPT, "a pipe has an impossible access mode").object(pipe_key(state.pipe_id));
}

void Pipe::read_images(const ImageStore& store, Shared& shared) {
  std::optional<ImageReader> reader = store.reader(ImageKind::PIPES_DATA);
  if (!reader) return;
  pb::pipe_data_entry record;
  while (reader->next(record)) {
    Content& content = shared.contents[record.pipe_id()];
    content.capacity_bytes = record.size();
    content.packets.emplace_back(reader->raw(record.bytes()));
  }
}

void Pipe::plan(const State& state, RestoreFiles&, Shared& shared) {
  if (writes(state.flags) && (state.flags & O_DIRECT) != 0) shared.contents[state.pipe_id].packet_mode = true;
}

Fd Pipe::create(const State& state, RestoreFiles& files, Shared& shared) {
  Made& made = make(state.pipe_id, files, shared);
  Fd fd = take_end(state, made);
  // Reopened ends have all their flags but O_DIRECT; the ends of pipe2() have none yet.
  if (fd && ::fcntl(fd.get(), F_SETFL, static_cast<int>(state.flags & settable_flags)) == 0) return fd;
  throw Error(Reason::RESTORE_CALL_FAILED,
              fmt::format("cannot open an end of a pipe (access mode {})", state.flags & O_ACCMODE))
      .object(pipe_key(state.pipe_id))
      .error_number(errno);
}

void Pipe::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, pipe_key(state.pipe_id));
}

}  // namespace stasis

#include "objects/files/pipe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"

namespace stasis {
namespace {

std::string pipe_key(uint32_t pipe_id) {
  return fmt::format("pipe:[{}]", pipe_id);
}

// A pipe tells by poll() whether its opposite end is open anywhere (pipe(7)); our own duplicates are the tree's.
void look_at_opposite_end(const FileView& view, Pipe::Ends& ends) {
  pollfd opposite{.fd = view.fd, .events = 0, .revents = 0};
  if (::poll(&opposite, 1, 0) < 0) throw view.failed("cannot poll a pipe");
  if (reads_pipe(view.flags)) ends.other_writer = (opposite.revents & POLLHUP) == 0;
  if (writes_pipe(view.flags)) ends.other_reader = (opposite.revents & POLLERR) == 0;
}

Pipe::Made& make(uint32_t pipe_id, const RestoreFiles& files, Pipe::Shared& shared) {
  const auto [at, fresh] = shared.made.try_emplace(pipe_id);
  Pipe::Made& made = at->second;
  if (!fresh) return made;
  made.any = files.inherited(pipe_key(pipe_id));
  made.given = made.any >= 0;
  if (made.given) return made;
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), "cannot make a pipe", Reason::RESTORE_CALL_FAILED);
  made.reader = Fd(ends[0]);
  made.writer = Fd(ends[1]);
  made.any = ends[0];
  if (const auto content = shared.contents.find(pipe_id); content != shared.contents.end())
    fill_pipe(made.writer.get(), pipe_key(pipe_id), content->second);
  return made;
}

// Ends that pipe(2) made get the descriptors of our own pipe2(), which stay open: more can be opened through them.
Fd take_end(const Pipe::State& state, Pipe::Made& made) {
  Fd& own = reads_pipe(state.flags) ? made.reader : made.writer;
  const bool both = reads_pipe(state.flags) && writes_pipe(state.flags);
  if (own && !both && (state.flags & kLargeFile) == 0) return std::move(own);
  Fd fd = reopen(made.any, reopen_flags(state.flags & ~static_cast<uint32_t>(O_DIRECT)));
  // The caller may give something that cannot be opened anew, such as a socket.
  if (!fd && errno == ENXIO && made.given) return Fd(::fcntl(made.any, F_DUPFD_CLOEXEC, 0));
  return fd;
}

}  // namespace

bool Pipe::match(const FileView& view) {
  return S_ISFIFO(view.st.st_mode) && !view.path_only() && view.link.starts_with("pipe:[");
}

void Pipe::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  state.pipe_id = static_cast<uint32_t>(view.st.st_ino);
  dump_open_file(view, files, state);
  state.external = files.is_external(pipe_key(state.pipe_id));

  Ends& ends = shared.ends[state.pipe_id];
  if (ends.who.empty()) ends.who = view.who();
  look_at_opposite_end(view, ends);
  const bool first_reader = reads_pipe(view.flags) && !std::exchange(ends.reader, true);
  const bool nobody_reads = !ends.writer && !reads_pipe(view.flags) && !ends.other_reader;
  ends.writer |= writes_pipe(view.flags);
  if (first_reader || nobody_reads) shared.copier.copy(view, shared.contents[state.pipe_id]);
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
  write_pipe_contents(shared.contents, ImageKind::PIPES_DATA, store);
}

void Pipe::decode(const pb::file_entry& in, State& state) {
  const pb::pipe_entry& pipe = in.pipe();
  decode_open_file(pipe, state);
  state.pipe_id = pipe.pipe_id();
  if ((state.flags & O_ACCMODE) == O_ACCMODE)
    throw Error(Reason::IMAGE_CORRUPT, "a pipe has an impossible access mode").object(pipe_key(state.pipe_id));
}

void Pipe::read_images(const ImageStore& store, Shared& shared) {
  read_pipe_contents(store, ImageKind::PIPES_DATA, shared.contents);
}

void Pipe::encode_extension(const State& state, pb::extension_file& out) {
  if (state.external) out.set_external(true);
}

void Pipe::decode_extension(const pb::extension_file& in, State& state) {
  state.external = in.external();
}

void Pipe::plan(const State& state, RestoreFiles& files, Shared& shared) {
  if (const std::string key = pipe_key(state.pipe_id); state.external && files.inherited(key) < 0)
    throw Error(Reason::FILE_MISSING, "a pipe was left outside of the dump, and nothing is given in its place")
        .object(key)
        .remedy(fmt::format("give an open descriptor with --inherit-fd 'fd[N]:{}'", key));
  if (writes_pipe(state.flags) && (state.flags & O_DIRECT) != 0) shared.contents[state.pipe_id].packet_mode = true;
}

Fd Pipe::create(const State& state, RestoreFiles& files, Shared& shared) {
  Made& made = make(state.pipe_id, files, shared);
  Fd fd = take_end(state, made);
  // Reopened ends have all their flags but O_DIRECT; the ends of pipe2() have none yet.
  if (fd && ::fcntl(fd.get(), F_SETFL, static_cast<int>(state.flags & settable_pipe_flags)) == 0) return fd;
  throw Error(Reason::RESTORE_CALL_FAILED,
              fmt::format("cannot open an end of a pipe (access mode {})", state.flags & O_ACCMODE))
      .object(pipe_key(state.pipe_id))
      .error_number(errno);
}

void Pipe::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, pipe_key(state.pipe_id));
}

}  // namespace stasis

#include "objects/files/pipe_content.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"
#include "proto/pipe-data.pb.h"

namespace stasis {
namespace {

void write_all(int fd, const std::string& data, const std::string& key) {
  // Whole or not at all: packets must not be split, and the rest always fits into an empty pipe of the saved size.
  const ssize_t put = ::write(fd, data.data(), data.size());
  if (put == static_cast<ssize_t>(data.size())) return;
  throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot put {} bytes of saved data into a pipe", data.size()))
      .object(key)
      .error_number(put < 0 ? errno : 0);
}

}  // namespace

// An own pipe with as many slots as the one to copy: tee() moves references to the filled slots.
void PipeCopier::prepare(uint32_t capacity_bytes, const FileView& view) {
  if (!reader_) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) throw view.failed("cannot make a pipe to copy data into");
    reader_ = Fd(ends[0]);
    writer_ = Fd(ends[1]);
  }
  if (size_bytes_ == 0) size_bytes_ = pipe_capacity(writer_.get(), view);
  if (size_bytes_ >= capacity_bytes) return;
  if (::fcntl(writer_.get(), F_SETPIPE_SZ, capacity_bytes) < 0)
    throw view.failed(fmt::format("cannot make a pipe of {} bytes to copy data into", capacity_bytes));
  size_bytes_ = capacity_bytes;
}

// One read takes everything up to the end of a packet (pipe2(2), O_DIRECT), as one of the task's own would.
void PipeCopier::drain(size_t bytes, PipeContent& content, const FileView& view) {
  for (size_t left = bytes; left > 0;) {
    std::string packet(left, '\0');
    const ssize_t got = ::read(reader_.get(), packet.data(), packet.size());
    if (got <= 0) throw view.failed("cannot read the copied data of a pipe");
    left -= static_cast<size_t>(got);
    packet.resize(static_cast<size_t>(got));
    content.packets.push_back(std::move(packet));
  }
}

int pipe_bytes(int fd, const FileView& view) {
  int bytes = 0;
  if (::ioctl(fd, FIONREAD, &bytes) < 0) throw view.failed("cannot read how much a pipe holds");
  return bytes;
}

uint32_t pipe_capacity(int fd, const FileView& view) {
  const int capacity = ::fcntl(fd, F_GETPIPE_SZ);
  if (capacity < 0) throw view.failed("cannot read the size of a pipe");
  return static_cast<uint32_t>(capacity);
}

void PipeCopier::copy(const FileView& view, PipeContent& content) {
  if (reads_pipe(view.flags)) return copy(view.fd, view, content);
  content.capacity_bytes = pipe_capacity(view.fd, view);
  // A reader lets everybody go on who waits in open(2) to write: only where there is something to be read.
  if (pipe_bytes(view.fd, view) == 0) return;
  const Fd reader = reopen(view.fd, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (!reader) throw view.failed("cannot open a pipe to read what it holds");
  copy(reader.get(), view, content);
}

void PipeCopier::copy(int fd, const FileView& view, PipeContent& content) {
  content.capacity_bytes = pipe_capacity(fd, view);
  const int bytes = pipe_bytes(fd, view);
  if (bytes <= 0) return;
  prepare(content.capacity_bytes, view);
  const ssize_t copied = ::tee(fd, writer_.get(), static_cast<size_t>(bytes), SPLICE_F_NONBLOCK);
  if (copied < 0) throw view.failed("cannot copy the data of a pipe");
  drain(static_cast<size_t>(copied), content, view);
  if (copied != bytes)
    throw Error(Reason::SYSTEM, fmt::format("a pipe holds {} bytes, but only {} could be copied", bytes, copied))
        .object(view.who())
        .remedy("somebody outside of the tree reads from it: include that process, or stop it");
}

void fill_pipe(int writer, const std::string& key, const PipeContent& content) {
  uint64_t bytes = 0;
  for (const std::string& packet : content.packets) bytes += packet.size();
  const uint64_t wanted = content.capacity_bytes > 0 ? content.capacity_bytes : bytes;
  const int size = ::fcntl(writer, F_GETPIPE_SZ);
  const bool resize = wanted > 0 && static_cast<uint64_t>(size) != wanted &&
                      (content.capacity_bytes > 0 || wanted > static_cast<uint64_t>(size));
  if (resize && ::fcntl(writer, F_SETPIPE_SZ, wanted) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot give a pipe its size of {} bytes", wanted))
        .object(key)
        .error_number(errno)
        .remedy("raise the limit in /proc/sys/fs/pipe-max-size");
  if ((content.packet_mode || content.packets.size() > 1) && ::fcntl(writer, F_SETFL, O_NONBLOCK | O_DIRECT) < 0)
    throw_errno("cannot set a pipe to packet mode", Reason::RESTORE_CALL_FAILED);
  for (const std::string& packet : content.packets)
    if (!packet.empty()) write_all(writer, packet, key);
}

void write_pipe_contents(PipeContents& contents, ImageKind kind, ImageStore& store) {
  ImageWriter& writer = store.writer(kind);
  for (auto& [pipe_id, content] : contents) {
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

void read_pipe_contents(const ImageStore& store, ImageKind kind, PipeContents& contents) {
  std::optional<ImageReader> reader = store.reader(kind);
  if (!reader) return;
  pb::pipe_data_entry record;
  while (reader->next(record)) {
    PipeContent& content = contents[record.pipe_id()];
    content.capacity_bytes = record.size();
    content.packets.emplace_back(reader->raw(record.bytes()));
  }
}

}  // namespace stasis

// What pipes and fifos hold, apart from their ends: the data in flight, how much fits, where packets end.
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "objects/files/file_kind.h"

namespace stasis {

inline bool reads_pipe(uint32_t flags) {
  return (flags & O_ACCMODE) != O_WRONLY;
}
inline bool writes_pipe(uint32_t flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

// What fcntl(F_SETFL) can set on a pipe. O_DIRECT is refused by open(2) there, and means packet mode.
constexpr uint32_t settable_pipe_flags = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

struct PipeContent {
  uint32_t capacity_bytes = 0;       // 0: not known
  std::vector<std::string> packets;  // one, unless the pipe was in packet mode
  bool packet_mode = false;          // restore: of the writers to come
};
using PipeContents = std::map<uint32_t, PipeContent>;  // by pipe id

// Copies what pipes hold, which stays in them.
class PipeCopier {
 public:
  // Through any end: nobody but who opens it anew may be able to read it.
  void copy(const FileView& view, PipeContent& content);

 private:
  void copy(int fd, const FileView& view, PipeContent& content);
  void prepare(uint32_t capacity_bytes, const FileView& view);
  void drain(size_t bytes, PipeContent& content, const FileView& view);

  Fd reader_, writer_;
  uint32_t size_bytes_ = 0;
};

// How many bytes the pipe holds, and what fits into it; by any end.
int pipe_bytes(int fd, const FileView& view);
uint32_t pipe_capacity(int fd, const FileView& view);

// Gives an empty pipe its size and its data. `key` is for errors. Leaves O_NONBLOCK set on `writer`, and O_DIRECT if
// there are packets.
void fill_pipe(int writer, const std::string& key, const PipeContent& content);

// pipes-data.img, fifo-data.img
void write_pipe_contents(PipeContents& contents, ImageKind kind, ImageStore& store);
void read_pipe_contents(const ImageStore& store, ImageKind kind, PipeContents& contents);

}  // namespace stasis

// What waits in a pseudo terminal: input that was written to the master and not read from the slave yet, output that
// was not read from the master yet, and whether output is stopped.
//
// The kernel has no call that looks at it: it is read, and put back as it was. That is done by a process of its own,
// which shares the memory of this one and survives its death: a task never finds its input gone.
//
// Input of a terminal in canonical mode is a number of lines and the beginning of one, which a program cannot read
// yet (termios(3)). It is put back byte by byte with TIOCSTI, each quoted (VLNEXT), so that none of them acts again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct termios2;  // <asm/termbits.h>

namespace stasis {

struct PtyQueues {
  enum class Stop : uint32_t { none = 0, by_call = 1, by_character = 2 };

  std::string output;              // for whoever reads the master
  std::vector<std::string> lines;  // for readers of the slave in canonical mode, each as one read takes it
  std::string input;               // the beginning of a line; or all input, if the mode is not canonical
  Stop stop = Stop::none;          // of output: by tcflow(3), or by the stop character

  bool empty() const { return output.empty() && lines.empty() && input.empty() && stop == Stop::none; }
};

struct PtySides {
  int master = -1;
  int slave = -1;        // of our own, non-blocking, for reading and writing; -1: only the output can be seen
  bool packet = false;   // the master is in packet mode, and has no status to tell
  std::string_view who;  // for errors
};
// Copies what waits in each, and puts it back. Throws UNSUPPORTED_FILE for what could not be put back, before anything
// is touched.
std::vector<PtyQueues> copy_queues(std::span<const PtySides> pairs);

// Puts it into a pair that is empty, and then gives it its settings. `slave`: as above; -1 only if there is no input.
// `who`: for errors.
void fill_queues(int master, int slave, const PtyQueues& queues, const struct termios2& settings, std::string_view who);

}  // namespace stasis

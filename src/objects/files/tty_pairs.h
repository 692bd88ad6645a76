// Pseudo terminals that are being made again, each with the number that it had.
//
// Owns both sides until the tasks have theirs. The kernel gives the lowest number that is free: pairs are opened until
// the wanted ones have come, and those in between are closed again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/fd.h"
#include "objects/files/tty_queue.h"
#include "proto/tty.pb.h"

namespace stasis {

// What tty-info.img has no place for.
struct Pty {
  PtyQueues queues;
  bool lines_known = true;    // false: an image of another program tells the input, but not where lines end
  bool never_opened = false;  // the slave; it was, if nobody has it open
  // Of the node of the slave.
  uint32_t uid = 0, gid = 0, mode = 0;
  bool node_known = false;
};

class PtyPairs {
 public:
  struct Wanted {
    uint32_t index = 0;
    int flags = 0;            // to open the master with
    std::string path;         // of ptmx
    pb::tty_info_entry info;  // of the master
    bool slave_exclusive = false;
    Pty pty;
  };
  // A slave whose master is closed, or an open /dev/tty.
  struct Opened {
    uint32_t id = 0;     // of the open file
    uint32_t index = 0;  // of the terminal
    int flags = 0;       // with O_CLOEXEC only if the file has it among its own
    std::string path;    // to be opened; empty: /dev/tty
  };

  void want(Wanted pair) { wanted_.push_back(std::move(pair)); }
  void want_hung_up(Opened file) { hung_up_.push_back(std::move(file)); }
  // Of a pair, or of `terminal`, a terminal from outside that is nobody's.
  void want_controlling(Opened file, int terminal = -1) { controlling_.emplace_back(std::move(file), terminal); }

  // Makes all of them; later calls do nothing. Throws TERMINAL_TAKEN.
  void make();
  // These throw IMAGE_CORRUPT if there is none.
  int master(uint32_t index) const { return pair(index).master.get(); }
  int slave(uint32_t index) const;
  Fd open_slave(uint32_t index, const std::string& path, int flags) const;
  // Of what was wanted as Opened.
  Fd take(uint32_t id);
  // Every task has what it is to have: modes that would have been in the way. Closes the slaves.
  void complete();

 private:
  struct Pair {
    Wanted wanted;
    Fd master, slave;
  };

  const Pair& pair(uint32_t index) const;
  void make_hung_up();
  void acquire();
  void set_up(Pair& pair) const;

  bool made_ = false;
  std::vector<Wanted> wanted_;
  std::vector<Opened> hung_up_;
  std::vector<std::pair<Opened, int>> controlling_;
  std::map<uint32_t, Pair> pairs_;
  std::map<uint32_t, Fd> opened_;
};

}  // namespace stasis

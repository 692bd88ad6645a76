// Which terminal a device number means, and what the kernel keeps of a terminal apart from what waits in it.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "proto/tty.pb.h"

struct termios2;  // <asm/termbits.h>

namespace stasis {

bool is_terminal_device(dev_t device);
bool is_ptmx(dev_t device);             // opening it makes a pair; the descriptor is the master
bool is_pts(dev_t device);              // a slave
uint32_t pts_index(dev_t device);       // of a slave
dev_t pts_device(uint32_t index);       // the opposite
bool is_controlling_tty(dev_t device);  // /dev/tty, which stands for another one

// In the ids of tty-info.img: the number of a pseudo terminal, or one for the kind.
constexpr uint32_t kFirstExternalIndex = 1013, kLastExternalIndex = 1076;
// Ours: numbers of pseudo terminals that would be taken for others move up; and those that are hung up.
constexpr uint32_t kFirstHighIndex = 1000, kHighIndices = 1 << 20, kFirstHungIndex = 1 << 21;
struct TerminalIdentity {
  pb::TtyType type;
  uint32_t index;  // in the id
};
TerminalIdentity identify_terminal(dev_t device);
constexpr uint32_t slave_info_id(uint32_t index) {
  return index << 1;
}
// The master of a slave, and the other way round; both are of the same pair.
constexpr uint32_t master_of(uint32_t info_id) {
  return info_id | 1;
}
constexpr uint32_t slave_of(uint32_t info_id) {
  return info_id & ~1u;
}

// The key under which --external and --inherit-fd know a terminal.
std::string external_terminal_key(dev_t device, dev_t node_device);

// The real device behind a descriptor, as /proc/PID/stat tells it; nothing if the terminal was hung up.
bool real_device(int fd, uint32_t& device);
dev_t decode_device(uint32_t from_stat);

// Settings, size and exclusive mode of the terminal behind `fd`; for a master the first two are those of its slave.
pb::tty_info_entry describe_terminal(int fd, const struct stat& st, uint32_t info_id, pb::TtyType type);
struct termios2 decode_settings(const pb::tty_info_entry& info);
// Window size, at the beginning; who is told of a change does not exist yet. `fd`: master or slave.
void restore_window_size(int fd, const pb::tty_info_entry& info);
// What keeps others from changing the settings, at the end.
void restore_locked_settings(int fd, const pb::tty_info_entry& info);

}  // namespace stasis

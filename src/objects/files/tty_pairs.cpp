#include "objects/files/tty_pairs.h"

// The kernel's own terminal structures: those of <termios.h> have other sizes and no TCGETS2.
#include <asm/termbits.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "kernel/own_process.h"
#include "objects/files/file_kind.h"
#include "objects/files/tty_settings.h"

namespace stasis {
namespace {

constexpr int kOwn = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
constexpr const char* kPtmx = "/dev/ptmx";

std::string name_of(uint32_t index) {
  return fmt::format("pseudo terminal {}", index);
}

Error failed(uint32_t index, std::string what) {
  return Error(Reason::RESTORE_CALL_FAILED, std::move(what)).object(name_of(index)).error_number(errno);
}

Fd open_master(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_NOCTTY | O_CLOEXEC));
  if (fd) return fd;
  const int error = errno;
  throw Error(Reason::RESTORE_CALL_FAILED, "cannot make a pseudo terminal")
      .object(path)
      .error_number(error)
      .remedy(error == ENOSPC ? "raise the sysctl kernel.pty.max" : "check that a devpts file system is mounted");
}

uint32_t index_of(int master) {
  uint32_t index = 0;
  check(::ioctl(master, TIOCGPTN, &index), "cannot ask for the number of a pseudo terminal");
  return index;
}

void set_lock(int master, int locked) {
  check(::ioctl(master, TIOCSPTLCK, &locked), "cannot lock or unlock a pseudo terminal", Reason::RESTORE_CALL_FAILED);
}

Fd open_peer(int master, uint32_t index, int flags) {
  Fd fd(::ioctl(master, TIOCGPTPEER, flags | O_NOCTTY));
  if (!fd || ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0)
    throw failed(index, "cannot open the slave of a pseudo terminal");
  return fd;
}

// The name leads to the slave, or it is not used; nor for one that was opened through the master (TIOCGPTPEER).
Fd open_by_name(const std::string& path, int peer, int flags) {
  struct stat wanted, found;
  if (path.empty() || (static_cast<uint32_t>(flags) & kLargeFile) == 0 || ::fstat(peer, &wanted) < 0 ||
      ::stat(path.c_str(), &found) < 0)
    return {};
  if (wanted.st_dev != found.st_dev || wanted.st_ino != found.st_ino) return {};
  return Fd(::open(path.c_str(), flags | O_NOCTTY | O_CLOEXEC));
}

// /dev/tty can be opened by whoever has the terminal: a process that takes it for a moment, as a session of its own.
Fd open_controlling(int terminal, int flags) {
  int opened = -1, error = 0;
  in_own_process([&] {
    if (::setsid() >= 0 && ::ioctl(terminal, TIOCSCTTY, 0) == 0) {
      opened = ::open("/dev/tty", flags | O_NOCTTY | O_CLOEXEC);
      error = errno;
      ::ioctl(terminal, TIOCNOTTY);  // its end would not be told to anybody else, either
    } else {
      error = errno;
    }
  });
  if (opened < 0)
    throw Error(Reason::RESTORE_CALL_FAILED, "cannot open /dev/tty for a terminal that is to be a controlling one")
        .error_number(error)
        .remedy(error == EPERM ? "give a terminal that controls no session" : "");
  return Fd(opened);
}

// Where lines end, if the image does not tell.
void find_lines(PtyQueues& queues, const struct termios2& settings) {
  if ((settings.c_lflag & ICANON) == 0) return;
  for (size_t end; (end = queues.input.find('\n')) != std::string::npos; queues.input.erase(0, end + 1))
    queues.lines.push_back(queues.input.substr(0, end + 1));
}

}  // namespace

void PtyPairs::make() {
  if (std::exchange(made_, true)) return;
  // A number can have been given again since.
  make_hung_up();
  acquire();
  for (auto& [index, pair] : pairs_) set_up(pair);
  for (const auto& [file, terminal] : controlling_)
    opened_[file.id] = open_controlling(terminal >= 0 ? terminal : slave(file.index), file.flags);
}

void PtyPairs::make_hung_up() {
  // Tasks see the number in the name and the device; if it is taken another one serves as well, as the name is gone.
  std::vector<Fd> between;
  std::map<uint32_t, Fd> masters;
  std::ranges::stable_sort(hung_up_, {}, &Opened::index);
  for (const Opened& file : hung_up_) {
    Fd& master = masters[file.index];
    while (!master) {
      Fd fd = open_master(kPtmx, kOwn);
      if (index_of(fd.get()) >= file.index)
        master = std::move(fd);
      else
        between.push_back(std::move(fd));
    }
    set_lock(master.get(), 0);
    const Fd peer = open_peer(master.get(), file.index, kOwn);
    Fd fd =
        file.path.empty() ? open_controlling(peer.get(), file.flags) : open_by_name(file.path, peer.get(), file.flags);
    opened_[file.id] = fd ? std::move(fd) : open_peer(master.get(), file.index, file.flags);
  }
}

void PtyPairs::acquire() {
  std::ranges::sort(wanted_, {}, &Wanted::index);
  if (const auto twice = std::ranges::adjacent_find(wanted_, {}, &Wanted::index); twice != wanted_.end())
    throw Error(Reason::IMAGE_CORRUPT, "a pseudo terminal has two masters").object(name_of(twice->index));
  std::vector<Fd> between;
  for (auto next = wanted_.begin(); next != wanted_.end();) {
    Fd fd = open_master(next->path, next->flags);
    const uint32_t index = index_of(fd.get());
    if (index > next->index)
      throw Error(Reason::TERMINAL_TAKEN,
                  fmt::format("/dev/pts/{} is in use by a program that has nothing to do with the images", next->index))
          .object(name_of(next->index))
          .remedy("end the program that has this terminal, or restore in a container with a devpts of its own");
    if (index < next->index) {
      between.push_back(std::move(fd));
      continue;
    }
    Pair& pair = pairs_[index];
    pair.wanted = std::move(*next);
    pair.master = std::move(fd);
    ++next;
  }
}

void PtyPairs::set_up(Pair& pair) const {
  const Wanted& w = pair.wanted;
  const int master = pair.master.get();
  const std::string who = name_of(w.index);
  set_lock(master, 0);
  restore_window_size(master, w.info);
  if (!w.pty.never_opened) pair.slave = open_peer(master, w.index, kOwn);
  PtyQueues queues = w.pty.queues;
  const struct termios2 settings = decode_settings(w.info);
  if (!w.pty.lines_known) find_lines(queues, settings);
  if (w.info.has_termios()) fill_queues(master, pair.slave.get(), queues, settings, who);
  restore_locked_settings(master, w.info);
  if (!pair.slave || !w.pty.node_known) return;
  if (::fchown(pair.slave.get(), w.pty.uid, w.pty.gid) < 0 || ::fchmod(pair.slave.get(), w.pty.mode) < 0)
    throw failed(w.index, "cannot set owner and mode of a terminal");
}

const PtyPairs::Pair& PtyPairs::pair(uint32_t index) const {
  const auto at = pairs_.find(index);
  if (at != pairs_.end()) return at->second;
  throw Error(Reason::IMAGE_CORRUPT, "no task holds the master of a pseudo terminal").object(name_of(index));
}

int PtyPairs::slave(uint32_t index) const {
  if (const Fd& fd = pair(index).slave) return fd.get();
  throw Error(Reason::IMAGE_CORRUPT, "a terminal that nobody has ever opened is in use").object(name_of(index));
}

Fd PtyPairs::open_slave(uint32_t index, const std::string& path, int flags) const {
  Fd fd = open_by_name(path, slave(index), flags);
  return fd ? std::move(fd) : open_peer(master(index), index, flags);
}

Fd PtyPairs::take(uint32_t id) {
  return std::move(opened_.at(id));
}

void PtyPairs::complete() {
  for (auto& [index, pair] : pairs_) {
    const int master = pair.master.get();
    const int on = 1;
    if (pair.wanted.slave_exclusive && pair.slave && ::ioctl(pair.slave.get(), TIOCEXCL) < 0)
      throw failed(index, "cannot set a terminal to exclusive mode");
    if (pair.wanted.info.exclusive() && ::ioctl(master, TIOCEXCL) < 0)
      throw failed(index, "cannot set the master of a terminal to exclusive mode");
    if (pair.wanted.info.packet_mode() && ::ioctl(master, TIOCPKT, &on) < 0)
      throw failed(index, "cannot set a terminal to packet mode");
    if (pair.wanted.info.locked()) set_lock(master, 1);
    pair.slave.reset();
    pair.master.reset();
  }
}

}  // namespace stasis

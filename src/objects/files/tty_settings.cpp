#include "objects/files/tty_settings.h"

// The kernel's own terminal structures: those of <termios.h> have other sizes and no TCGETS2.
#include <asm/termbits.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace stasis {
namespace {

constexpr uint32_t kConsoleIndex = 1002;
constexpr uint32_t kVtIndex = 1004;
constexpr uint32_t kControllingIndex = 1006;
constexpr uint32_t kSerialIndex = 1010;

// Device numbers of terminals (Linux devices.txt).
constexpr unsigned kVtMajor = 4;
constexpr unsigned kFirstSerialMinor = 64;
constexpr unsigned kMiscMajor = 5;  // 0 /dev/tty, 1 /dev/console, 2 /dev/ptmx
constexpr unsigned kFirstPtsMajor = 136, kLastPtsMajor = 143;
constexpr unsigned kMinorsOfPts = 256;
constexpr std::array<unsigned, 6> kSerialMajors = {166, 188, 204, 205, 229, 230};

template <class Settings>
void encode_settings(const Settings& from, pb::termios_entry& out) {
  out.set_c_iflag(from.c_iflag);
  out.set_c_oflag(from.c_oflag);
  out.set_c_cflag(from.c_cflag);
  out.set_c_lflag(from.c_lflag);
  out.set_c_line(from.c_line);
  out.set_c_ispeed(0);
  out.set_c_ospeed(0);
  for (const unsigned char c : from.c_cc) out.add_c_cc(c);
}

template <class Settings>
Settings decode_settings(const pb::termios_entry& from) {
  Settings out{};
  out.c_iflag = from.c_iflag();
  out.c_oflag = from.c_oflag();
  out.c_cflag = from.c_cflag();
  out.c_lflag = from.c_lflag();
  out.c_line = static_cast<cc_t>(from.c_line());
  for (int i = 0; i < std::min(from.c_cc_size(), static_cast<int>(std::size(out.c_cc))); ++i)
    out.c_cc[i] = static_cast<cc_t>(from.c_cc(i));
  return out;
}

}  // namespace

bool is_pts(dev_t device) {
  return major(device) >= kFirstPtsMajor && major(device) <= kLastPtsMajor;
}
bool is_ptmx(dev_t device) {
  return major(device) == kMiscMajor && minor(device) == 2;
}
bool is_controlling_tty(dev_t device) {
  return major(device) == kMiscMajor && minor(device) == 0;
}
uint32_t pts_index(dev_t device) {
  return (major(device) - kFirstPtsMajor) * kMinorsOfPts + minor(device);
}
dev_t pts_device(uint32_t index) {
  return makedev(kFirstPtsMajor + index / kMinorsOfPts, index % kMinorsOfPts);
}
bool is_terminal_device(dev_t device) {
  const unsigned number = major(device);
  return is_pts(device) || number == kVtMajor || (number == kMiscMajor && minor(device) <= 2) ||
         std::ranges::find(kSerialMajors, number) != kSerialMajors.end();
}

TerminalIdentity identify_terminal(dev_t device) {
  if (is_pts(device)) {
    const uint32_t number = pts_index(device);
    return {pb::PTY, number < kFirstHighIndex ? number : kHighIndices + number};
  }
  if (is_controlling_tty(device)) return {pb::CTTY, kControllingIndex};
  if (major(device) == kMiscMajor && minor(device) == 1) return {pb::CONSOLE, kConsoleIndex};
  if (major(device) == kVtMajor && minor(device) < kFirstSerialMinor) return {pb::VT, kVtIndex};
  return {pb::SERIAL, kSerialIndex};
}

std::string external_terminal_key(dev_t device, dev_t node_device) {
  return fmt::format("tty[{:x}:{:x}]", device, node_device);
}

dev_t decode_device(uint32_t from_stat) {
  // new_encode_dev() in the kernel.
  return makedev((from_stat >> 8) & 0xfff, (from_stat & 0xff) | ((from_stat >> 12) & 0xfff00));
}

bool real_device(int fd, uint32_t& device) {
  return ::ioctl(fd, TIOCGDEV, &device) == 0;
}

pb::tty_info_entry describe_terminal(int fd, const struct stat& st, uint32_t info_id, pb::TtyType type) {
  pb::tty_info_entry info;
  info.set_id(info_id);
  info.set_type(type);
  info.set_locked(false);
  int exclusive = 0;
  info.set_exclusive(::ioctl(fd, TIOCGEXCL, &exclusive) == 0 && exclusive != 0);
  info.set_packet_mode(false);
  info.set_sid(0);
  info.set_pgrp(0);
  info.set_rdev(static_cast<uint32_t>(st.st_rdev));
  info.set_dev(static_cast<uint32_t>(st.st_dev));
  info.set_uid(st.st_uid);
  info.set_gid(st.st_gid);
  struct termios2 settings;
  if (::ioctl(fd, TCGETS2, &settings) == 0) {
    encode_settings(settings, *info.mutable_termios());
    info.mutable_termios()->set_c_ispeed(settings.c_ispeed);
    info.mutable_termios()->set_c_ospeed(settings.c_ospeed);
  }
  struct termios locked;
  if (::ioctl(fd, TIOCGLCKTRMIOS, &locked) == 0) encode_settings(locked, *info.mutable_termios_locked());
  winsize size;
  if (::ioctl(fd, TIOCGWINSZ, &size) == 0) {
    info.mutable_winsize()->set_ws_row(size.ws_row);
    info.mutable_winsize()->set_ws_col(size.ws_col);
    info.mutable_winsize()->set_ws_xpixel(size.ws_xpixel);
    info.mutable_winsize()->set_ws_ypixel(size.ws_ypixel);
  }
  return info;
}

struct termios2 decode_settings(const pb::tty_info_entry& info) {
  auto out = decode_settings<struct termios2>(info.termios());
  out.c_ispeed = info.termios().c_ispeed();
  out.c_ospeed = info.termios().c_ospeed();
  return out;
}

void restore_window_size(int fd, const pb::tty_info_entry& info) {
  if (!info.has_winsize()) return;
  const winsize size{.ws_row = static_cast<unsigned short>(info.winsize().ws_row()),
                     .ws_col = static_cast<unsigned short>(info.winsize().ws_col()),
                     .ws_xpixel = static_cast<unsigned short>(info.winsize().ws_xpixel()),
                     .ws_ypixel = static_cast<unsigned short>(info.winsize().ws_ypixel())};
  check(::ioctl(fd, TIOCSWINSZ, &size), "cannot give a terminal its size", Reason::RESTORE_CALL_FAILED);
}

void restore_locked_settings(int fd, const pb::tty_info_entry& info) {
  if (!info.has_termios_locked()) return;
  const auto locked = decode_settings<struct termios>(info.termios_locked());
  const bool any = (locked.c_iflag | locked.c_oflag | locked.c_cflag | locked.c_lflag | locked.c_line) != 0 ||
                   std::ranges::any_of(locked.c_cc, [](cc_t c) { return c != 0; });
  if (any)
    check(::ioctl(fd, TIOCSLCKTRMIOS, &locked), "cannot lock the settings of a terminal", Reason::RESTORE_CALL_FAILED);
}

}  // namespace stasis

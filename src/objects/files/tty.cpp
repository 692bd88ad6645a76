#include "objects/files/tty.h"

// The kernel's own terminal structures: those of <termios.h> have other sizes and no TCGETS2.
#include <asm/termbits.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

// Numbers in the ids of tty_info: a pseudo terminal has its own index, others one for their kind.
constexpr uint32_t console_index = 1002;
constexpr uint32_t vt_index = 1004;
constexpr uint32_t controlling_index = 1006;
constexpr uint32_t serial_index = 1010;

// Device numbers of terminals (Linux devices.txt).
constexpr unsigned vt_major = 4;
constexpr unsigned first_serial_minor = 64;
constexpr unsigned misc_major = 5;  // 0 /dev/tty, 1 /dev/console, 2 /dev/ptmx
constexpr unsigned first_pts_major = 136, last_pts_major = 143;
constexpr std::array<unsigned, 6> serial_majors = {166, 188, 204, 205, 229, 230};

bool is_pts(dev_t device) {
  return major(device) >= first_pts_major && major(device) <= last_pts_major;
}
bool is_master(dev_t device) {
  return major(device) == misc_major && minor(device) == 2;
}
bool is_terminal(dev_t device) {
  const unsigned number = major(device);
  return is_pts(device) || number == vt_major || (number == misc_major && minor(device) <= 2) ||
         std::ranges::find(serial_majors, number) != serial_majors.end();
}

struct Identity {
  pb::TtyType type;
  uint32_t index;
};
Identity identify(dev_t device) {
  if (is_pts(device)) return {pb::PTY, (major(device) - first_pts_major) * 256 + minor(device)};
  if (major(device) == misc_major && minor(device) == 0) return {pb::CTTY, controlling_index};
  if (major(device) == misc_major && minor(device) == 1) return {pb::CONSOLE, console_index};
  if (major(device) == vt_major && minor(device) < first_serial_minor) return {pb::VT, vt_index};
  return {pb::SERIAL, serial_index};
}

Error refuse(const FileView& view, std::string why) {
  return Error(Reason::UNSUPPORTED_FILE, std::move(why)).object(view.who());
}

// /dev/tty and /dev/console stand for another device: the one that says who owns the terminal. The kernel writes it as
// it writes tty_nr in /proc/PID/stat.
uint32_t real_device(const FileView& view) {
  uint32_t device = 0;
  if (::ioctl(view.fd, TIOCGDEV, &device) < 0)
    throw refuse(view, "the terminal was hung up, and cannot be asked for its state")
        .error_number(errno)
        .remedy("let the task close it");
  return device;
}

// The session of a terminal cannot be asked for through a descriptor from outside of it (ioctl_tty(2), TIOCGSID).
const std::vector<uint32_t>& tree_terminals(const DumpFiles& files, Terminal::Shared& shared) {
  if (shared.sessions_known) return shared.tree_terminals;
  shared.sessions_known = true;
  for (const pid_t leader : files.tree_sessions) {
    const ProcStat stat = parse_stat(ProcDir(leader).read("stat"));
    if (stat.tty_nr != 0) shared.tree_terminals.push_back(stat.tty_nr);
  }
  return shared.tree_terminals;
}

void require_outside(const FileView& view, const DumpFiles& files, Terminal::Shared& shared) {
  if (is_master(view.st.st_rdev))
    throw refuse(view, "the master of a pseudo terminal cannot be saved by this version")
        .remedy("dump a tree that does not drive a terminal of its own");
  const uint32_t device = real_device(view);
  if (std::ranges::find(tree_terminals(files, shared), device) != shared.tree_terminals.end())
    throw refuse(view, "the terminal controls a session inside the tree, which cannot be saved by this version")
        .remedy("start the session without a terminal, or dump only tasks below its leader with --shell-job");
  if (!files.options().shell_job)
    throw refuse(view, "the terminal belongs to a session outside of the tree")
        .remedy("add --shell-job: the restored tasks then use the terminal of whoever restores them");
  if (shared.outside_terminal != 0 && shared.outside_terminal != device)
    throw refuse(view, "the tree uses more than one terminal from outside, and only one can be given back")
        .remedy("let the tasks close one of them");
  shared.outside_terminal = device;
}

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

pb::tty_info_entry describe(const FileView& view, const Identity& identity, uint32_t info_id) {
  pb::tty_info_entry info;
  info.set_id(info_id);
  info.set_type(identity.type);
  info.set_locked(false);  // of a master only, as packet mode
  int exclusive = 0;
  info.set_exclusive(::ioctl(view.fd, TIOCGEXCL, &exclusive) == 0 && exclusive != 0);
  info.set_packet_mode(false);

  const ProcStat stat = parse_stat(ProcDir(view.pid).read("stat"));
  const bool controls = stat.tty_nr == real_device(view);
  info.set_sid(controls ? static_cast<uint32_t>(stat.sid) : 0);
  info.set_pgrp(controls && stat.tty_pgrp > 0 ? static_cast<uint32_t>(stat.tty_pgrp) : 0);
  info.set_rdev(static_cast<uint32_t>(view.st.st_rdev));
  info.set_dev(static_cast<uint32_t>(view.st.st_dev));
  info.set_uid(view.st.st_uid);
  info.set_gid(view.st.st_gid);
  if (identity.type == pb::PTY) info.mutable_pty()->set_index(identity.index);

  struct termios2 settings;
  if (::ioctl(view.fd, TCGETS2, &settings) == 0) {
    encode_settings(settings, *info.mutable_termios());
    info.mutable_termios()->set_c_ispeed(settings.c_ispeed);
    info.mutable_termios()->set_c_ospeed(settings.c_ospeed);
  }
  struct termios locked;
  if (::ioctl(view.fd, TIOCGLCKTRMIOS, &locked) == 0) encode_settings(locked, *info.mutable_termios_locked());
  winsize size;
  if (::ioctl(view.fd, TIOCGWINSZ, &size) == 0) {
    info.mutable_winsize()->set_ws_row(size.ws_row);
    info.mutable_winsize()->set_ws_col(size.ws_col);
    info.mutable_winsize()->set_ws_xpixel(size.ws_xpixel);
    info.mutable_winsize()->set_ws_ypixel(size.ws_ypixel);
  }
  return info;
}

std::string what_of(const Terminal::State& state) {
  return fmt::format("terminal {} (tty-info {})", state.id, state.info_id);
}

}  // namespace

bool Terminal::match(const FileView& view) {
  return S_ISCHR(view.st.st_mode) && !view.path_only() && is_terminal(view.st.st_rdev);
}

void Terminal::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  require_outside(view, files, shared);
  const Identity identity = identify(view.st.st_rdev);
  state.info_id = identity.index << 1;  // the odd ids are masters
  dump_open_file(view, files, state);
  if (!shared.infos.contains(state.info_id))
    shared.infos.emplace(state.info_id, describe(view, identity, state.info_id));
  state.node_id = files.add_path_file(
      {.fd = view.fd, .st = view.st, .link = view.link, .flags = view.flags, .who = view.who(), .must_exist = false});
}

void Terminal::encode(const State& state, pb::file_entry& out) {
  pb::tty_file_entry& tty = *out.mutable_tty();
  encode_open_file(state, pb::TTY, out, tty);
  tty.set_tty_info_id(state.info_id);
  if (state.node_id != 0) tty.set_regf_id(state.node_id);
}

void Terminal::write_images(Shared& shared, ImageStore& store) {
  ImageWriter& writer = store.writer(ImageKind::TTY_INFO);
  for (const auto& [id, info] : shared.infos) writer.write(info);
}

void Terminal::decode(const pb::file_entry& in, State& state) {
  const pb::tty_file_entry& tty = in.tty();
  decode_open_file(tty, state);
  state.info_id = tty.tty_info_id();
  state.node_id = tty.regf_id();
}

void Terminal::read_images(const ImageStore& store, Shared& shared) {
  std::optional<ImageReader> reader = store.reader(ImageKind::TTY_INFO);
  if (!reader) return;
  pb::tty_info_entry info;
  while (reader->next(info)) shared.infos.insert_or_assign(info.id(), info);
}

void Terminal::plan(const State& state, RestoreFiles& files, Shared& shared) {
  const auto info = shared.infos.find(state.info_id);
  if (info == shared.infos.end())
    throw Error(Reason::IMAGE_CORRUPT, "a terminal is not described in tty-info.img").object(what_of(state));
  if ((state.info_id & 1) != 0 || info->second.type() == pb::EXT_TTY)
    throw Error(Reason::IMAGE_UNSUPPORTED, "the images hold a terminal that is not the one of a shell job")
        .object(what_of(state))
        .remedy("restore them with the program that made them");
  if (!files.options().shell_job)
    throw Error(Reason::TERMINAL_MISSING, "the saved tasks used the terminal of their caller")
        .object(what_of(state))
        .remedy("add --shell-job: the restored tasks then use your terminal");
  if (!std::exchange(shared.terminal_checked, true)) files.require_caller_terminal();
}

Fd Terminal::create(const State& state, RestoreFiles& files, Shared& shared) {
  // An open of /dev/tty is told from one of the terminal by its device number; without a controlling terminal only the
  // latter can be had.
  if (shared.infos.at(state.info_id).type() == pb::CTTY) {
    Fd fd(::open("/dev/tty", reopen_flags(state.flags)));
    if (fd) return fd;
  }
  return files.open_caller_terminal(state.flags);
}

void Terminal::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what_of(state));
}

}  // namespace stasis

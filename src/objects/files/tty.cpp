#include "objects/files/tty.h"

// The kernel's own terminal structures: those of <termios.h> have other sizes and no TCGETS2.
#include <asm/termbits.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "kernel/proc.h"
#include "objects/files/regular.h"
#include "objects/files/tty_settings.h"

namespace stasis {
namespace {

Error refuse(std::string_view who, std::string why) {
  return Error(Reason::UNSUPPORTED_FILE, std::move(why)).object(std::string(who));
}

std::string without_mark(std::string link) {
  constexpr std::string_view kDeleted = " (deleted)";
  if (link.ends_with(kDeleted)) link.resize(link.size() - kDeleted.size());
  return link;
}

std::string remedy_external(const std::string& key) {
  return fmt::format("--external '{0}' now and --inherit-fd 'fd[N]:{0}' at the restore", key);
}

// ---- dump ------------------------------------------------------------------------------------------------

void dump_master(const FileView& view, Terminal::Shared& shared, Terminal::State& state) {
  uint32_t index = 0;
  int locked = 0, packet = 0;
  if (::ioctl(view.fd, TIOCGPTN, &index) < 0 || ::ioctl(view.fd, TIOCGPTLCK, &locked) < 0 ||
      ::ioctl(view.fd, TIOCGPKT, &packet) < 0)
    throw refuse(view.who(), "the master of a pseudo terminal cannot be asked for its state").error_number(errno);
  state.info_id = master_of(slave_info_id(identify_terminal(pts_device(index)).index));
  state.pty = std::make_shared<Pty>();
  pb::tty_info_entry info = describe_terminal(view.fd, view.st, state.info_id, pb::PTY);
  info.set_locked(locked != 0);
  info.set_packet_mode(packet != 0);
  info.mutable_pty()->set_index(index);
  if (!shared.infos.emplace(state.info_id, std::move(info)).second)
    throw refuse(view.who(), fmt::format("the tree holds two pseudo terminals with the number {}, of different devpts "
                                         "file systems",
                                         index))
        .remedy("dump tasks that use one of them only");
  shared.masters[slave_of(state.info_id)] = {
      .fd = Fd(check(::fcntl(view.fd, F_DUPFD_CLOEXEC, 3), "cannot keep the master of a terminal")),
      .index = index,
      .who = view.who(),
      .path = view.link,
      .packet = packet != 0,
      .pty = state.pty};
}

// Its master is closed: nothing is left of it but the number.
void dump_hung_up(const FileView& view, Terminal::Shared& shared, Terminal::State& state) {
  const TerminalIdentity identity = identify_terminal(view.st.st_rdev);
  if (identity.type != pb::PTY && identity.type != pb::CTTY)
    throw refuse(view.who(), "the terminal was hung up, and cannot be asked for its state")
        .remedy("let the task close it");
  uint32_t index = kFirstHungIndex;
  const auto is_other = [&](const pb::tty_info_entry& info) {
    return info.type() != identity.type || info.rdev() != static_cast<uint32_t>(view.st.st_rdev);
  };
  for (auto at = shared.infos.end();
       (at = shared.infos.find(slave_info_id(index))) != shared.infos.end() && is_other(at->second);)
    ++index;
  state.info_id = slave_info_id(index);
  pb::tty_info_entry info = describe_terminal(view.fd, view.st, state.info_id, identity.type);
  if (identity.type == pb::PTY) info.mutable_pty()->set_index(pts_index(view.st.st_rdev));
  shared.infos.emplace(state.info_id, std::move(info));
}

// What tells that the terminal of a session comes from outside, if only /dev/tty is open.
bool is_external_device(const DumpFiles& files, struct stat& st, std::string& key) {
  const std::string begin = fmt::format("tty[{:x}:", st.st_rdev);
  const auto& external = files.options().external;
  const auto at = std::ranges::find_if(external, [&](const std::string& k) { return k.starts_with(begin); });
  if (at == external.end()) return false;
  key = *at;
  st.st_dev = std::strtoul(key.c_str() + begin.size(), nullptr, 16);
  return true;
}

void dump_slave(const FileView& view, uint32_t device, DumpFiles& files, Terminal::Shared& shared,
                Terminal::State& state) {
  const bool controlling = is_controlling_tty(view.st.st_rdev);
  struct stat st = view.st;
  if (controlling) st.st_rdev = decode_device(device);
  std::string key = external_terminal_key(st.st_rdev, st.st_dev);
  const bool external = controlling ? is_external_device(files, st, key) : files.is_external(key);
  const TerminalIdentity identity = identify_terminal(st.st_rdev);
  uint32_t info_id = slave_info_id(identity.index);
  if (external) {
    const auto next = static_cast<uint32_t>(kFirstExternalIndex + shared.external_ids.size());
    info_id = shared.external_ids.try_emplace(key, slave_info_id(next)).first->second;
    if (next > kLastExternalIndex) throw refuse(view.who(), "the tree has too many external terminals");
  }
  Terminal::Slave& slave = shared.slaves[info_id];
  if (slave.who.empty())
    slave = {.who = view.who(),
             .key = key,
             .node_device = {},
             .pid = view.pid,
             .info_id = info_id,
             .device = device,
             .external = external,
             .by_name = !controlling && identity.type != pb::PTY};
  state.info_id = info_id;
  if (controlling) {
    state.stands_for = info_id;
    state.info_id = slave_info_id(identify_terminal(view.st.st_rdev).index);
    if (!shared.infos.contains(state.info_id))
      shared.infos.emplace(state.info_id, describe_terminal(view.fd, view.st, state.info_id, pb::CTTY));
  } else if (!slave.node_device) {
    slave.node_device = view.st.st_dev;
    slave.key = key;
  }
  if (shared.infos.contains(info_id) || (controlling && !external)) return;
  pb::tty_info_entry info = describe_terminal(view.fd, st, info_id, external ? pb::EXT_TTY : identity.type);
  if (identity.type == pb::PTY) info.mutable_pty()->set_index(pts_index(st.st_rdev));
  shared.infos.emplace(info_id, std::move(info));
}

// The file system with the slaves of a master: its own, or that beside the device node (devpts_mntget() in the kernel).
std::string slave_directory(const Terminal::Master& master) {
  constexpr long kDevptsMagic = 0x1cd1;
  const std::string directory = master.path.substr(0, master.path.rfind('/'));
  struct statfs fs;
  return ::fstatfs(master.fd.get(), &fs) == 0 && fs.f_type == kDevptsMagic ? directory : directory + "/pts";
}

// A descriptor of our own for the slave. A locked one is unlocked for that moment.
Fd open_own_slave(const Terminal::Master& master, bool locked) {
  const int fd = master.fd.get(), on = 1, off = 0;
  if (locked) ::ioctl(fd, TIOCSPTLCK, &off);
  Fd slave(::ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  const int error = errno;
  if (locked) ::ioctl(fd, TIOCSPTLCK, &on);
  if (!slave) throw refuse(master.who, "the slave of a pseudo terminal cannot be opened").error_number(error);
  return slave;
}

void require_line_discipline(int fd, std::string_view who) {
  int discipline = N_TTY;
  if (::ioctl(fd, TIOCGETD, &discipline) == 0 && discipline != N_TTY)
    throw refuse(who, fmt::format("the terminal has line discipline {}, whose state cannot be saved", discipline))
        .remedy("let the program set the standard one (N_TTY)");
}

// Looks at everything but what waits there; a descriptor of our own for the slave, if anybody has ever opened it.
Fd conclude_pair(uint32_t slave_id, const Terminal::Master& master, const Terminal::Shared& shared) {
  const pb::tty_info_entry& info = shared.infos.at(master_of(slave_id));
  const auto opened = shared.slaves.find(slave_id);
  const int fd = master.fd.get();
  pollfd state{.fd = fd, .events = POLLPRI, .revents = 0};
  check(::poll(&state, 1, 0), "cannot poll the master of a terminal");
  if (master.packet && (state.revents & POLLPRI) != 0)
    throw refuse(master.who, "a change of the terminal was not read yet from its master, which is in packet mode")
        .remedy("try again when the program has read it");
  require_line_discipline(fd, master.who);
  Pty& pty = *master.pty;
  pty.never_opened = opened == shared.slaves.end() && (state.revents & POLLHUP) == 0;
  struct stat node {};
  Fd slave;
  if (pty.never_opened) {
    pty.node_known = ::stat(fmt::format("{}/{}", slave_directory(master), master.index).c_str(), &node) == 0;
  } else {
    // Whoever closes the last one tells the master that nobody is there: that is so already if nobody was.
    slave = open_own_slave(master, info.locked());
    require_line_discipline(slave.get(), master.who);
    pty.node_known = ::fstat(slave.get(), &node) == 0;
    if (opened != shared.slaves.end() && opened->second.node_device.value_or(node.st_dev) != node.st_dev)
      throw refuse(opened->second.who,
                   "the terminal has the number of one whose master is in the tree, but is of "
                   "another devpts file system")
          .remedy("dump tasks that use one of them only");
  }
  pty.uid = node.st_uid;
  pty.gid = node.st_gid;
  pty.mode = node.st_mode & 07777;
  return slave;
}

void conclude_pairs(Terminal::Shared& shared) {
  std::vector<Fd> slaves;
  std::vector<PtySides> sides;
  for (const auto& [slave_id, master] : shared.masters) {
    slaves.push_back(conclude_pair(slave_id, master, shared));
    sides.push_back(
        {.master = master.fd.get(), .slave = slaves.back().get(), .packet = master.packet, .who = master.who});
  }
  std::vector<PtyQueues> copies = copy_queues(sides);
  auto copy = copies.begin();
  for (const auto& [slave_id, master] : shared.masters) {
    PtyQueues& queues = master.pty->queues = std::move(*copy++);
    auto& [input, output] = shared.queues[slave_id];
    for (const std::string& line : queues.lines) input += line;
    input += queues.input;
    output = queues.output;
  }
}

// Of a session whose leader is in the tree. A terminal that nobody has open controls none (tty_release() in the
// kernel).
void conclude_session(const TreeSession& session, Terminal::Shared& shared) {
  const auto slave =
      std::ranges::find_if(shared.slaves, [&](const auto& s) { return s.second.device == session.terminal; });
  const dev_t device = decode_device(session.terminal);
  const uint32_t id = slave_info_id(identify_terminal(device).index);
  const bool inside = is_pts(device) && shared.masters.contains(id);
  if (slave == shared.slaves.end())
    throw refuse(fmt::format("session {}", session.leader),
                 inside ? "its terminal is open outside of the tree only"
                        : fmt::format("its terminal ({}:{}) is outside of the tree, and no descriptor refers to it",
                                      major(device), minor(device)))
        .remedy("dump a tree that holds master and slave of the terminal, or start the session without one (setsid)");
  if (!inside && !slave->second.external)
    throw refuse(slave->second.who,
                 "the terminal controls a session inside the tree, and its master is outside of the tree")
        .remedy("dump a tree that holds the master too, or add " + remedy_external(slave->second.key));
  for (const uint32_t side : {slave->second.info_id, master_of(slave->second.info_id)})
    if (const auto info = shared.infos.find(side); info != shared.infos.end()) {
      info->second.set_sid(static_cast<uint32_t>(session.leader));
      info->second.set_pgrp(session.foreground > 0 ? static_cast<uint32_t>(session.foreground) : 0);
    }
}

// What is left belongs to whoever started the tree. Its session cannot be asked for through a descriptor from outside
// of it (ioctl_tty(2), TIOCGSID).
void conclude_outside(const Terminal::Slave& slave, const DumpFiles& files, Terminal::Shared& shared,
                      const Terminal::Slave*& job) {
  const ProcStat stat = parse_stat(ProcDir(slave.pid).read("stat"));
  const bool controls = stat.tty_nr == slave.device;
  if (slave.by_name && !controls) return;
  if (!files.options().shell_job)
    throw refuse(slave.who, "the terminal belongs to a session outside of the tree")
        .remedy("add --shell-job: the restored tasks then use the terminal of whoever restores them; or " +
                remedy_external(slave.key));
  if (job != nullptr)
    throw refuse(slave.who, "the tree uses more than one terminal from outside, and only one can be given back")
        .remedy("let the tasks close one of them, or add " + remedy_external(slave.key));
  job = &slave;
  const auto info = shared.infos.find(slave.info_id);
  if (info == shared.infos.end() || !controls) return;
  info->second.set_sid(static_cast<uint32_t>(stat.sid));
  info->second.set_pgrp(stat.tty_pgrp > 0 ? static_cast<uint32_t>(stat.tty_pgrp) : 0);
}

// ---- restore ---------------------------------------------------------------------------------------------

// What becomes of an open file.
enum class Source { master, slave, hung_up, controlling, given, by_name, caller };

struct Origin {
  Source source = Source::caller;
  const pb::tty_info_entry* info = nullptr;  // of the terminal itself, also for /dev/tty
};

std::string what_of(const Terminal::State& state) {
  return fmt::format("terminal {} (tty-info {})", state.id, state.info_id);
}

const pb::tty_info_entry* find_info(const Terminal::Shared& shared, uint32_t id) {
  const auto at = shared.infos.find(id);
  return at == shared.infos.end() ? nullptr : &at->second;
}

bool is_inside(const Terminal::Shared& shared, const pb::tty_info_entry& info) {
  return info.type() == pb::PTY && info.has_termios() && shared.infos.contains(master_of(info.id()));
}

std::string key_of(const pb::tty_info_entry& info) {
  return external_terminal_key(info.rdev(), info.dev());
}

Origin origin_of(const Terminal::State& state, const RestoreFiles& files, const Terminal::Shared& shared) {
  const pb::tty_info_entry* info = find_info(shared, state.info_id);
  if (info == nullptr)
    throw Error(Reason::IMAGE_CORRUPT, "a terminal is not described in tty-info.img").object(what_of(state));
  if ((state.info_id & 1) != 0) return {Source::master, info};
  if (!info->has_termios() && (info->type() == pb::PTY || info->type() == pb::CTTY)) return {Source::hung_up, info};
  if (info->type() == pb::CTTY) {
    const pb::tty_info_entry* real = find_info(shared, state.stands_for);
    if (real == nullptr && state.stands_for != 0) real = find_info(shared, master_of(state.stands_for));
    if (state.stands_for == 0)
      for (const auto& [id, other] : shared.infos)
        if (other.type() != pb::CTTY && other.sid() != 0 && other.sid() == info->sid()) real = &other;
    const bool here = real != nullptr && (real->type() == pb::EXT_TTY || is_inside(shared, *real));
    return here ? Origin{Source::controlling, real} : Origin{Source::caller, info};
  }
  if (is_inside(shared, *info)) return {Source::slave, info};
  if (info->type() == pb::EXT_TTY || files.inherited(key_of(*info)) >= 0) return {Source::given, info};
  if (info->type() != pb::PTY && info->sid() == 0) return {Source::by_name, info};
  return {Source::caller, info};
}

// O_CLOEXEC stays among the flags of what was opened through a master, whoever has it by which descriptor.
int slave_flags(const Terminal::State& state) {
  return (reopen_flags(state.flags) & ~O_CLOEXEC) | static_cast<int>(state.flags & O_CLOEXEC);
}

int given_terminal(const pb::tty_info_entry& info, const RestoreFiles& files, std::string what) {
  const std::string key = key_of(info);
  const int fd = files.inherited(key);
  if (fd >= 0 && ::isatty(fd) == 1) return fd;
  const char* why = fd >= 0 ? "the descriptor that is given in place of an external terminal is none"
                            : "a terminal was left outside of the dump, and nothing is given in its place";
  throw Error(Reason::TERMINAL_MISSING, why)
      .object(std::move(what))
      .remedy(fmt::format("give an open terminal with --inherit-fd 'fd[N]:{}'", key));
}

std::string path_of(const Terminal::State& state, const RestoreFiles& files) {
  return state.node_id != 0 ? without_mark(path_file_state(files, state.node_id).path) : std::string();
}

// An own description of a terminal that the caller gave, if it can be had: a master cannot be opened twice.
Fd open_given(int given, uint32_t flags) {
  struct stat st;
  Fd fd;
  if (::fstat(given, &st) == 0 && !is_ptmx(st.st_rdev) && !is_controlling_tty(st.st_rdev))
    fd = reopen(given, reopen_flags(flags));
  return fd ? std::move(fd) : Fd(::fcntl(given, F_DUPFD_CLOEXEC, 3));
}

void plan_master(const Terminal::State& state, const Origin& origin, const RestoreFiles& files,
                 Terminal::Shared& shared) {
  const pb::tty_info_entry* slave = find_info(shared, slave_of(state.info_id));
  const uint32_t index = origin.info->pty().index();
  const auto queues = shared.queues.find(slave_of(state.info_id));
  PtyPairs::Wanted wanted{.index = index,
                          .flags = reopen_flags(state.flags),
                          .path = path_of(state, files),
                          .info = *origin.info,
                          .slave_exclusive = slave != nullptr && slave->exclusive(),
                          .pty = state.pty ? *state.pty : Pty{}};
  if (wanted.path.empty()) wanted.path = "/dev/ptmx";
  Pty& pty = wanted.pty;
  pty.lines_known = state.pty != nullptr;
  if (!pty.node_known && slave != nullptr && slave->has_uid() && slave->has_gid()) {
    pty.uid = slave->uid();
    pty.gid = slave->gid();
    pty.mode = 0620;
    pty.node_known = true;
  }
  if (queues != shared.queues.end()) {
    const std::string& input = queues->second.first;
    size_t at = 0;
    for (std::string& line : pty.queues.lines) {
      if (line.size() > input.size() - at)
        throw Error(Reason::IMAGE_CORRUPT, "a terminal has less input than its lines").object(what_of(state));
      line.assign(input, at, line.size());
      at += line.size();
    }
    pty.queues.input = input.substr(at);
    pty.queues.output = queues->second.second;
  }
  shared.pairs.want(std::move(wanted));
}

}  // namespace

bool Terminal::match(const FileView& view) {
  return S_ISCHR(view.st.st_mode) && !view.path_only() && is_terminal_device(view.st.st_rdev);
}

void Terminal::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  uint32_t device = 0;
  if (is_ptmx(view.st.st_rdev))
    dump_master(view, shared, state);
  else if (!real_device(view.fd, device))
    dump_hung_up(view, shared, state);
  else
    dump_slave(view, device, files, shared, state);
  state.node_id = files.add_path_file({.fd = view.fd,
                                       .st = view.st,
                                       .link = without_mark(view.link),
                                       .flags = view.flags,
                                       .who = view.who(),
                                       .must_exist = false});
}

void Terminal::conclude(DumpFiles& files, Shared& shared) {
  for (const TreeSession& session : files.tree_sessions)
    if (session.terminal != 0) conclude_session(session, shared);
  const Slave* job = nullptr;
  for (const auto& [id, slave] : shared.slaves)
    if (!slave.external && !shared.masters.contains(id)) conclude_outside(slave, files, shared, job);
  conclude_pairs(shared);
  // Held longer they would hide that the tasks close theirs.
  shared.masters.clear();
}

void Terminal::encode(const State& state, pb::file_entry& out) {
  pb::tty_file_entry& tty = *out.mutable_tty();
  encode_open_file(state, pb::TTY, out, tty);
  tty.set_tty_info_id(state.info_id);
  if (state.node_id != 0) tty.set_regf_id(state.node_id);
}

void Terminal::encode_extension(const State& state, pb::extension_file& out) {
  if (state.stands_for != 0) out.set_terminal(state.stands_for);
  if (!state.pty) return;
  pb::extension_pty& pty = *out.mutable_pty();
  for (const std::string& line : state.pty->queues.lines) pty.add_line_bytes(static_cast<uint32_t>(line.size()));
  if (state.pty->queues.stop != PtyQueues::Stop::none) pty.set_stop(static_cast<uint32_t>(state.pty->queues.stop));
  if (state.pty->never_opened) pty.set_never_opened(true);
  if (!state.pty->node_known) return;
  pty.set_uid(state.pty->uid);
  pty.set_gid(state.pty->gid);
  pty.set_mode(state.pty->mode);
}

void Terminal::write_images(Shared& shared, ImageStore& store) {
  ImageWriter& writer = store.writer(ImageKind::TTY_INFO);
  for (const auto& [id, info] : shared.infos) writer.write(info);
  for (const auto& [slave_id, queues] : shared.queues) {
    const auto write = [&](uint32_t id, const std::string& data) {
      if (data.empty()) return;
      pb::tty_data_entry entry;
      entry.set_tty_id(id);
      entry.set_data(data);
      store.writer(ImageKind::TTY_DATA).write(entry);
    };
    write(slave_id, queues.first);
    write(master_of(slave_id), queues.second);
  }
}

void Terminal::decode(const pb::file_entry& in, State& state) {
  const pb::tty_file_entry& tty = in.tty();
  decode_open_file(tty, state);
  state.info_id = tty.tty_info_id();
  state.node_id = tty.regf_id();
}

void Terminal::decode_extension(const pb::extension_file& in, State& state) {
  state.stands_for = in.terminal();
  if (!in.has_pty()) return;
  if (in.pty().stop() > static_cast<uint32_t>(PtyQueues::Stop::by_character) || (in.pty().mode() & ~07777u) != 0)
    throw Error(Reason::IMAGE_CORRUPT, "a pseudo terminal has an impossible state").object(what_of(state));
  state.pty = std::make_shared<Pty>();
  Pty& pty = *state.pty;
  constexpr uint32_t kLongest = 1 << 16;
  for (const uint32_t bytes : in.pty().line_bytes()) pty.queues.lines.emplace_back(std::min(bytes, kLongest), '\0');
  pty.queues.stop = static_cast<PtyQueues::Stop>(in.pty().stop());
  pty.never_opened = in.pty().never_opened();
  pty.node_known = in.pty().has_mode();
  pty.uid = in.pty().uid();
  pty.gid = in.pty().gid();
  pty.mode = in.pty().mode();
}

void Terminal::read_images(const ImageStore& store, Shared& shared) {
  if (std::optional<ImageReader> reader = store.reader(ImageKind::TTY_INFO)) {
    pb::tty_info_entry info;
    while (reader->next(info)) shared.infos.insert_or_assign(info.id(), info);
  }
  if (std::optional<ImageReader> reader = store.reader(ImageKind::TTY_DATA)) {
    pb::tty_data_entry entry;
    while (reader->next(entry)) {
      auto& [input, output] = shared.queues[slave_of(entry.tty_id())];
      ((entry.tty_id() & 1) != 0 ? output : input) += entry.data();
    }
  }
}

void Terminal::plan(const State& state, RestoreFiles& files, Shared& shared) {
  constexpr uint32_t kMostIndex = 1 << 20;  // MINORMASK of the kernel
  const Origin origin = origin_of(state, files, shared);
  const uint32_t index = origin.info->pty().index();
  if (index > kMostIndex)
    throw Error(Reason::IMAGE_CORRUPT, "a pseudo terminal has an impossible number").object(what_of(state));
  const PtyPairs::Opened opened{
      .id = state.id, .index = index, .flags = slave_flags(state), .path = path_of(state, files)};
  switch (origin.source) {
    case Source::master:
      return plan_master(state, origin, files, shared);
    case Source::slave:
      return;
    case Source::hung_up: {
      PtyPairs::Opened file = opened;
      if (origin.info->type() == pb::CTTY) file.path.clear();
      return shared.pairs.want_hung_up(std::move(file));
    }
    case Source::controlling: {
      PtyPairs::Opened file = opened;
      file.path.clear();
      const bool given = origin.info->type() == pb::EXT_TTY;
      return shared.pairs.want_controlling(std::move(file),
                                           given ? given_terminal(*origin.info, files, what_of(state)) : -1);
    }
    case Source::given:
      given_terminal(*origin.info, files, what_of(state));
      return;
    case Source::by_name:
      return;
    case Source::caller:
      break;
  }
  if (!files.options().shell_job)
    throw Error(Reason::TERMINAL_MISSING, "the saved tasks used the terminal of their caller")
        .object(what_of(state))
        .remedy(fmt::format("add --shell-job: the restored tasks then use your terminal; or give another one with "
                            "--inherit-fd 'fd[N]:{}'",
                            key_of(*origin.info)));
  if (!std::exchange(shared.terminal_checked, true)) files.require_caller_terminal();
}

std::optional<SessionTerminal> Terminal::session_terminal(pid_t session, RestoreFiles& files, Shared& shared) {
  for (const auto& [id, info] : shared.infos) {
    if (info.sid() != static_cast<uint32_t>(session)) continue;
    const bool given = info.type() == pb::EXT_TTY;
    if (!given && !is_inside(shared, info)) continue;
    shared.pairs.make();
    const int fd = given ? given_terminal(info, files, fmt::format("session {}", session))
                         : shared.pairs.slave(info.pty().index());
    return SessionTerminal{.fd = fd, .foreground = static_cast<pid_t>(info.pgrp())};
  }
  return std::nullopt;
}

Fd Terminal::create(const State& state, RestoreFiles& files, Shared& shared) {
  shared.pairs.make();
  const Origin origin = origin_of(state, files, shared);
  const uint32_t index = origin.info->pty().index();
  switch (origin.source) {
    case Source::master:
      return Fd(check(::fcntl(shared.pairs.master(index), F_DUPFD_CLOEXEC, 3), "cannot duplicate a master"));
    case Source::slave:
      return shared.pairs.open_slave(index, path_of(state, files), slave_flags(state));
    case Source::hung_up:
    case Source::controlling:
      return shared.pairs.take(state.id);
    case Source::given:
      return open_given(given_terminal(*origin.info, files, what_of(state)), state.flags);
    case Source::by_name: {
      const std::string path = path_of(state, files);
      Fd fd(::open(path.c_str(), reopen_flags(state.flags)));
      if (fd) return fd;
      throw Error(Reason::FILE_MISSING, "cannot open a terminal device").object(path).error_number(errno);
    }
    case Source::caller:
      break;
  }
  // An open of /dev/tty is told from one of the terminal by its device number; without a controlling terminal only the
  // latter can be had.
  if (origin.info->type() == pb::CTTY) {
    Fd fd(::open("/dev/tty", reopen_flags(state.flags)));
    if (fd) return fd;
  }
  return files.open_caller_terminal(state.flags);
}

void Terminal::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what_of(state));
}

void Terminal::complete(RestoreFiles&, Shared& shared) {
  shared.pairs.complete();
}

}  // namespace stasis

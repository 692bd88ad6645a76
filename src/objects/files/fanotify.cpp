#include "objects/files/fanotify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/fanotify.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "base/error.h"

namespace stasis {
namespace {

using Mark = Fanotify::Mark;

// linux/fanotify.h of 6.0 and 6.14; the C library's is older.
constexpr uint32_t kMarkIgnore = 0x400;
constexpr uint32_t kPermissionEvents = FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_OPEN_EXEC_PERM | 0x00100000;
constexpr uint32_t kKeptMarkFlags = FAN_MARK_IGNORED_SURV_MODIFY | 0x200 /* EVICTABLE */ | kMarkIgnore;

std::string fanotify_of(uint32_t id) {
  return fmt::format("fanotify (file {})", id);
}

[[noreturn]] void not_told(const FileView& view) {
  throw Error(Reason::UNSUPPORTED_FILE, "fdinfo tells of a mark of fanotify that this version does not know")
      .object(view.who())
      .remedy("let the task remove the mark before the dump");
}

Mark parse_mark(const char* line, std::string_view text, const FileView& view) {
  Mark m;
  if (std::sscanf(line, "fanotify ino:%" SCNx64 " sdev:%x mflags:%x mask:%x ignored_mask:%x", &m.target.inode,
                  &m.target.device, &m.mflags, &m.mask, &m.ignored_mask) == 5) {
    parse_handle(text, m.target);
    return m;
  }
  m.of = Mark::Of::mount;
  if (std::sscanf(line, "fanotify mnt_id:%x mflags:%x mask:%x ignored_mask:%x", &m.mount_id, &m.mflags, &m.mask,
                  &m.ignored_mask) == 4)
    return m;
  m.of = Mark::Of::filesystem;
  if (std::sscanf(line, "fanotify sdev:%x mflags:%x mask:%x ignored_mask:%x", &m.target.device, &m.mflags, &m.mask,
                  &m.ignored_mask) == 4)
    return m;
  not_told(view);
}

void parse(const std::string& fdinfo, const FileView& view, Fanotify::State& state) {
  constexpr std::string_view kLine = "\nfanotify ";
  bool has_flags = false;
  for (size_t at = fdinfo.find(kLine); at != std::string::npos; at = fdinfo.find(kLine, at + 1)) {
    const char* line = fdinfo.c_str() + at + 1;
    if (std::sscanf(line, "fanotify flags:%x event-flags:%x", &state.group_flags, &state.event_flags) == 2) {
      has_flags = true;
      continue;
    }
    const std::string_view text = std::string_view(fdinfo).substr(at + 1, fdinfo.find('\n', at + 1) - at);
    state.marks->push_back(parse_mark(line, text, view));
  }
  if (!has_flags) not_told(view);
}

void refuse_permission_events(const FileView& view, const Fanotify::State& state) {
  for (const Mark& m : *state.marks)
    if (((m.mask | m.ignored_mask) & kPermissionEvents) != 0)
      throw Error(Reason::UNSUPPORTED_FILE, "it is asked for permission to open or read files, which would wait for it")
          .object(view.who())
          .remedy("let the task remove the marks for permission events before the dump");
}

uint32_t object_flag(Mark::Of of) {
  return of == Mark::Of::inode ? FAN_MARK_INODE : of == Mark::Of::mount ? FAN_MARK_MOUNT : FAN_MARK_FILESYSTEM;
}

void add(int fd, uint32_t id, const Mark& m, uint32_t how, uint32_t mask) {
  if (mask == 0) return;
  uint32_t flags = FAN_MARK_ADD | object_flag(m.of) | how;
  if (m.of == Mark::Of::inode) flags |= FAN_MARK_DONT_FOLLOW;
  if (::fanotify_mark(fd, flags, mask, AT_FDCWD, m.target.path.c_str()) == 0) return;
  throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot mark {} again (mask {:#x})", m.target.path, mask))
      .object(fanotify_of(id))
      .error_number(errno);
}

void add_mark(int fd, uint32_t id, const Mark& m) {
  const uint32_t kept = m.mflags & kKeptMarkFlags;
  add(fd, id, m, kept & ~static_cast<uint32_t>(FAN_MARK_IGNORED_SURV_MODIFY | kMarkIgnore), m.mask);
  const uint32_t ignores = (kept & kMarkIgnore) != 0 ? 0 : FAN_MARK_IGNORED_MASK;
  add(fd, id, m, kept | ignores, m.ignored_mask);
}

std::string decode_path(const std::string& path, uint32_t id) {
  if (path.find('\0') == std::string::npos && (path.empty() || path.starts_with('/'))) return path;
  throw Error(Reason::IMAGE_CORRUPT, "it has marked something that is no path").object(fanotify_of(id));
}

}  // namespace

bool Fanotify::match(const FileView& view) {
  return view.link == "anon_inode:[fanotify]";
}

void Fanotify::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  parse(own_fdinfo(view.fd), view, state);
  refuse_permission_events(view, state);
  look_for_unread_events(view, files);
  shared.seen.push_back({state.marks, view.who()});
}

void Fanotify::conclude(DumpFiles& files, Shared& shared) {
  if (shared.seen.empty()) return;
  const WatchedPaths paths;
  for (Seen& seen : shared.seen) {
    std::vector<WatchedInode*> inodes;
    for (Mark& m : *seen.marks) {
      if (m.of == Mark::Of::inode) inodes.push_back(&m.target);
      if (m.of == Mark::Of::mount) m.target.path = paths.mount_of_id(static_cast<int>(m.mount_id));
      if (m.of == Mark::Of::filesystem) m.target.path = paths.mount_of_device(m.target.device);
      if (m.of != Mark::Of::inode && m.target.path.empty())
        throw Error(Reason::UNSUPPORTED_FILE, "it has marked a mount or file system that is not mounted here any more")
            .object(seen.who)
            .remedy("let the task remove the mark before the dump");
    }
    find_targets(inodes, paths, files, seen.who, [&](size_t, uint32_t) {
      throw Error(Reason::UNSUPPORTED_FILE, "it has marked a file that was deleted")
          .object(seen.who)
          .remedy("let the task remove the mark before the dump");
    });
  }
}

void Fanotify::encode(const State& state, pb::file_entry& out) {
  pb::fanotify_file_entry& group = *out.mutable_ffy();
  encode_open_file(state, type, out, group);
  group.set_faflags(state.group_flags);
  group.set_evflags(state.event_flags);
  for (const Mark& m : *state.marks) {
    if (m.of == Mark::Of::filesystem) continue;
    pb::fanotify_mark_entry& entry = *group.add_mark();
    entry.set_id(state.id);
    entry.set_type(m.of == Mark::Of::inode ? pb::INODE : pb::MOUNT);
    entry.set_mflags(m.mflags);
    entry.set_mask(m.mask);
    entry.set_ignored_mask(m.ignored_mask);
    entry.set_s_dev(m.target.device);
    if (m.of == Mark::Of::inode) {
      entry.mutable_ie()->set_i_ino(m.target.inode);
      encode_handle(m.target, *entry.mutable_ie()->mutable_f_handle());
    } else {
      entry.mutable_me()->set_mnt_id(m.mount_id);
      entry.mutable_me()->set_path(m.target.path);
    }
  }
}

void Fanotify::encode_extension(const State& state, pb::extension_file& out) {
  for (const Mark& m : *state.marks) {
    if (m.of != Mark::Of::filesystem) continue;
    pb::extension_mark& entry = *out.add_filesystem_marks();
    entry.set_path(m.target.path);
    entry.set_mflags(m.mflags);
    entry.set_mask(m.mask);
    entry.set_ignored_mask(m.ignored_mask);
  }
}

void Fanotify::decode(const pb::file_entry& in, State& state) {
  const pb::fanotify_file_entry& group = in.ffy();
  decode_open_file(group, state);
  state.group_flags = group.faflags();
  state.event_flags = group.evflags();
  for (const pb::fanotify_mark_entry& entry : group.mark()) {
    Mark& m = state.marks->emplace_back();
    m.of = entry.type() == pb::INODE ? Mark::Of::inode : Mark::Of::mount;
    m.mflags = entry.mflags();
    m.mask = entry.mask();
    m.ignored_mask = entry.ignored_mask();
    m.target.device = entry.s_dev();
    if (m.of == Mark::Of::inode) {
      m.target.inode = entry.ie().i_ino();
      decode_handle(entry.ie().f_handle(), m.target);
    } else {
      m.mount_id = entry.me().mnt_id();
      m.target.path = decode_path(entry.me().path(), state.id);
    }
    if (((m.mask | m.ignored_mask) & kPermissionEvents) != 0)
      throw Error(Reason::IMAGE_UNSUPPORTED, "the images hold marks of fanotify for permission events")
          .object(fanotify_of(state.id));
  }
}

void Fanotify::decode_extension(const pb::extension_file& in, State& state) {
  for (const pb::extension_mark& entry : in.filesystem_marks()) {
    Mark& m = state.marks->emplace_back();
    m.of = Mark::Of::filesystem;
    m.mflags = entry.mflags();
    m.mask = entry.mask();
    m.ignored_mask = entry.ignored_mask();
    m.target.path = decode_path(entry.path(), state.id);
  }
}

void Fanotify::plan(const State& state, RestoreFiles&, Shared&) {
  std::vector<WatchedInode*> without_path;
  for (Mark& m : *state.marks)
    if (m.of == Mark::Of::inode && m.target.path.empty()) without_path.push_back(&m.target);
  if (!without_path.empty()) WatchedPaths().resolve(without_path);
  for (const Mark& m : *state.marks) require_path(m.target, fanotify_of(state.id));
}

Fd Fanotify::create(const State& state, RestoreFiles&, Shared&) {
  // FAN_CLOEXEC is shown as a flag of the group.
  Fd fd(::fanotify_init(state.group_flags, state.event_flags));
  if (!fd || ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED,
                fmt::format("cannot make a fanotify group (flags {:#x})", state.group_flags))
        .object(fanotify_of(state.id))
        .error_number(errno)
        .remedy("raise fs.fanotify.max_user_groups, or use a kernel with what the group of the dump used");
  restore_status_flags(fd.get(), state.flags, fanotify_of(state.id));
  return fd;
}

void Fanotify::finish(const State& state, int fd, RestoreFiles& files, Shared& shared) {
  restore_file_owner(state.owner, fd, files, fanotify_of(state.id));
  shared.to_mark.push_back({state.id, state.marks});
}

void Fanotify::complete(RestoreFiles& files, Shared& shared) {
  for (const ToMark& group : shared.to_mark)
    for (const Mark& m : *group.marks) add_mark(files.fd_of(group.id), group.id, m);
}

}  // namespace stasis

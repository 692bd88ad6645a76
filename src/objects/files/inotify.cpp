#include "objects/files/inotify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "base/error.h"
#include "kernel/uapi.h"

namespace stasis {
namespace {

std::string inotify_of(uint32_t id) {
  return fmt::format("inotify (file {})", id);
}

void parse(const std::string& fdinfo, const FileView& view, Inotify::Watches& out) {
  constexpr std::string_view kLine = "\ninotify ";
  for (size_t at = fdinfo.find(kLine); at != std::string::npos; at = fdinfo.find(kLine, at + 1)) {
    Inotify::Watch w;
    if (std::sscanf(fdinfo.c_str() + at, "\ninotify wd:%x ino:%" SCNx64 " sdev:%x mask:%x", &w.wd, &w.target.inode,
                    &w.target.device, &w.mask) != 4)
      throw Error(Reason::PROC_TEXT, "fdinfo does not tell what an inotify descriptor watches").object(view.who());
    parse_handle(std::string_view(fdinfo).substr(at + 1, fdinfo.find('\n', at + 1) - at), w.target);
    out.push_back(std::move(w));
  }
}

Error cannot_watch(uint32_t id, const Inotify::Watch& w, int error_number) {
  return Error(Reason::RESTORE_CALL_FAILED,
               fmt::format("cannot watch {} again (watch descriptor {})",
                           w.file != 0 ? fmt::format("file {}", w.file) : w.target.path, w.wd))
      .object(inotify_of(id))
      .error_number(error_number);
}

void add_watch(int fd, uint32_t id, const Inotify::Watch& w, const RestoreFiles& files) {
  // Any bit will do for a mask that has none of its own; the path is final (readlink(2) of /proc/PID/fd).
  const uint32_t mask = w.mask | IN_DONT_FOLLOW;
  if (::ioctl(fd, uapi::inotify_ioc_setnextwd, w.wd) < 0) throw cannot_watch(id, w, errno);
  const int open_file = w.file == 0 ? -1 : files.fd_of(w.file);
  if (w.file != 0 && open_file < 0)
    throw Error(Reason::IMAGE_CORRUPT, fmt::format("it watches file {}, which is not in the images", w.file))
        .object(inotify_of(id));
  const int wd = w.file == 0 ? ::inotify_add_watch(fd, w.target.path.c_str(), mask)
                             : ::inotify_add_watch(fd, fmt::format("/proc/self/fd/{}", open_file).c_str(), w.mask);
  if (wd != static_cast<int>(w.wd)) throw cannot_watch(id, w, wd < 0 ? errno : 0);
}

}  // namespace

bool Inotify::match(const FileView& view) {
  return view.link == "anon_inode:inotify";
}

void Inotify::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  look_for_unread_events(view, files);
  parse(own_fdinfo(view.fd), view, *state.watches);
  std::ranges::sort(*state.watches, {}, &Watch::wd);
  shared.seen.push_back({state.watches, view.who()});
}

void Inotify::conclude(DumpFiles& files, Shared& shared) {
  if (shared.seen.empty()) return;
  const WatchedPaths paths;
  for (Seen& seen : shared.seen) {
    std::vector<WatchedInode*> targets;
    for (Watch& w : *seen.watches) targets.push_back(&w.target);
    find_targets(targets, paths, files, seen.who, [&](size_t i, uint32_t file) { (*seen.watches)[i].file = file; });
  }
}

void Inotify::encode(const State& state, pb::file_entry& out) {
  pb::inotify_file_entry& inotify = *out.mutable_ify();
  encode_open_file(state, type, out, inotify);
  for (const Watch& w : *state.watches) {
    pb::inotify_wd_entry& entry = *inotify.add_wd();
    entry.set_id(state.id);
    entry.set_i_ino(w.target.inode);
    entry.set_mask(w.mask);
    entry.set_ignored_mask(0);
    entry.set_s_dev(w.target.device);
    entry.set_wd(w.wd);
    encode_handle(w.target, *entry.mutable_f_handle());
  }
}

void Inotify::encode_extension(const State& state, pb::extension_file& out) {
  for (const Watch& w : *state.watches) {
    if (w.file == 0) continue;
    pb::extension_watch& entry = *out.add_watches();
    entry.set_wd(w.wd);
    entry.set_file(w.file);
  }
}

void Inotify::decode(const pb::file_entry& in, State& state) {
  const pb::inotify_file_entry& inotify = in.ify();
  decode_open_file(inotify, state);
  for (const pb::inotify_wd_entry& entry : inotify.wd()) {
    Watch& w = state.watches->emplace_back();
    w.wd = entry.wd();
    w.mask = entry.mask();
    w.target.inode = entry.i_ino();
    w.target.device = entry.s_dev();
    decode_handle(entry.f_handle(), w.target);
  }
  std::ranges::sort(*state.watches, {}, &Watch::wd);
  const bool twice = std::ranges::adjacent_find(*state.watches, {}, &Watch::wd) != state.watches->end();
  if (twice || (!state.watches->empty() && (state.watches->front().wd == 0 || state.watches->back().wd > INT32_MAX)))
    throw Error(Reason::IMAGE_CORRUPT, "it has impossible watch descriptors").object(inotify_of(state.id));
}

void Inotify::decode_extension(const pb::extension_file& in, State& state) {
  for (const pb::extension_watch& entry : in.watches()) {
    const auto at = std::ranges::find(*state.watches, entry.wd(), &Watch::wd);
    if (at == state.watches->end())
      throw Error(Reason::IMAGE_CORRUPT, fmt::format("it has no watch descriptor {}", entry.wd()))
          .object(inotify_of(state.id));
    at->file = entry.file();
  }
}

void Inotify::plan(const State& state, RestoreFiles&, Shared&) {
  std::vector<WatchedInode*> without_path;
  for (Watch& w : *state.watches)
    if (w.file == 0 && w.target.path.empty()) without_path.push_back(&w.target);
  if (!without_path.empty()) WatchedPaths().resolve(without_path);
  for (const Watch& w : *state.watches)
    if (w.file == 0) require_path(w.target, fmt::format("inode {}", w.target.inode));
}

Fd Inotify::create(const State& state, RestoreFiles&, Shared&) {
  Fd fd(::inotify_init1(IN_CLOEXEC));
  if (!fd)
    throw Error(Reason::RESTORE_CALL_FAILED, "cannot make an inotify descriptor")
        .object(inotify_of(state.id))
        .error_number(errno)
        .remedy("raise fs.inotify.max_user_instances");
  restore_status_flags(fd.get(), state.flags, inotify_of(state.id));
  return fd;
}

void Inotify::finish(const State& state, int fd, RestoreFiles& files, Shared& shared) {
  restore_file_owner(state.owner, fd, files, inotify_of(state.id));
  shared.to_watch.push_back({state.id, state.watches});
}

void Inotify::complete(RestoreFiles& files, Shared& shared) {
  for (const ToWatch& instance : shared.to_watch)
    for (const Watch& w : *instance.watches) add_watch(files.fd_of(instance.id), instance.id, w, files);
}

}  // namespace stasis

#include "objects/files/signalfd.h"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "proto/signalfd.pb.h"

namespace stasis {
namespace {

std::string what(const SignalFd::State& state) {
  return fmt::format("signalfd (file {})", state.id);
}

}  // namespace

bool SignalFd::match(const FileView& view) {
  return view.link == "anon_inode:[signalfd]";
}

void SignalFd::dump(const FileView& view, DumpFiles& files, Shared&, State& state) {
  dump_open_file(view, files, state);
  const auto signals = fdinfo_number(own_fdinfo(view.fd), "sigmask", 16);
  if (!signals) throw Error(Reason::SYSTEM, "fdinfo does not tell the signals of a signalfd").object(view.who());
  state.signals = *signals;
}

void SignalFd::encode(const State& state, pb::file_entry& out) {
  pb::signalfd_entry& sfd = *out.mutable_sgfd();
  encode_open_file(state, type, out, sfd);
  sfd.set_sigmask(state.signals);
}

void SignalFd::decode(const pb::file_entry& in, State& state) {
  const pb::signalfd_entry& sfd = in.sgfd();
  decode_open_file(sfd, state);
  state.signals = sfd.sigmask();
}

Fd SignalFd::create(const State& state, RestoreFiles&, Shared&) {
  // The library's call takes a set of its own size.
  const long fd = ::syscall(SYS_signalfd4, -1, &state.signals, sizeof state.signals, SFD_CLOEXEC);
  Fd made(check(static_cast<int>(fd), "cannot make a signalfd", Reason::RESTORE_CALL_FAILED));
  restore_status_flags(made.get(), state.flags, what(state));
  return made;
}

void SignalFd::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what(state));
}

}  // namespace stasis

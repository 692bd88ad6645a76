#include "objects/files/eventfd.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "proto/eventfd.pb.h"

namespace stasis {
namespace {

std::string what(const EventFd::State& state) {
  return fmt::format("eventfd (file {})", state.id);
}

}  // namespace

bool EventFd::try_semaphore(int fd, uint64_t counter) {
  const auto add = [&](uint64_t n) { check(::eventfd_write(fd, n), "cannot write to an eventfd"); };
  // With two in it a read tells, and does not block.
  const uint64_t lent = counter >= 2 ? 0 : 2 - counter;
  if (lent != 0) add(lent);
  eventfd_t got = 0;
  check(::eventfd_read(fd, &got), "cannot read an eventfd");
  const bool semaphore = got == 1;
  const uint64_t present = counter + lent - got;
  if (present < counter) add(counter - present);
  if (present > counter) check(::eventfd_read(fd, &got), "cannot read an eventfd");
  return semaphore;
}

bool EventFd::match(const FileView& view) {
  return view.link == "anon_inode:[eventfd]";
}

void EventFd::dump(const FileView& view, DumpFiles& files, Shared&, State& state) {
  dump_open_file(view, files, state);
  const std::string info = own_fdinfo(view.fd);
  const auto counter = fdinfo_number(info, "eventfd-count", 16);
  if (!counter) throw view.failed("fdinfo does not tell the counter of an eventfd", 0);
  state.counter = *counter;
  const auto semaphore = fdinfo_number(info, "eventfd-semaphore");
  state.semaphore = semaphore ? *semaphore != 0 : try_semaphore(view.fd, state.counter);
}

void EventFd::encode(const State& state, pb::file_entry& out) {
  pb::eventfd_file_entry& efd = *out.mutable_efd();
  encode_open_file(state, type, out, efd);
  efd.set_counter(state.counter);
}

void EventFd::decode(const pb::file_entry& in, State& state) {
  const pb::eventfd_file_entry& efd = in.efd();
  decode_open_file(efd, state);
  state.counter = efd.counter();
  if (state.counter == UINT64_MAX) throw Error(Reason::IMAGE_CORRUPT, "the counter of an eventfd is too large");
}

void EventFd::encode_extension(const State& state, pb::extension_file& out) {
  if (state.semaphore) out.set_eventfd_semaphore(true);
}

void EventFd::decode_extension(const pb::extension_file& in, State& state) {
  state.semaphore = in.eventfd_semaphore();
}

Fd EventFd::create(const State& state, RestoreFiles&, Shared&) {
  Fd fd(check(::eventfd(0, EFD_CLOEXEC | (state.semaphore ? EFD_SEMAPHORE : 0)), "cannot make an eventfd",
              Reason::RESTORE_CALL_FAILED));
  if (state.counter != 0)
    check(::eventfd_write(fd.get(), state.counter), "cannot set the counter of an eventfd",
          Reason::RESTORE_CALL_FAILED);
  restore_status_flags(fd.get(), state.flags, what(state));
  return fd;
}

void EventFd::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what(state));
}

}  // namespace stasis

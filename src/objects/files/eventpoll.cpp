#include "objects/files/eventpoll.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <map>
#include <thread>

#include "base/error.h"
#include "proto/eventpoll.pb.h"

namespace stasis {
namespace {

std::string epoll_of(uint32_t id) {
  return fmt::format("epoll (file {})", id);
}

std::vector<EventPoll::Registration> parse(const std::string& fdinfo, const FileView& view) {
  std::vector<EventPoll::Registration> out;
  for (size_t at = fdinfo.find("\ntfd:"); at != std::string::npos; at = fdinfo.find("\ntfd:", at + 1)) {
    EventPoll::Registration r;
    if (std::sscanf(fdinfo.c_str() + at,
                    "\ntfd: %d events: %x data: %" SCNx64 " pos:%" SCNu64 " ino:%" SCNx64 " sdev:%x", &r.number,
                    &r.events, &r.data, &r.position, &r.inode, &r.device) != 6)
      throw Error(Reason::SYSTEM, "fdinfo does not tell what an epoll descriptor watches").object(view.who());
    out.push_back(r);
  }
  return out;
}

// Registers files under numbers that are taken in this program: in a thread with a table of its own.
class OtherTable {
 public:
  // All files leave the numbers that registrations need, before the first is made.
  OtherTable(const RestoreFiles& files, std::span<const EventPoll::ToRegister> all) {
    int highest = 2;
    for (const EventPoll::ToRegister& r : all) highest = std::max(highest, r.what.number);
    for (const EventPoll::ToRegister& r : all)
      for (const uint32_t id : {r.id, r.what.target}) {
        const auto [at, fresh] = moved_.try_emplace(id, -1);
        if (!fresh) continue;
        at->second = ::fcntl(files.fd_of(id), F_DUPFD_CLOEXEC, highest + 1);
        if (at->second < 0) throw_errno("cannot duplicate a descriptor", Reason::RESTORE_CALL_FAILED);
      }
  }

  void add(const EventPoll::ToRegister& r) {
    const int poll = moved_.at(r.id), target = moved_.at(r.what.target);
    epoll_event event{.events = r.what.events, .data = {.u64 = r.what.data}};
    if (::dup3(target, r.what.number, O_CLOEXEC) < 0 || ::epoll_ctl(poll, EPOLL_CTL_ADD, r.what.number, &event) != 0)
      throw Error(Reason::RESTORE_CALL_FAILED,
                  fmt::format("cannot watch file {} under the number {}", r.what.target, r.what.number))
          .object(epoll_of(r.id))
          .error_number(errno)
          .remedy(errno == ENOSPC ? "raise /proc/sys/fs/epoll/max_user_watches" : "");
  }

 private:
  std::map<uint32_t, int> moved_;  // closed with the table
};

}  // namespace

bool EventPoll::match(const FileView& view) {
  return view.link == "anon_inode:[eventpoll]";
}

void EventPoll::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  *state.watched = parse(own_fdinfo(view.fd), view);
  shared.seen.push_back({state.watched, view.pid, view.number, view.who()});
}

void EventPoll::conclude(DumpFiles& files, Shared& shared) {
  for (Seen& seen : shared.seen) {
    std::map<int, uint32_t> same_number;
    for (Registration& r : *seen.watched) {
      const auto target = files.watched_file({.pid = seen.pid,
                                              .poll_number = seen.number,
                                              .number = r.number,
                                              .offset = same_number[r.number]++,
                                              .inode = r.inode});
      if (!target)
        throw Error(Reason::UNSUPPORTED_FILE,
                    fmt::format("it watches a file, registered as number {}, that no descriptor of the tree refers to "
                                "any more",
                                r.number))
            .object(seen.who)
            .remedy("let the program remove what it watches before it closes it, or dump a tree that holds it");
      r.target = target->id;
      r.is_signalfd = target->type == pb::SIGNALFD;
      if (r.is_signalfd && !target->at_its_number)
        throw Error(Reason::UNSUPPORTED_FILE,
                    fmt::format("it watches a signalfd that is not number {} any more", r.number))
            .object(seen.who)
            .remedy("let the program keep the descriptor that it registered");
    }
  }
}

void EventPoll::encode(const State& state, pb::file_entry& out) {
  pb::eventpoll_file_entry& epoll = *out.mutable_epfd();
  encode_open_file(state, type, out, epoll);
  for (const Registration& r : *state.watched) {
    pb::eventpoll_tfd_entry& entry = *epoll.add_tfd();
    entry.set_id(state.id);
    entry.set_tfd(static_cast<uint32_t>(r.number));
    entry.set_events(r.events);
    entry.set_data(r.data);
    entry.set_dev(r.device);
    entry.set_inode(r.inode);
    entry.set_pos(r.position);
  }
}

void EventPoll::decode(const pb::file_entry& in, State& state) {
  const pb::eventpoll_file_entry& epoll = in.epfd();
  decode_open_file(epoll, state);
  for (const pb::eventpoll_tfd_entry& entry : epoll.tfd()) {
    if (entry.tfd() > INT32_MAX / 2) throw Error(Reason::IMAGE_CORRUPT, "an epoll descriptor watches no number");
    state.watched->push_back({.number = static_cast<int>(entry.tfd()),
                              .events = entry.events(),
                              .data = entry.data(),
                              .inode = entry.inode(),
                              .position = entry.pos(),
                              .device = entry.dev()});
  }
}

void EventPoll::encode_extension(const State& state, pb::extension_file& out) {
  for (const Registration& r : *state.watched) out.add_epoll_targets(r.target);
}

void EventPoll::decode_extension(const pb::extension_file& in, State& state) {
  if (static_cast<size_t>(in.epoll_targets_size()) != state.watched->size())
    throw Error(Reason::IMAGE_CORRUPT, "an epoll descriptor and its targets are not of the same number");
  for (size_t i = 0; i < state.watched->size(); ++i) (*state.watched)[i].target = in.epoll_targets(static_cast<int>(i));
}

Fd EventPoll::create(const State& state, RestoreFiles&, Shared&) {
  Fd fd(check(::epoll_create1(EPOLL_CLOEXEC), "cannot make an epoll descriptor", Reason::RESTORE_CALL_FAILED));
  restore_status_flags(fd.get(), state.flags, epoll_of(state.id));
  return fd;
}

void EventPoll::finish(const State& state, int fd, RestoreFiles& files, Shared& shared) {
  restore_file_owner(state.owner, fd, files, epoll_of(state.id));
  for (Registration r : *state.watched) {
    if (r.target == 0) r.target = files.file_beside(state.id, r.number);
    if (r.target == 0 || files.fd_of(r.target) < 0)
      throw Error(Reason::IMAGE_CORRUPT, fmt::format("what it watches as number {} is not in the images", r.number))
          .object(epoll_of(state.id));
    (files.type_of(r.target) == pb::SIGNALFD ? shared.in_a_task : shared.here).push_back({state.id, r});
  }
}

void EventPoll::complete(RestoreFiles& files, Shared& shared) {
  if (shared.here.empty()) return;
  std::exception_ptr failure;
  std::thread thread([&] {
    try {
      check(::unshare(CLONE_FILES), "cannot make a descriptor table", Reason::RESTORE_CALL_FAILED);
      OtherTable table(files, shared.here);
      for (const ToRegister& r : shared.here) table.add(r);
    } catch (...) {
      failure = std::current_exception();
    }
  });
  thread.join();
  if (failure) std::rethrow_exception(failure);
}

void EventPoll::call(std::span<const DescriptorSlot> table, SyscallBatch& batch, Shared& shared) {
  std::erase_if(shared.in_a_task, [&](const ToRegister& r) {
    const auto poll = std::ranges::find(table, r.id, &DescriptorSlot::id);
    const auto target = std::ranges::find(table, r.what.number, &DescriptorSlot::number);
    if (poll == table.end() || target == table.end() || target->id != r.what.target) return false;
    const epoll_event event{.events = r.what.events, .data = {.u64 = r.what.data}};
    batch.must(SYS_epoll_ctl, {poll->number, EPOLL_CTL_ADD, target->number, batch.object(event)});
    return true;
  });
}

}  // namespace stasis

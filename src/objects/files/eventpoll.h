// epoll(7): what it watches, for which events, with which data.
//
// A registration belongs to an open file and to the number by which the file was registered; both stay when the number
// is closed or used for something else. The kernel tells the number (fdinfo), and whether it is the file behind a
// given descriptor (kcmp(2), KCMP_EPOLL_TFD). At the restore this program registers each file under the number of old,
// in a descriptor table of its own. But whoever watches a signalfd sees its own signals: such a registration is made
// by the first task that has both descriptors.
//
// Not told by the kernel: which edges were reported already (after a restore each file that is ready is reported once
// more), and a registration that waits to be armed again (EPOLLONESHOT) sees errors and hang-ups, which it did not.
#pragma once

#include <memory>
#include <vector>

#include "objects/files/file_kind.h"

namespace stasis {

struct EventPoll {
  static constexpr std::string_view name = "epoll";
  static constexpr pb::fd_types type = pb::EVENTPOLL;

  struct Registration {
    int number = -1;
    uint32_t events = 0;
    uint64_t data = 0;
    uint64_t inode = 0, position = 0;
    uint32_t device = 0;
    uint32_t target = 0;       // id of the open file; 0: of another program's dump, found by its number
    bool is_signalfd = false;  // dump

    bool operator==(const Registration&) const = default;
  };
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    std::shared_ptr<std::vector<Registration>> watched = std::make_shared<std::vector<Registration>>();
  };
  struct Seen {
    std::shared_ptr<std::vector<Registration>> watched;
    pid_t pid;
    int number;
    std::string who;
  };
  struct ToRegister {
    uint32_t id;
    Registration what;
  };
  struct Shared {
    std::vector<Seen> seen;        // dump
    std::vector<ToRegister> here;  // restore: by this program
    std::vector<ToRegister> in_a_task;
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void conclude(DumpFiles& files, Shared& shared);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles& files, Shared& shared);
  static void call(std::span<const DescriptorSlot> table, SyscallBatch& batch, Shared& shared);
};

}  // namespace stasis

// Probes: descriptors and mounts.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "kernel/probe_list.h"
#include "kernel/probe_support.h"
#include "kernel/proc.h"
#include "kernel/uapi.h"

namespace stasis::probes {
namespace {

FdInfo own_fdinfo(ProcDir& self, int fd) {
  return parse_fdinfo(self.read(fmt::format("fdinfo/{}", fd).c_str()));
}

// The directory over which probes mount, inside their own mount namespace: it exists everywhere.
constexpr const char* kScratch = "/tmp";

}  // namespace

FeatureResult mnt_id() {
  ProcDir self(::getpid());
  return own_fdinfo(self, self.fd()).mnt_id >= 0 ? supported() : missing("fdinfo has no line mnt_id");
}

FeatureResult fdinfo_lock() {
  const Fd file(::memfd_create("probe", MFD_CLOEXEC));
  if (::flock(file.get(), LOCK_EX) < 0) return by_errno(-1, "cannot lock a file");
  ProcDir self(::getpid());
  return own_fdinfo(self, file.get()).locks.size() == 1 ? supported() : missing("fdinfo does not show locks");
}

FeatureResult timerfd() {
  const Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return by_errno(-1, "cannot make a timerfd");
  ProcDir self(::getpid());
  if (!own_fdinfo(self, timer.get()).number("clockid")) return missing("fdinfo does not show timers");
  const uint64_t ticks = 3;
  if (::ioctl(timer.get(), uapi::tfd_ioc_set_ticks, &ticks) < 0)
    return by_errno(-1, "the count of expirations cannot be set");
  uint64_t read_back = 0;
  if (::read(timer.get(), &read_back, sizeof read_back) != sizeof read_back || read_back != ticks)
    return missing("the count of expirations is not kept");
  return supported();
}

FeatureResult openat2() {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const Fd root(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how)));
  return by_errno(root.get(), "the kernel has no openat2");
}

// With a bad descriptor the call fails in any case: EBADF after the flags were accepted, EINVAL before.
FeatureResult move_mount_set_group() {
  const long result = ::syscall(SYS_move_mount, -1, "x", -1, "x", uapi::move_mount_set_group);
  return by_result(result < 0 && errno != EBADF ? -errno : 0, "move_mount cannot set propagation groups",
                   "CAP_SYS_ADMIN");
}

FeatureResult autofs() {
  return in_child([] {
    FeatureResult entered = enter_private_mounts();
    if (!entered.supported) return entered;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) return by_errno(-1, "cannot make a pipe");
    const std::string options = fmt::format("fd={},pgrp={},minproto=5,maxproto=5,direct", ends[1], ::getpgrp());
    if (::mount("probe", kScratch, "autofs", 0, options.c_str()) < 0)
      return by_errno(-1, "autofs cannot be mounted", "CAP_SYS_ADMIN");
    ProcDir self(::getpid());
    const std::string text(self.read("mountinfo"));
    ::umount2(kScratch, MNT_DETACH);
    for (const MountInfo& mount : parse_mountinfo(text))
      if (mount.fs_type == "autofs" && mount.source == "probe" &&
          mount.super_options.find("pipe_ino=") != std::string::npos)
        return supported();
    return missing("mountinfo does not tell the pipe of autofs");
  });
}

namespace {

FeatureResult make_overlay() {
  if (::mount("probe", kScratch, "tmpfs", 0, "size=1m") < 0) return by_errno(-1, "tmpfs cannot be mounted");
  const std::string base = kScratch;
  for (const char* name : {"/lower", "/upper", "/work", "/merged"}) ::mkdir((base + name).c_str(), 0700);
  const Fd file(::open((base + "/lower/file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (!file || ::ftruncate(file.get(), 4096) < 0) return by_errno(-1, "cannot make a file");
  const std::string options = fmt::format("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", kScratch);
  return by_errno(::mount("probe", (base + "/merged").c_str(), "overlay", 0, options.c_str()),
                  "overlayfs cannot be mounted", "CAP_SYS_ADMIN");
}

}  // namespace

// Before 6.5 a mapping of a file on overlayfs showed the file of the layer below: a path that leads elsewhere.
FeatureResult overlayfs_maps() {
  return in_child([] {
    FeatureResult ready = enter_private_mounts();
    if (ready.supported) ready = make_overlay();
    if (!ready.supported) return ready;
    const std::string path = std::string(kScratch) + "/merged/file";
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    void* area = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, file.get(), 0);
    struct stat st {};
    if (!file || area == MAP_FAILED || ::fstat(file.get(), &st) < 0) return by_errno(-1, "cannot map a file");
    ProcDir self(::getpid());
    const auto maps = parse_maps(self.read("maps"));
    const auto found = std::ranges::find(maps, reinterpret_cast<uint64_t>(area), &Mapping::start);
    if (found == maps.end()) return missing("the mapping is not listed");
    const bool same = found->name == path && found->dev_major == major(st.st_dev) &&
                      found->dev_minor == minor(st.st_dev) && found->inode == st.st_ino;
    return same ? supported() : missing(fmt::format("a mapping of {} shows as {}", path, found->name));
  });
}

}  // namespace stasis::probes

// Text of /proc/PID/mountinfo and /proc/PID/cgroup.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stasis {

// Octal escapes are undone in every name.
struct MountInfo {
  int id = 0;
  int parent_id = 0;
  uint32_t dev_major = 0, dev_minor = 0;
  std::string root;
  std::string mount_point;
  std::string options;  // of the mount: "rw,nosuid"
  int shared = 0;       // peer group, 0: none
  int master = 0;
  int propagate_from = 0;
  bool unbindable = false;
  std::string fs_type;  // with subtype: "fuse.sshfs"
  std::string source;
  std::string super_options;
};

MountInfo parse_mountinfo_line(std::string_view line);
std::vector<MountInfo> parse_mountinfo(std::string_view text);

struct CgroupMembership {
  int hierarchy = 0;        // 0: the unified (v2) tree
  std::string controllers;  // "cpu,cpuacct", "name=systemd", or empty for v2
  std::string path;
  bool deleted = false;  // " (deleted)" was cut: the group was removed under the task
};

std::vector<CgroupMembership> parse_cgroup(std::string_view text);

// Replaces \ooo by the byte.
std::string unescape_octal(std::string_view text);

}  // namespace stasis

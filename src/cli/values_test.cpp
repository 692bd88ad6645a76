#include "cli/values.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace stasis::cli {
namespace {

void expect_refused(const std::function<void()>& what, const std::string& name) {
  try {
    what();
    ADD_FAILURE() << "accepted: " << name;
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::BAD_OPTION) << name;
  }
}

TEST(Values, Numbers) {
  EXPECT_EQ(parse_number("0", 0, 10), 0u);
  EXPECT_EQ(parse_number("10", 0, 10), 10u);
  for (const char* bad : {"", "-1", "+1", "1x", " 1", "0x10", "11", "99999999999999999999"}) {
    expect_refused([&] { parse_number(bad, 0, 10); }, bad);
  }
}

TEST(Values, Sizes) {
  EXPECT_EQ(parse_size_bytes("512"), 512u);
  EXPECT_EQ(parse_size_bytes("3K"), 3u << 10);
  EXPECT_EQ(parse_size_bytes("4M"), 4u << 20);
  EXPECT_EQ(parse_size_bytes("5G"), uint64_t{5} << 30);
  EXPECT_EQ(parse_size_bytes("5g"), uint64_t{5} << 30);
  EXPECT_EQ(parse_size_bytes("17179869183G"), uint64_t{17179869183} << 30);
  for (const char* bad : {"", "K", "1T", "1KK", "1.5M", "17179869184G"}) {
    expect_refused([&] { parse_size_bytes(bad); }, bad);
  }
}

TEST(Values, Verbosity) {
  EXPECT_EQ(parse_verbosity(nullptr, 2), 3);
  EXPECT_EQ(parse_verbosity("4", 2), 4);
  EXPECT_EQ(parse_verbosity("0", 2), 0);
  EXPECT_EQ(parse_verbosity("v", 2), 4);
  EXPECT_EQ(parse_verbosity("vv", 2), 5);
  // -verbosity and -verbosity=0, as getopt_long hands them over.
  EXPECT_EQ(parse_verbosity("erbosity", 2), 3);
  EXPECT_EQ(parse_verbosity("erbosity=0", 2), 0);
  for (const char* bad : {"x", "4x", "-1", "erbosity=", "erbosity=x", "erbose", "vvx"}) {
    expect_refused([&] { parse_verbosity(bad, 2); }, bad);
  }
}

TEST(Values, CpuLists) {
  struct Case {
    const char* text;
    CpuChecks want;
  };
  const Case cases[] = {
      {nullptr, {.fpu = true, .cpu = true, .ins = true, .image = true}},
      {"all", {.fpu = true, .cpu = true, .ins = true, .image = true}},
      {"none", {.fpu = false, .cpu = false, .ins = false, .image = false}},
      {"cpu", {.fpu = true, .cpu = true, .ins = true, .image = true}},
      {"^fpu", {.fpu = false, .cpu = false, .ins = true, .image = true}},
      {"none,cpu", {.fpu = false, .cpu = true, .ins = false, .image = true}},
      {"all,^cpu", {.fpu = true, .cpu = false, .ins = true, .image = true}},
      {"^all,fpu", {.fpu = true, .cpu = false, .ins = false, .image = true}},
  };
  for (const Case& c : cases) {
    CpuChecks got;
    parse_cpu_list(c.text, got);
    EXPECT_TRUE(got == c.want) << (c.text == nullptr ? "(bare)" : c.text);
  }
  for (const char* bad : {"", "gpu", "fpu,", "fpu ins", "^^fpu", "^"}) {
    CpuChecks checks;
    expect_refused([&] { parse_cpu_list(bad, checks); }, bad);
  }
}

TEST(Values, Words) {
  EXPECT_EQ(parse_network_lock("iptables"), NetworkLock::iptables);
  EXPECT_EQ(parse_network_lock("nftables"), NetworkLock::nftables);
  EXPECT_EQ(parse_network_lock("skip"), NetworkLock::skip);
  EXPECT_EQ(parse_network_lock("none"), NetworkLock::skip);
  EXPECT_EQ(parse_file_validation("filesize"), FileValidation::size);
  EXPECT_EQ(parse_file_validation("buildid"), FileValidation::build_id);
  EXPECT_EQ(parse_memory_snapshot("auto"), MemorySnapshot::automatic);
  EXPECT_EQ(parse_memory_snapshot("fork"), MemorySnapshot::fork);
  EXPECT_EQ(parse_memory_snapshot("copy"), MemorySnapshot::copy);
  EXPECT_EQ(parse_cpu_affinity("keep"), CpuAffinityChoice::keep);
  EXPECT_EQ(parse_cpu_affinity("ignore"), CpuAffinityChoice::inherit);
  EXPECT_EQ(parse_cgroup_mode("ignore"), CgroupMode::ignore);
  EXPECT_EQ(parse_cgroup_mode("strict"), CgroupMode::strict);
  expect_refused([] { parse_network_lock("ipset"); }, "network lock");
  expect_refused([] { parse_file_validation("md5"); }, "file validation");
  for (const std::string_view name : kLosses) EXPECT_EQ(parse_loss(name), name);
  expect_refused([] { parse_loss("memory"); }, "lossy state");
  expect_refused([] { parse_cpu_affinity("inherit"); }, "CPU affinity");
  expect_refused([] { parse_memory_snapshot(""); }, "hold memory still");
  expect_refused([] { parse_cgroup_mode("Full"); }, "cgroup mode");
}

TEST(Values, CgroupRoots) {
  EXPECT_EQ(parse_cgroup_root("/a:b").controller, "");
  EXPECT_EQ(parse_cgroup_root("/a:b").path, "/a:b");
  EXPECT_EQ(parse_cgroup_root("cpu,cpuacct:/a").controller, "cpu,cpuacct");
  EXPECT_EQ(parse_cgroup_root("name=systemd:/a").path, "/a");
  for (const char* bad : {"", "a", "cpu:a", "cpu:"}) expect_refused([&] { parse_cgroup_root(bad); }, bad);
}

TEST(Values, InheritedDescriptors) {
  bool is_debug = true;
  const InheritedFd tty = parse_inherit_fd("fd[0]:tty[8801:1b]", is_debug);
  EXPECT_FALSE(is_debug);
  EXPECT_EQ(tty.fd, 0);
  EXPECT_EQ(tty.key, "tty[8801:1b]");
  EXPECT_EQ(parse_inherit_fd("fd[7]:pipe:[4711]", is_debug).key, "pipe:[4711]");
  EXPECT_EQ(parse_inherit_fd("debug[2]:hello: there", is_debug).key, "hello: there");
  EXPECT_TRUE(is_debug);
  for (const char* bad : {"", "fd", "fd[1]", "fd[1]:", "fd[]:x", "fd[x]:y", "fd1:x", "fb[1]:x", "fd[-1]:x"}) {
    expect_refused([&] { parse_inherit_fd(bad, is_debug); }, bad);
  }
}

TEST(Values, JoinedNamespaces) {
  EXPECT_EQ(parse_join_ns("net:4711").target, "4711");
  EXPECT_EQ(parse_join_ns("mnt:/run/ns/a:b").target, "/run/ns/a:b");
  EXPECT_FALSE(parse_join_ns("user:/run/ns").uid);
  const JoinNamespace user = parse_join_ns("user:42,1000,1001");
  EXPECT_EQ(user.target, "42");
  EXPECT_EQ(user.uid, 1000u);
  EXPECT_EQ(user.gid, 1001u);
  for (const char* bad :
       {"", "net", "net:", "pid:42", "cgroup:42", "net:42,1", "user:1,2", "user:1,x,3", "user:1,2,3,4"}) {
    expect_refused([&] { parse_join_ns(bad); }, bad);
  }
}

TEST(Values, ExternalResources) {
  for (const char* good : {"mnt[/a/b]:key", "mnt[key]:/a/[b]", "mnt[]", "mnt[]:ms", "dev[8/1]:disk", "file[2f:1a]",
                           "tty[8801:1b]", "unix[4711]", "net[4026531992]:name", "pid[4026531836]:name",
                           "veth[eth0]:out@br0", "macvlan[m0]:eth0", "netdev[eth0]:lan0", "somebody's own"}) {
    EXPECT_NO_THROW(check_external(good)) << good;
  }
  for (const char* bad : {"", "mnt", "mnt[/a", "dev[8/1]", "dev[]:x", "file[]", "veth[eth0]", "veth[eth0]:", "unix"}) {
    expect_refused([&] { check_external(bad); }, bad);
  }
}

}  // namespace
}  // namespace stasis::cli

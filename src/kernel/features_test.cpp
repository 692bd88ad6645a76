#include "kernel/features.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <set>

#include "base/error.h"
#include "kernel/probe_support.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

TEST(Features, EveryDocumentedNameIsKnown) {
  for (const char* name : {"mnt_id",
                           "mem_dirty_track",
                           "aio_remap",
                           "timerfd",
                           "tun",
                           "tun_ns",
                           "userns",
                           "fdinfo_lock",
                           "seccomp_suspend",
                           "seccomp_filters",
                           "loginuid",
                           "cgroupns",
                           "autofs",
                           "tcp_half_closed",
                           "compat_cr",
                           "uffd",
                           "uffd-noncoop",
                           "can_map_vdso",
                           "sk_ns",
                           "sk_unix_file",
                           "net_diag_raw",
                           "nsid",
                           "link_nsid",
                           "kcmp_epoll",
                           "timens",
                           "external_net_ns",
                           "clone3_set_tid",
                           "newifindex",
                           "nftables",
                           "has_ipt_legacy",
                           "pidfd_store",
                           "ns_pid",
                           "apparmor_stacking",
                           "network_lock_nftables",
                           "sockopt_buf_lock",
                           "memfd_hugetlb",
                           "move_mount_set_group",
                           "openat2",
                           "get_rseq_conf",
                           "ipv6_freebind",
                           "pagemap_scan",
                           "timer_cr_ids",
                           "overlayfs_maps",
                           "breakpoints",
                           "pagemap_scan_guard_pages"}) {
    const Feature* feature = find_feature(name);
    ASSERT_NE(feature, nullptr) << name;
    EXPECT_EQ(feature->name, name);
  }
  EXPECT_EQ(find_feature("list"), nullptr);
  EXPECT_EQ(find_feature(""), nullptr);
}

TEST(Features, TableIsOrderedAndNamesAreUnique) {
  std::set<std::string_view> names;
  FeatureCategory last = FeatureCategory::needed;
  for (const Feature& feature : features()) {
    EXPECT_TRUE(names.insert(feature.name).second) << feature.name;
    EXPECT_GE(feature.category, last) << feature.name;
    EXPECT_TRUE(feature.purpose.ends_with('.')) << feature.name;
    last = feature.category;
  }
}

TEST(Features, EveryProbeAnswersAndLeavesNothingBehind) {
  ProcDir self(getpid());
  const auto fds_before = self.fds();
  const size_t mounts_before = parse_mountinfo(self.read("mountinfo")).size();
  for (const Feature& feature : features()) {
    const FeatureResult result = probe(feature);
    EXPECT_EQ(result.supported, result.why.empty()) << feature.name << ": " << result.why;
    EXPECT_EQ(self.fds(), fds_before) << feature.name;
    ProcDir thread = self.thread(getpid());
    EXPECT_EQ(thread.try_read("children").value_or(""), "") << feature.name;
  }
  EXPECT_EQ(parse_mountinfo(self.read("mountinfo")).size(), mounts_before);
}

TEST(Features, WhatEveryKernelHasIsFound) {
  for (const char* name : {"mnt_id", "ns_pid", "fdinfo_lock", "kcmp_file", "pidfd_getfd", "openat2"}) {
    const FeatureResult result = probe(*find_feature(name));
    EXPECT_TRUE(result.supported) << name << ": " << result.why;
  }
}

TEST(Features, AThrowingProbeIsAMissingFeature) {
  const Feature broken{"broken", FeatureCategory::common, "Nothing.",
                       []() -> FeatureResult { throw Error(Reason::SYSTEM, "it broke"); }};
  const FeatureResult result = probe(broken);
  EXPECT_FALSE(result.supported);
  EXPECT_EQ(result.why, "it broke");
}

TEST(ProbeChild, AnswersTravelBack) {
  EXPECT_TRUE(probes::in_child([] { return probes::supported(); }).supported);
  EXPECT_EQ(probes::in_child([] { return probes::missing("no owl"); }).why, "no owl");
  const FeatureResult thrown = probes::in_child([]() -> FeatureResult { throw Error(Reason::SYSTEM, "bang"); });
  EXPECT_EQ(thrown.why, "bang");
}

TEST(ProbeChild, ADeadChildIsAMissingFeature) {
  const FeatureResult killed = probes::in_child([]() -> FeatureResult {
    raise(SIGKILL);
    return probes::supported();
  });
  EXPECT_FALSE(killed.supported);
  EXPECT_EQ(killed.why, "the probe was ended by signal 9");
}

TEST(ProbeResults, RefusalsNameThePrivilege) {
  EXPECT_TRUE(probes::by_result(3, "x").supported);
  EXPECT_EQ(probes::by_result(-EPERM, "no entry", "CAP_OWL").why,
            "cannot tell without CAP_OWL: Operation not permitted (EPERM)");
  EXPECT_EQ(probes::by_result(-ENOSYS, "no call", "CAP_OWL").why, "no call: Function not implemented (ENOSYS)");
}

}  // namespace
}  // namespace stasis

#include "cli/mapping.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cli/command_line.h"
#include "cli/statistics.h"

namespace stasis::cli {
namespace {

CommandLine parse(const std::vector<std::string>& arguments) {
  return parse_command_line(arguments, Environment{});
}

Workplace place() {
  return {.images_dir = Fd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
          .images_dir_shown = std::string("/"),
          .work_dir = Fd()};
}

TEST(Mapping, DefaultsAreThoseOfTheOptionStructs) {
  const DumpOptions want;
  const DumpOptions got = to_dump_options(parse({"dump", "-t", "42"}), place());
  EXPECT_EQ(got.pid, 42);
  EXPECT_TRUE(got.images_dir);
  EXPECT_EQ(got.images_dir_shown, "/");
  EXPECT_EQ(got.final_state, want.final_state);
  EXPECT_EQ(got.timeout_s, want.timeout_s);
  EXPECT_EQ(got.ghost_limit_bytes, want.ghost_limit_bytes);
  EXPECT_EQ(got.ghost_fiemap, want.ghost_fiemap);
  EXPECT_EQ(got.file_validation, want.file_validation);
  EXPECT_EQ(got.network_lock, want.network_lock);
  EXPECT_EQ(got.manage_cgroups, want.manage_cgroups);
  EXPECT_TRUE(got.cpu == want.cpu);
  EXPECT_EQ(got.status_fd, want.status_fd);
  const RestoreOptions restore = to_restore_options(parse({"restore"}), place());
  EXPECT_TRUE(restore.time_namespace);
  EXPECT_FALSE(restore.detached);
  EXPECT_EQ(restore.final_state, RestoreOptions::FinalState::running);
}

TEST(Mapping, FinalStates) {
  using Final = DumpOptions::FinalState;
  const auto of = [](const std::vector<std::string>& arguments) {
    CommandLine line = parse(arguments);
    line.verb = Verb::dump;
    return to_dump_options(line, place()).final_state;
  };
  EXPECT_EQ(of({}), Final::kill);
  EXPECT_EQ(of({"-R"}), Final::running);
  EXPECT_EQ(of({"-s"}), Final::stopped);
  EXPECT_EQ(of({"-s", "-R"}), Final::stopped);
  EXPECT_EQ(to_restore_options(parse({"restore", "-s"}), place()).final_state, RestoreOptions::FinalState::stopped);
  EXPECT_EQ(to_restore_options(parse({"restore", "-R"}), place()).final_state, RestoreOptions::FinalState::running);
}

TEST(Mapping, DumpFieldsArrive) {
  const DumpOptions o = to_dump_options(parse({"dump",
                                               "-t1",
                                               "-jlx",
                                               "--tcp-established",
                                               "--tcp-close",
                                               "--skip-in-flight",
                                               "--evasive-devices",
                                               "--link-remap",
                                               "--force-irmap",
                                               "--allow-uprobes",
                                               "--ghost-limit=2K",
                                               "--ghost-fiemap",
                                               "--timeout=3",
                                               "--irmap-scan-path=/i",
                                               "--external=unix[1]",
                                               "--external=mnt[]:m",
                                               "--skip-mnt=/m",
                                               "--enable-fs=f",
                                               "--action-script=/s",
                                               "--network-lock=skip",
                                               "--cgroup-dump-controller=cpu",
                                               "--cgroup-yard=/y",
                                               "--prev-images-dir=../1",
                                               "--freeze-cgroup=/f",
                                               "--track-mem",
                                               "--auto-dedup",
                                               "--lazy-pages",
                                               "--status-fd=9",
                                               "--unprivileged",
                                               "--cgroup-props=p",
                                               "--cgroup-props-file=q",
                                               "--cgroup-root=/r"}),
                                        place());
  EXPECT_TRUE(o.shell_job && o.file_locks && o.ext_unix_sk && o.tcp_established && o.tcp_close && o.skip_in_flight);
  EXPECT_TRUE(o.evasive_devices && o.link_remap && o.force_irmap && o.allow_uprobes);
  EXPECT_TRUE(o.external_auto && o.external_masters && !o.external_sharing);
  EXPECT_EQ(o.ghost_limit_bytes, 2048u);
  EXPECT_TRUE(o.ghost_fiemap);
  EXPECT_EQ(o.timeout_s, 3u);
  EXPECT_EQ(o.irmap_scan_paths.at(0), "/i");
  EXPECT_EQ(o.external.at(0), "unix[1]");
  EXPECT_EQ(o.skip_mounts.at(0), "/m");
  EXPECT_EQ(o.enable_fs.at(0), "f");
  EXPECT_EQ(o.action_scripts.at(0), "/s");
  EXPECT_EQ(o.network_lock, NetworkLock::skip);
  EXPECT_EQ(o.cgroup_dump_controllers.at(0), "cpu");
  EXPECT_EQ(o.cgroup_yard, "/y");
  EXPECT_EQ(o.parent_dir, "../1");
  EXPECT_EQ(o.freeze_cgroup, "/f");
  EXPECT_TRUE(o.track_mem && o.auto_dedup && o.lazy_pages && o.unprivileged);
  EXPECT_EQ(o.status_fd, 9);
  EXPECT_EQ(o.cgroup_props, "p");
  EXPECT_EQ(o.cgroup_props_file, "q");
  EXPECT_EQ(o.cgroup_roots.at(0).path, "/r");
}

TEST(Mapping, RestoreFieldsArrive) {
  const RestoreOptions o =
      to_restore_options(parse({"restore", "-dSj", "--pidfile=p", "--root=/r", "--no-timens", "--join-ns=net:1",
                                "--weak-sysctls", "--skip-file-rwx-check", "--allow-grown", "--mntns-compat-mode",
                                "--inherit-fd=fd[3]:k", "--lsm-profile=selinux:x", "--lsm-mount-context=c", "--log-pid",
                                "--exec-cmd", "--empty-ns=net", "--", "a", "b"}),
                         place());
  EXPECT_TRUE(o.detached && o.sibling && o.shell_job && o.weak_sysctls && o.skip_file_rwx_check && o.allow_grown &&
              o.mntns_compat_mode);
  EXPECT_TRUE(o.log_pid && o.empty_net_namespace);
  EXPECT_FALSE(o.time_namespace);
  EXPECT_EQ(o.pidfile, "p");
  EXPECT_EQ(o.root, "/r");
  EXPECT_EQ(o.join_ns.at(0).kind, "net");
  EXPECT_EQ(o.inherit_fd.at(0).key, "k");
  EXPECT_EQ(o.lsm_profile, "selinux:x");
  EXPECT_EQ(o.lsm_mount_context, "c");
}

TEST(Mapping, ACommandThatIsExecutedWaitsForTheTree) {
  EXPECT_TRUE(to_restore_options(parse({"restore", "--exec-cmd", "--", "a"}), place()).detached);
  const RestoreOptions o = to_restore_options(parse({"restore", "--new-pid-namespace"}), place());
  EXPECT_TRUE(o.new_pid_namespace && !o.detached);
}

TEST(Mapping, CheckOptions) {
  const CheckOptions all = to_check_options(parse({"check", "--all"}));
  EXPECT_TRUE(all.extra && all.experimental && all.list);
  const CheckOptions extra = to_check_options(parse({"check", "--extra"}));
  EXPECT_TRUE(extra.extra && !extra.experimental && !extra.list);
  EXPECT_TRUE(to_check_options(parse({"check", "-v3"})).list);
  EXPECT_EQ(to_check_options(parse({"check", "--feature", "x"})).feature, "x");
}

TEST(Statistics, PrintTheFieldsOfTheImages) {
  DumpStatistics dump;
  dump.frozen_time_us = 17;
  dump.pages_written = 4;
  dump.shpages_written = 5;
  const std::string text = statistics_text(dump);
  EXPECT_TRUE(text.starts_with("Dump statistics:\n"));
  EXPECT_NE(text.find("\n  frozen_time             17 us\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n  pages_written           4\n"), std::string::npos);
  EXPECT_NE(text.find("\n  shpages_written         5\n"), std::string::npos);
  EXPECT_EQ(text.find("page_pipes"), std::string::npos);
  RestoreStatistics restore;
  restore.restore_time_us = 3;
  EXPECT_NE(statistics_text(restore).find("\n  restore_time            3 us\n"), std::string::npos);
}

}  // namespace
}  // namespace stasis::cli

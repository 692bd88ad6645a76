#include "kernel/proc_task.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

constexpr std::string_view kStatText =
    "4711 (odd )) (na me) S 4242 4711 4242 34817 4711 4194560 152 3 1 2 7 9 -1 4 20 -5 3 0 987654 5414912 "
    "361 18446744073709551615 94240 94250 140721 0 0 0 4096 81922 1 1 0 0 17 1 7 2 5 0 0 94260 94270 94280 "
    "140722 140723 140724 140725 256\n";

TEST(ParseStat, EveryFieldLandsInItsPlace) {
  const ProcStat s = parse_stat(kStatText);
  EXPECT_EQ(s.pid, 4711);
  EXPECT_EQ(s.comm, "odd )) (na me");
  EXPECT_EQ(s.state, 'S');
  EXPECT_EQ(s.ppid, 4242);
  EXPECT_EQ(s.pgid, 4711);
  EXPECT_EQ(s.sid, 4242);
  EXPECT_EQ(s.tty_nr, 34817u);
  EXPECT_EQ(s.tty_pgrp, 4711);
  EXPECT_EQ(s.flags, 4194560u);
  EXPECT_EQ(s.min_flt, 152u);
  EXPECT_EQ(s.cutime_ticks, -1);
  EXPECT_EQ(s.priority, 20);
  EXPECT_EQ(s.nice, -5);
  EXPECT_EQ(s.num_threads, 3);
  EXPECT_EQ(s.start_time_ticks, 987654u);
  EXPECT_EQ(s.rss_pages, 361);
  EXPECT_EQ(s.rss_limit_bytes, ~0ull);
  EXPECT_EQ(s.start_code, 94240u);
  EXPECT_EQ(s.end_code, 94250u);
  EXPECT_EQ(s.start_stack, 140721u);
  EXPECT_EQ(s.wchan, 1u);
  EXPECT_EQ(s.exit_signal, 17);
  EXPECT_EQ(s.processor, 1);
  EXPECT_EQ(s.rt_priority, 7u);
  EXPECT_EQ(s.policy, 2u);
  EXPECT_EQ(s.start_data, 94260u);
  EXPECT_EQ(s.end_data, 94270u);
  EXPECT_EQ(s.start_brk, 94280u);
  EXPECT_EQ(s.arg_start, 140722u);
  EXPECT_EQ(s.arg_end, 140723u);
  EXPECT_EQ(s.env_start, 140724u);
  EXPECT_EQ(s.env_end, 140725u);
  EXPECT_EQ(s.exit_code, 256);
}

TEST(ParseStat, NameWithANewline) {
  std::string text(kStatText);
  text.replace(text.find("na me"), 5, "n\nme ");
  EXPECT_EQ(parse_stat(text).comm, "odd )) (n\nme ");
}

TEST(ParseStat, EveryTruncationIsAnError) {
  // The last number may lose digits unnoticed; anything shorter must be refused.
  for (size_t n = 0; n < kStatText.size() - 4; ++n) EXPECT_THROW(parse_stat(kStatText.substr(0, n)), Error) << n;
}

TEST(ParseStat, Garbage) {
  EXPECT_THROW(parse_stat(""), Error);
  EXPECT_THROW(parse_stat(")("), Error);
  EXPECT_THROW(parse_stat("1 (a) S x"), Error);
  EXPECT_THROW(parse_stat("99999999999999 (a) S 1 1 1"), Error);
  EXPECT_THROW(parse_stat(std::string_view("\0\0(\0)\0", 6)), Error);
}

constexpr std::string_view kStatusText =
    "Name:\ta\\nb\\\\c d\nUmask:\t0027\nState:\tT (stopped)\nTgid:\t4711\nNgid:\t5\nPid:\t4712\nPPid:\t1\n"
    "TracerPid:\t99\nUid:\t0\t1\t2\t3\nGid:\t10\t11\t12\t13\nFDSize:\t64\nGroups:\t4 24 4294967294 \n"
    "NStgid:\t4711\t7\t1\nNSpid:\t4712\t8\t2\nNSpgid:\t4711\t7\t1\nNSsid:\t4242\t0\t0\nKthread:\t0\n"
    "VmPeak:\t    6000 kB\nVmSize:\t    5000 kB\nVmLck:\t      12 kB\nVmRSS:\t    1500 kB\nCoreDumping:\t0\n"
    "THP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\nThreads:\t3\nSigQ:\t2/7762\nSigPnd:\t0000000000000001\n"
    "ShdPnd:\t8000000000000000\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000000004\nSigCgt:\t0000000180000000\n"
    "CapInh:\t0000000000000001\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffff0f\n"
    "CapAmb:\t0000000000000010\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"
    "Speculation_Store_Bypass:\tthread vulnerable\nCpus_allowed:\t3\nx86_Thread_features:\tshstk wrss \n"
    "x86_Thread_features_locked:\t\nvoluntary_ctxt_switches:\t77\nnonvoluntary_ctxt_switches:\t0\n";

TEST(ParseStatus, EveryFieldLandsInItsPlace) {
  const ProcStatus s = parse_status(kStatusText);
  EXPECT_EQ(s.name, "a\nb\\c d");
  EXPECT_EQ(s.umask, 027u);
  EXPECT_EQ(s.state, 'T');
  EXPECT_EQ(s.tgid, 4711);
  EXPECT_EQ(s.ngid, 5);
  EXPECT_EQ(s.pid, 4712);
  EXPECT_EQ(s.ppid, 1);
  EXPECT_EQ(s.tracer_pid, 99);
  EXPECT_EQ(s.uid, (std::array<uint32_t, 4>{0, 1, 2, 3}));
  EXPECT_EQ(s.gid, (std::array<uint32_t, 4>{10, 11, 12, 13}));
  EXPECT_EQ(s.fd_size, 64u);
  EXPECT_EQ(s.groups, (std::vector<uint32_t>{4, 24, 4294967294u}));
  ASSERT_EQ(s.ns_pid.size(), 3u);
  EXPECT_EQ(s.ns_pid.ids[1], 8);
  EXPECT_EQ(s.ns_pid.innermost(), 2);
  EXPECT_EQ(s.ns_sid.innermost(), 0);
  EXPECT_EQ(s.kthread, false);
  EXPECT_TRUE(s.has_mm);
  EXPECT_EQ(s.vm_size_kib, 5000u);
  EXPECT_EQ(s.vm_locked_kib, 12u);
  EXPECT_EQ(s.vm_rss_kib, 1500u);
  EXPECT_EQ(s.thp_enabled, true);
  EXPECT_EQ(s.threads, 3u);
  EXPECT_EQ(s.sigq, 2u);
  EXPECT_EQ(s.sigq_limit, 7762u);
  EXPECT_EQ(s.sig_pending, 1u);
  EXPECT_EQ(s.shared_pending, 1ull << 63);
  EXPECT_EQ(s.sig_blocked, 0x10000u);
  EXPECT_EQ(s.sig_ignored, 4u);
  EXPECT_EQ(s.sig_caught, 0x180000000u);
  EXPECT_EQ(s.cap_inheritable, 1u);
  EXPECT_EQ(s.cap_permitted, 0x1ffffffffffu);
  EXPECT_EQ(s.cap_effective, 0x1fffeffffffu);
  EXPECT_EQ(s.cap_bounding, 0x1ffffffff0fu);
  EXPECT_EQ(s.cap_ambient, 0x10u);
  EXPECT_TRUE(s.no_new_privs);
  EXPECT_EQ(s.seccomp, 2);
  EXPECT_EQ(s.seccomp_filters, 3u);
  EXPECT_TRUE(s.store_bypass_open);
  EXPECT_EQ(s.voluntary_switches, 77u);
  EXPECT_TRUE(s.x86_shadow_stack);
}

TEST(ParseStatus, ZombieOfAnOldKernelHasNeitherMemoryNorNewLines) {
  const ProcStatus s = parse_status("Name:\tz\nState:\tZ (zombie)\nTgid:\t5\nPid:\t5\nPPid:\t1\n");
  EXPECT_FALSE(s.has_mm);
  EXPECT_EQ(s.state, 'Z');
  EXPECT_FALSE(s.kthread.has_value());
  EXPECT_FALSE(s.seccomp_filters.has_value());
  EXPECT_FALSE(s.umask.has_value());
  EXPECT_EQ(s.ns_pid.innermost(), 0);
}

TEST(ParseStatus, BadTextIsAnErrorAndNeverACrash) {
  EXPECT_THROW(parse_status(""), Error);
  EXPECT_THROW(parse_status("Pid:\t\n"), Error);
  EXPECT_THROW(parse_status("Pid:\tx\n"), Error);
  EXPECT_THROW(parse_status("Pid:\t1\nUid:\t0\t0\n"), Error);
  EXPECT_THROW(parse_status("Pid:\t1\nSigPnd:\t1ffffffffffffffff\n"), Error);
  std::string deep = "Pid:\t1\nNSpid:";
  for (int i = 0; i < 40; ++i) deep += "\t1";
  EXPECT_THROW(parse_status(deep), Error);
  for (size_t n = 0; n < kStatusText.size(); ++n) {
    try {
      parse_status(kStatusText.substr(0, n));
    } catch (const Error& error) {
      EXPECT_EQ(error.reason(), Reason::PROC_TEXT);
    }
  }
}

TEST(LiveTask, StatAndStatusOfThisProcessAgree) {
  ProcDir self(getpid());
  const ProcStat stat = parse_stat(self.read("stat"));
  EXPECT_EQ(stat.pid, getpid());
  EXPECT_EQ(stat.ppid, getppid());
  EXPECT_EQ(stat.sid, getsid(0));
  EXPECT_FALSE(stat.kernel_thread());
  const ProcStatus status = parse_status(self.read("status"));
  EXPECT_EQ(status.pid, getpid());
  EXPECT_EQ(status.name, stat.comm);
  EXPECT_EQ(status.uid[1], geteuid());
  EXPECT_EQ(static_cast<int>(status.threads), stat.num_threads);
  EXPECT_TRUE(status.has_mm);
  EXPECT_EQ(status.ns_pid.begin()[0], getpid());
}

TEST(ProcSyscall, NamesTheCallOfASleepingTask) {
  const auto call =
      parse_syscall("232 0x3 0x7ffc009bfac0 0x1 0x2710 0x0 0x7f263b4c7740 0x7ffc009bfab8 0x7f263b5d2ef3\n");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->number, 232);
  EXPECT_EQ(call->args[3], 0x2710u);
  EXPECT_EQ(call->args[5], 0x7f263b4c7740u);
  EXPECT_EQ(call->instruction_pointer, 0x7f263b5d2ef3u);
  EXPECT_FALSE(parse_syscall("running\n"));
  EXPECT_FALSE(parse_syscall("-1 0x7ffc009bfab8 0x7f263b5d2ef3\n"));
  EXPECT_THROW(parse_syscall("232 0x3"), Error);
}

TEST(ProcSched, TellsWhenATaskWentToSleep) {
  const auto sched = parse_sched(
      "cat (444, #threads: 1)\n"
      "-------------------------------------------------------------------\n"
      "se.exec_start                                :       2162680.027371\n"
      "nr_switches                                  :                    3\n"
      "nr_voluntary_switches                        :                    2\n");
  ASSERT_TRUE(sched);
  EXPECT_EQ(sched->exec_start_ns, 2162680027371u);
  EXPECT_EQ(sched->voluntary_switches, 2u);
  EXPECT_FALSE(parse_sched("nr_voluntary_switches : 2\n"));
}

}  // namespace
}  // namespace stasis

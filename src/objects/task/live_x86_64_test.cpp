// All objects on live tasks: a child with every kind of state is read, and a second child is made like it.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "kernel/uapi.h"
#include "objects/task/credentials.h"
#include "objects/task/dumpable.h"
#include "objects/task/pending_signals.h"
#include "objects/task/posix_timers.h"
#include "objects/task/registers.h"
#include "objects/task/rseq.h"
#include "objects/task/signal_mask.h"
#include "objects/task/thp_disable.h"
#include "objects/task/xsave_x86_64.h"
#include "objects/task_object.h"
#include "tracee/borrowed.h"

namespace stasis {
namespace {

// A child that sets itself up and waits; stopped and borrowed.
class LiveTask {
 public:
  enum class Then { pause, spin };
  // `spin`: set_up does not return.
  explicit LiveTask(const std::function<void()>& set_up, Then then = Then::pause) {
    int ready[2];
    check(pipe2(ready, O_CLOEXEC), "pipe");
    pid_ = check(fork(), "fork");
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (then == Then::pause) set_up();
      if (write(ready[1], "x", 1) != 1) _exit(1);
      if (then == Then::spin) set_up();
      for (;;) pause();
    }
    close(ready[1]);
    char byte = 0;
    const bool is_ready = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!is_ready) throw Error(Reason::INTERNAL, "the child could not set itself up");
    if (then == Then::pause)
      await_pause();
    else
      usleep(5000);
    thread_ = std::make_unique<Tracee>(Tracee::seize(pid_, pid_, uapi::ptrace_o_exitkill));
    thread_->interrupt();
    if (!thread_->await_stop(waiter_, Clock::now() + std::chrono::seconds(5)))
      throw Error(Reason::INTERNAL, "the child did not stop");
    thread_->save_own_state();
  }
  ~LiveTask() {
    if (borrowed_) borrowed_->abandon();
    borrowed_.reset();
    if (thread_) thread_->forget();
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, __WALL);
    }
  }

  void borrow() {
    ProcDir proc(pid_);
    const ProcStatus status = parse_status(proc.read("status"));
    const auto mappings = parse_maps(proc.read("maps"));
    borrowed_ = std::make_unique<Borrowed>(pid_, status.name, *thread_, proc.open("mem", O_RDWR));
    const SignalUse use{.ignored = status.sig_ignored,
                        .caught = status.sig_caught,
                        .blocked = status.sig_blocked,
                        .pending = status.sig_pending | status.shared_pending};
    borrowed_->start_open(mappings, {.slots = 1, .first_slot_bytes = 65536}, choose_report_signal(use));
    borrowed_->finish_open(waiter_);
  }

  void run(SyscallBatch& batch) {
    if (!batch.empty()) borrowed_->host().run(*thread_, 0, batch, waiter_);
  }

  void dump(ObjectStates& process, ObjectStates& thread) {
    ProcDir proc(pid_);
    const ProcStat stat = parse_stat(proc.read("stat"));
    const ProcStatus status = parse_status(proc.read("status"));
    const DumpOptions options;
    const LookView view{.options = options,
                        .pid = pid_,
                        .tid = pid_,
                        .thread = *thread_,
                        .stat = stat,
                        .status = status,
                        .proc = proc,
                        .who = "the child"};
    process.look(view);
    thread.look(view);
    if (!borrowed_) borrow();
    SyscallBatch batch;
    process.ask(view, batch);
    thread.ask(view, batch);
    run(batch);
    process.answer(batch, view.who);
    thread.answer(batch, view.who);
  }

  void restore(const ObjectStates& process, const ObjectStates& thread) {
    const RestoreOptions options;
    const SettleView view{
        .options = options, .pid = pid_, .tid = pid_, .inner_pid = pid_, .inner_tid = pid_, .who = "the child"};
    SyscallBatch first, second, last;
    process.settle(view, first);
    run(first);
    process.apply(view);
    thread.apply(view);
    thread.settle(view, second);
    run(second);
    process.arm(view, last);
    run(last);
    thread_->set_own_signal_mask(thread.get<SignalMask>().blocked);
  }

  pid_t pid() const { return pid_; }
  Tracee& thread() { return *thread_; }

 private:
  // Until it sleeps in pause().
  void await_pause() {
    ProcDir proc(pid_);
    while (parse_stat(proc.read("stat")).state != 'S') usleep(1000);
  }

  StopWaiter waiter_;
  pid_t pid_ = 0;
  std::unique_ptr<Tracee> thread_;
  std::unique_ptr<Borrowed> borrowed_;
};

void need(bool ok) {
  if (!ok) _exit(99);
}

void on_signal(int) {}

alignas(16) char alternate_stack[16384];

void set_up_signals() {
  const stack_t stack{.ss_sp = alternate_stack, .ss_flags = 0, .ss_size = sizeof alternate_stack};
  need(sigaltstack(&stack, nullptr) == 0);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigaddset(&action.sa_mask, SIGUSR2);
  need(sigaction(SIGUSR1, &action, nullptr) == 0);
  action = {};
  action.sa_handler = SIG_IGN;
  need(sigaction(SIGPIPE, &action, nullptr) == 0);
  action.sa_handler = SIG_DFL;
  action.sa_flags = SA_NOCLDWAIT;
  need(sigaction(SIGCHLD, &action, nullptr) == 0);

  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigaddset(&blocked, SIGRTMIN + 1);
  need(sigprocmask(SIG_BLOCK, &blocked, nullptr) == 0);
  for (int i = 0; i < 70; ++i) {
    sigval value{};
    value.sival_int = i;
    need(sigqueue(getpid(), SIGRTMIN + 1, value) == 0);
  }
  need(raise(SIGUSR1) == 0);  // to this thread
  need(kill(getpid(), SIGUSR1) == 0);
}

void set_up_timers() {
  const itimerval timer{.it_interval = {5, 6}, .it_value = {1000, 7}};
  need(setitimer(ITIMER_REAL, &timer, nullptr) == 0);
  for (int i = 0; i < 5; ++i) {
    struct {
      uint64_t value;
      int signal, notify, thread, rest[11];
    } event{.value = 0x1000u + static_cast<uint64_t>(i),
            .signal = SIGRTMIN + 2,
            .notify = SIGEV_SIGNAL,
            .thread = 0,
            .rest = {}};
    if (i == 3) {
      event.notify = SIGEV_THREAD_ID;
      event.thread = gettid();
    }
    int id = -1;
    need(syscall(SYS_timer_create, i == 4 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &event, &id) == 0);
    const itimerspec times{.it_interval = {i, 0}, .it_value = {2000, 0}};
    need(syscall(SYS_timer_settime, id, 0, &times, nullptr) == 0);
    if (i < 2) need(syscall(SYS_timer_delete, id) == 0);  // the ids do not start at 0
  }
}

void set_up_process() {
  const rlimit files{.rlim_cur = 100, .rlim_max = 200};
  need(setrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit core{.rlim_cur = 0, .rlim_max = 4096};
  need(setrlimit(RLIMIT_CORE, &core) == 0);
  need(personality(ADDR_NO_RANDOMIZE) >= 0);
  need(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  need(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  need(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
  need(prctl(PR_SET_NAME, "some (name)") == 0);
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  need(fd >= 0 && write(fd, "700", 3) == 3);
  close(fd);
  need(setpriority(PRIO_PROCESS, 0, 7) == 0);
  const sched_param none{};
  need(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none) == 0);
}

void set_up_credentials() {
  const gid_t groups[] = {3, 14, 15926};
  need(setgroups(3, groups) == 0);
  need(prctl(PR_CAPBSET_DROP, 27, 0, 0, 0) == 0);  // CAP_MKNOD
  need(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
  need(setresgid(1001, 1002, 1003) == 0);
  need(setresuid(2001, 2002, 2003) == 0);
  struct {
    uint32_t version;
    int pid;
  } header{0x20080522, 0};
  const uint32_t kept = 1u << 10 | 1u << 6;  // CAP_NET_BIND_SERVICE, CAP_SETGID
  const uint32_t data[6] = {kept, kept, 1u << 10, 0, 0, 0};
  need(syscall(SYS_capset, &header, data) == 0);
  need(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0) == 0);
  need(syscall(SYS_setfsgid, 1001) >= 0);
  need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  need(prctl(PR_SET_PDEATHSIG, SIGRTMIN + 3) == 0);
  need(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
}

// As a new puppet: no area of restartable sequences registered.
void leave_rseq() {
  if (__rseq_size == 0) return;
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  need(syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0);
}

// What cannot be equal: times that run on, flags of the kernel's own accounting, ids of the other task.
pb::core_entry comparable(pb::core_entry core, pid_t pid) {
  core.mutable_tc()->set_flags(0);
  auto& timers = *core.mutable_tc()->mutable_timers();
  timers.mutable_real()->set_vusec(0);
  timers.mutable_real()->set_vsec((timers.real().vsec() + 5) / 10);
  for (auto& timer : *timers.mutable_posix()) {
    timer.set_vnsec(0);
    timer.set_vsec((timer.vsec() + 5) / 10);
    if (timer.notify_thread_id() == pid) timer.set_notify_thread_id(1);
  }
  core.mutable_thread_info()->clear_gpregs();
  core.mutable_thread_info()->clear_fpregs();
  return core;
}

struct Dumped {
  ObjectStates process{Scope::process}, thread{Scope::thread};
  pb::core_entry core;
  explicit Dumped(LiveTask& task) {
    task.dump(process, thread);
    process.encode(core);
    thread.encode(core);
  }
};

// A reason why live tasks cannot be used here; empty if they can.
std::string obstacle() {
  if (geteuid() != 0) return "needs root: other ids and capabilities are set";
  try {
    LiveTask probe([] {});
    probe.borrow();
  } catch (const Error& e) {
    return std::string("cannot trace a child here: ") + e.what();
  }
  return {};
}

TEST(LiveTask, IsMadeLikeTheSavedOne) {
  if (const std::string why = obstacle(); !why.empty()) GTEST_SKIP() << why;
  LiveTask source([] {
    set_up_signals();
    set_up_timers();
    set_up_process();
    set_up_credentials();
  });
  const Dumped saved(source);
  EXPECT_TRUE(saved.core.IsInitialized()) << saved.core.InitializationErrorString();
  EXPECT_EQ(saved.thread.get<Credentials>().ambient, uint64_t{1} << 10);
  EXPECT_EQ(saved.process.get<ProcessPendingSignals>().queue.size(), 71u);
  EXPECT_EQ(saved.thread.get<ThreadPendingSignals>().queue.size(), 1u);
  EXPECT_EQ(saved.process.get<PosixTimers>().timers.size(), 3u);
  EXPECT_EQ(saved.process.get<Dumpable>().value, 1);

  ObjectStates process(Scope::process), thread(Scope::thread);
  process.decode(saved.core, "the image");
  thread.decode(saved.core, "the image");
  process.edit<Dumpable>() = saved.process.get<Dumpable>();
  process.edit<ThpDisable>() = saved.process.get<ThpDisable>();
  LiveTask target([] { leave_rseq(); });
  target.borrow();
  for (auto& timer : process.edit<PosixTimers>().timers)
    if (timer.thread == source.pid()) timer.thread = target.pid();
  target.restore(process, thread);

  const Dumped restored(target);
  const pb::core_entry want = comparable(saved.core, source.pid()), have = comparable(restored.core, target.pid());
  EXPECT_EQ(have.thread_core().creds().SerializeAsString(), want.thread_core().creds().SerializeAsString());
  EXPECT_EQ(have.thread_core().SerializeAsString(), want.thread_core().SerializeAsString());
  EXPECT_EQ(have.thread_info().clear_tid_addr(), want.thread_info().clear_tid_addr());
  EXPECT_EQ(have.tc().timers().SerializeAsString(), want.tc().timers().SerializeAsString());
  EXPECT_EQ(have.tc().rlimits().SerializeAsString(), want.tc().rlimits().SerializeAsString());
  EXPECT_EQ(have.tc().SerializeAsString(), want.tc().SerializeAsString());
  EXPECT_EQ(restored.process.get<Dumpable>().value, 1);
  EXPECT_TRUE(restored.process.get<ThpDisable>().disabled);
}

TEST(LiveTask, ExtendedStateGoesThroughAnImageByteForByte) {
  if (const std::string why = obstacle(); !why.empty()) GTEST_SKIP() << why;
  LiveTask source([] {
    const double third = 1.0 / 3;
    asm volatile("fldl %0; movsd %0, %%xmm7" : : "m"(third) : "xmm7");
  });
  const Dumped saved(source);
  ObjectStates thread(Scope::thread);
  thread.decode(saved.core, "the image");
  const auto& before = saved.thread.get<CpuRegisters>();
  const auto& after = thread.get<CpuRegisters>();
  EXPECT_EQ(std::memcmp(&before.general, &after.general, sizeof before.general), 0);
  ASSERT_EQ(before.extended.size(), after.extended.size());
  for (size_t i = 0; i < before.extended.size(); ++i) ASSERT_EQ(before.extended[i], after.extended[i]) << "byte " << i;
  // It was stopped in pause().
  EXPECT_EQ(before.general.rax, uint64_t{SYS_pause});
}

TEST(LiveTask, TouchedComponentsAreLoaded) {
  constexpr uint64_t kMasks = uint64_t{1} << 5;  // of AVX-512: this CPU gives all it has without being asked
  const XsaveLayout& layout = XsaveLayout::of_this_cpu();
  if (const std::string why = obstacle(); !why.empty()) GTEST_SKIP() << why;
  if ((layout.features & kMasks) == 0) GTEST_SKIP() << "this CPU lacks: AVX-512";
  LiveTask task([] { asm volatile("kxnorw %k1, %k1, %k1"); }, LiveTask::Then::spin);
  const auto masks = [&] {
    const auto area = task.thread().extended_state();
    const auto& where = layout.components[5];
    return std::vector(area.begin() + where.offset, area.begin() + where.offset + where.bytes);
  };
  const std::vector<std::byte> zeros(layout.components[5].bytes);
  EXPECT_NE(masks(), zeros);
  task.borrow();
  SyscallBatch batch;
  const BatchData room = batch.space(arch::touched_state_bytes(zeros.size()));
  const auto touch = batch.must(static_cast<long>(arch::kTouchExtendedState), {room, kMasks});
  const auto after = batch.must(SYS_getpid, {});
  task.run(batch);
  EXPECT_EQ(batch.result(touch), 0);
  EXPECT_EQ(batch.result(after), task.pid());
  EXPECT_EQ(masks(), zeros);
}

// A loop without end inside a critical section; aborted, it begins anew.
[[noreturn, gnu::noinline, gnu::noclone]] void spin_in_critical_section() {
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  asm volatile(
      "jmp 2f\n\t"
      ".pushsection .data, \"aw\"\n\t"
      ".balign 32\n"
      "stasis_test_section: .long 0, 0\n\t"
      ".quad stasis_test_start, stasis_test_end - stasis_test_start, stasis_test_abort\n\t"
      ".popsection\n\t"
      ".long 0x53053053\n"  // RSEQ_SIG, which the kernel wants before the abort address
      "stasis_test_abort:\n"
      "2:\n\t"
      "leaq stasis_test_section(%%rip), %%rax\n\t"
      "movq %%rax, 8(%0)\n"
      "stasis_test_start:\n\t"
      "jmp stasis_test_start\n"
      "stasis_test_end:\n\t"
      "ud2" ::"r"(area)
      : "rax", "memory");
  __builtin_unreachable();
}
extern "C" const char stasis_test_start[], stasis_test_abort[];

TEST(LiveTask, LeavesACriticalSectionAtItsAbortAddress) {
  if (const std::string why = obstacle(); !why.empty()) GTEST_SKIP() << why;
  if (__rseq_size == 0) GTEST_SKIP() << "the C library registers no area for restartable sequences";
  LiveTask task([] { spin_in_critical_section(); }, LiveTask::Then::spin);
  ASSERT_EQ(task.thread().own_registers().rip, reinterpret_cast<uint64_t>(stasis_test_start));
  const Dumped saved(task);
  EXPECT_EQ(saved.thread.get<CpuRegisters>().general.rip, reinterpret_cast<uint64_t>(stasis_test_abort));
  EXPECT_EQ(task.thread().own_registers().rip, reinterpret_cast<uint64_t>(stasis_test_abort));
  EXPECT_EQ(saved.thread.get<Rseq>().section, 0u);
  EXPECT_EQ(saved.thread.get<Rseq>().signature, uint32_t{RSEQ_SIG});
}

}  // namespace
}  // namespace stasis

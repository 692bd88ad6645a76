#include "restore/tree.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/page_size.h"
#include "kernel/process.h"
#include "kernel/uapi.h"
#include "memory/shmem.h"
#include "objects/task/personality.h"

namespace stasis {

namespace {

// Room that is left in a slot before a batch is run and a new one begun.
constexpr size_t kBatchRoom = 8192;

constexpr uint32_t kNotInherited = vma_status::vsyscall;

bool same_area(const Vma& a, const Vma& b) {
  return a.start == b.start && a.end == b.end && a.pgoff_bytes == b.pgoff_bytes && a.shmid == b.shmid &&
         a.prot == b.prot && a.flags == b.flags && a.status == b.status && a.fdflags == b.fdflags &&
         (a.madv & (1u << MADV_NOHUGEPAGE)) == (b.madv & (1u << MADV_NOHUGEPAGE));
}

// How the kernel is asked for an area.
int mmap_flags(const Vma& v) {
  uint32_t flags = (v.flags & ~uint32_t{MAP_LOCKED}) | MAP_FIXED;
  if (v.is_nameless_object()) flags &= ~uint32_t{MAP_ANONYMOUS};
  // Since Linux 6.7 MAP_STACK keeps huge pages away; set at once, so that neighbours do not merge first.
  if ((v.madv & (1u << MADV_NOHUGEPAGE)) != 0) flags |= MAP_STACK;
  return static_cast<int>(flags);
}

uint64_t advice_by_mmap() {
  static const bool by_flag = kernel_is_at_least(6, 7);
  return by_flag ? uint64_t{1} << MADV_NOHUGEPAGE : 0;
}

bool is_mapped_by_us(const Vma& v) {
  return !v.mapped_later && v.has(vma_status::regular) && !v.has(vma_status::vdso) && !v.has(vma_status::vvar) &&
         !v.has(vma_status::vsyscall);
}

// Which protection an area has until it is filled. Private memory that was writable once is mapped writable, and gets
// its protection when it has pages: only then the kernel keeps it accounted (mprotect_fixup()).
uint32_t first_protection(const Vma& v, uint64_t stored_pages) {
  return maps_writable_first(v, stored_pages) ? uint32_t{PROT_READ | PROT_WRITE} : v.prot;
}

// Adjoining private areas that differ in their final protection alone are mapped by one call: it is faster, and they
// can become one again later, as pieces that mprotect() cut.
bool continues(const Vma& a, const Vma& b) {
  constexpr uint32_t kAlone = MAP_GROWSDOWN | MAP_HUGETLB;
  return a.end == b.start && a.is_private() && a.status == b.status && a.flags == b.flags && (a.flags & kAlone) == 0 &&
         a.shmid == b.shmid && a.fdflags == b.fdflags &&
         (a.madv & (1u << MADV_NOHUGEPAGE)) == (b.madv & (1u << MADV_NOHUGEPAGE)) &&
         (!a.is_file() || a.pgoff_bytes + a.size_bytes() == b.pgoff_bytes);
}

// The first of a row of numbers that no table of the tree has, at the end or in between. Not above them all: the
// highest may be the last one that the limit of open files allows.
int free_number(const RestorePlan& plan, const RestoredFiles& files, int channels) {
  const auto needed = static_cast<size_t>(channels) + 1;  // the stub itself has a number, too
  size_t number = 8;
  std::set<size_t> used;
  for (const auto& p : plan.processes) {
    if (p->zombie) continue;
    const auto& slots = files.descriptors(p->ids.files_id());
    for (const DescriptorSlot& slot : slots) used.insert(static_cast<size_t>(slot.number));
    for (const PlannedThread& t : p->threads) {
      if (!t.tables) continue;
      const auto& own = files.descriptors(t.tables->files);
      for (const DescriptorSlot& slot : own) used.insert(static_cast<size_t>(slot.number));
      number = std::max(number, own.size() + 3);
    }
    // Working and root directory arrive behind the descriptors, mapped files and the executable before them.
    std::set<std::pair<uint64_t, uint32_t>> mapped;
    for (const Vma& v : p->vmas.areas)
      if (is_mapped_by_us(v) && (v.is_file() || v.is_nameless_object()))
        mapped.insert({v.shmid, v.fdflags.value_or(0)});
    number = std::max({number, slots.size() + 3, mapped.size() + 2});
  }
  for (auto next = used.lower_bound(number); next != used.end() && *next < number + needed; ++next) number = *next + 1;
  return static_cast<int>(number);
}

// Each can be made use of by another process at the same time.
int useful_channels(const RestorePlan& plan) {
  return static_cast<int>(std::min<size_t>(plan.processes.size(), FdChannels::kMostChannels));
}

}  // namespace

PuppetTree::PuppetTree(RestorePlan& plan, const RestoreOptions& options, const ImageStore& store, RestoredFiles& files,
                       StopWaiter& waiter)
    : plan_(plan),
      store_(store),
      files_(files),
      waiter_(waiter),
      vdso_(plan, options.vdso_by_jumps),
      filters_(plan),
      channels_(free_number(plan, files, useful_channels(plan)), useful_channels(plan)),
      inherits_policies_(options.cpu_affinity == CpuAffinityChoice::inherit) {
  // Orphans of puppets that have to be killed become ours, so that their pids are free again before a second try.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

PuppetTree::~PuppetTree() {
  workers_.reset();
  if (!released_) {
    // One that was cloned but not adopted yet is attached, too: whoever can be waited for is ours.
    for (size_t i = 0; i < pids_.size(); ++i)
      if (by_node_[i] != nullptr || waitpid(pids_[i], nullptr, __WALL | WNOHANG) >= 0) kill(pids_[i], SIGKILL);
    puppets_.clear();
    temporary_.clear();
    for (pid_t pid : pids_)
      while (waitpid(pid, nullptr, __WALL) == pid) {
      }
  }
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

// ---- memory ----------------------------------------------------------------------------------------------

std::vector<AddressRange> PuppetTree::inherited_ranges(const PlannedProcess& p) const {
  std::vector<AddressRange> out;
  if (p.origin == nullptr) return out;
  const auto& parents = p.origin->vmas.areas;
  auto at = parents.begin();
  // Also the protection that both have while the memory is filled.
  const auto same_at_first = [&](const Vma& v, size_t i) {
    const auto theirs = static_cast<size_t>(at - parents.begin());
    return first_protection(*at, p.origin->fill->stored_pages(theirs)) == first_protection(v, p.fill->stored_pages(i));
  };
  for (size_t i = 0; i < p.vmas.areas.size(); ++i) {
    const Vma& v = p.vmas.areas[i];
    while (at != parents.end() && at->start < v.start) ++at;
    const bool other_vdso = (v.has(vma_status::vdso) || v.has(vma_status::vvar)) && !vdso_.inherited(p);
    if (at != parents.end() && same_area(*at, v) && !v.mapped_later && !v.has(kNotInherited) && !other_vdso &&
        same_at_first(v, i) && same_policy(*p.origin, p, v.start))
      out.push_back({v.start, v.end});
  }
  drop_parts_of_attachments(p.vmas.areas, out);
  return out;
}

int PuppetTree::shared_object(uint64_t shmid) {
  Fd& fd = shared_objects_[shmid];
  if (!fd) {
    SharedNeed need;
    for (const auto& p : plan_.processes) add_need(need, shmid, p->vmas.areas);
    const auto pages = PagemapReader::open(store_, ImageKind::SHMEM_PAGEMAP, shmid);
    if (pages) add_need(need, *pages);
    fd = shmem_create(need);
    if (pages) shmem_fill(fd.get(), *pages, fmt::format("shared memory {}", shmid));
  }
  return fd.get();
}

int PuppetTree::mapped_file(uint32_t id, uint32_t mode) {
  Fd& fd = mapped_files_[{id, mode}];
  if (!fd) fd = files_.open_mapped(id, static_cast<int>(mode));
  return fd.get();
}

namespace {

// Unmaps everything but the batch area and the inherited ranges.
void unmap_rest(SyscallBatch& batch, std::vector<AddressRange> keep, const BatchArea& area, uint64_t end) {
  keep.push_back({area.address(), area.end()});
  std::sort(keep.begin(), keep.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
  uint64_t from = 0;
  for (const AddressRange& r : keep) {
    if (r.start > from) batch.must(SYS_munmap, {from, r.start - from});
    from = std::max(from, r.end);
  }
  if (from < end) batch.must(SYS_munmap, {from, end - from});
}

bool same_mm_fields(const pb::mm_entry& a, const pb::mm_entry& b) {
  return a.mm_start_code() == b.mm_start_code() && a.mm_end_code() == b.mm_end_code() &&
         a.mm_start_data() == b.mm_start_data() && a.mm_end_data() == b.mm_end_data() &&
         a.mm_start_brk() == b.mm_start_brk() && a.mm_brk() == b.mm_brk() && a.mm_start_stack() == b.mm_start_stack() &&
         a.mm_arg_start() == b.mm_arg_start() && a.mm_arg_end() == b.mm_arg_end() &&
         a.mm_env_start() == b.mm_env_start() && a.mm_env_end() == b.mm_env_end() &&
         a.exe_file_id() == b.exe_file_id() && std::ranges::equal(a.mm_saved_auxv(), b.mm_saved_auxv());
}

void set_mm_fields(SyscallBatch& batch, const pb::mm_entry& mm, int exe_fd) {
  uapi::prctl_mm_map map{};
  map.start_code = mm.mm_start_code();
  map.end_code = mm.mm_end_code();
  map.start_data = mm.mm_start_data();
  map.end_data = mm.mm_end_data();
  map.start_brk = mm.mm_start_brk();
  map.brk = mm.mm_brk();
  map.start_stack = mm.mm_start_stack();
  map.arg_start = mm.mm_arg_start();
  map.arg_end = mm.mm_arg_end();
  map.env_start = mm.mm_env_start();
  map.env_end = mm.mm_env_end();
  std::vector<uint64_t> auxv(mm.mm_saved_auxv().begin(), mm.mm_saved_auxv().end());
  map.auxv_size = static_cast<uint32_t>(auxv.size() * sizeof(uint64_t));
  map.exe_fd = static_cast<uint32_t>(exe_fd);
  const BatchData words = batch.data(std::as_bytes(std::span(auxv)));
  const BatchData fields = batch.object(map);
  batch.point(fields.part(offsetof(uapi::prctl_mm_map, auxv), 8), words);
  batch.must(SYS_prctl, {uapi::pr_set_mm, uapi::pr_set_mm_map, fields, sizeof map, 0});
}

}  // namespace

void PuppetTree::start_memory(PlannedProcess& p) {
  Puppet& puppet = this->puppet(p);
  const FillPlan& fill = *p.fill;
  const std::vector<AddressRange> inherited = inherited_ranges(p);
  const auto is_inherited = [&](const Vma& v) {
    return std::binary_search(inherited.begin(), inherited.end(), AddressRange{v.start, v.end},
                              [](const auto& a, const auto& b) { return a.start < b.start; });
  };

  // One descriptor for each file and open mode; they get the numbers 0, 1, 2 ... in the puppet.
  std::vector<int> sent;
  std::map<std::pair<uint64_t, uint32_t>, int> numbers;
  const auto number_of = [&](uint64_t key, uint32_t mode, auto open) {
    const auto [at, fresh] = numbers.try_emplace({key, mode}, static_cast<int>(sent.size()));
    if (fresh) sent.push_back(open());
    return at->second;
  };
  constexpr uint32_t kObject = 1u << 31;  // key is a shared object, not a file
  const auto mapped_number = [&](const Vma& v) {
    if (v.is_nameless_object()) return number_of(v.shmid, kObject, [&] { return shared_object(v.shmid); });
    const uint32_t mode = v.fdflags.value_or(O_RDONLY);
    return number_of(v.shmid, mode, [&] { return mapped_file(static_cast<uint32_t>(v.shmid), mode); });
  };
  const bool same_exe = p.origin != nullptr && p.origin->mm.exe_file_id() == p.mm.exe_file_id();
  const int exe =
      same_exe ? -1
               : number_of(p.mm.exe_file_id(), O_RDONLY, [&] { return mapped_file(p.mm.exe_file_id(), O_RDONLY); });
  for (const Vma& v : p.vmas.areas)
    if (is_mapped_by_us(v) && !is_inherited(v) && (v.is_file() || v.is_nameless_object())) mapped_number(v);

  auto batch = std::make_unique<SyscallBatch>();
  const auto flush_if_full = [&] {
    if (batch->size() + kBatchRoom <= kLeaderSlotBytes) return;
    puppet.run(*batch, waiter_);
    batch->clear();
  };
  for (size_t first = 0; first < sent.size(); first += FdChannels::kMost) {
    const auto part = std::span(sent).subspan(first, std::min(FdChannels::kMost, sent.size() - first));
    channels_.send(0, part);
    channels_.receive(*batch, 0, part.size());
    // The channel is shared: the message must be taken before another puppet receives.
    puppet.run(*batch, waiter_);
    batch->clear();
  }
  // A child that has all areas of its parent has nothing else.
  const auto can_be_inherited = [](const Vma& v) { return !v.has(kNotInherited) && !v.mapped_later; };
  const bool has_more = p.origin != nullptr && static_cast<ptrdiff_t>(inherited.size()) !=
                                                   std::ranges::count_if(p.origin->vmas.areas, can_be_inherited);
  if (has_more) {
    std::vector<AddressRange> keep = inherited;
    if (vdso_.inherited(p)) keep.push_back(vdso_.beside(p));
    unmap_rest(*batch, std::move(keep), puppet.host().area(), p.address_end());
  }
  if (!vdso_.inherited(p)) vdso_.map(p, *batch);
  attach_segments(p, inherited, *batch, flush_if_full);
  const auto& areas = p.vmas.areas;
  for (size_t i = 0; i < areas.size(); ++i) {
    const Vma& v = areas[i];
    if (!is_mapped_by_us(v) || is_inherited(v) || v.is_segment()) continue;
    const uint32_t prot = first_protection(v, fill.stored_pages(i));
    uint64_t pages = fill.stored_pages(i);
    bool loses_write = prot != v.prot;
    while (i + 1 < areas.size() && continues(areas[i], areas[i + 1]) && !is_inherited(areas[i + 1]) &&
           first_protection(areas[i + 1], fill.stored_pages(i + 1)) == prot) {
      pages += fill.stored_pages(++i);
      loses_write |= prot != areas[i].prot;
    }
    const uint64_t size = areas[i].end - v.start;
    const int fd = v.is_file() || v.is_nameless_object() ? mapped_number(v) : -1;
    batch->must(SYS_mmap, {v.start, size, prot, mmap_flags(v), fd, v.pgoff_bytes});
    if (loses_write && pages == 0 && v.has(vma_status::anon_private)) {
      // It had a page that is gone by now; without ever having one it would lose its account, too.
      batch->call(SYS_madvise, {v.start, page_size_bytes(), uapi::madv_populate_write});
      batch->must(SYS_madvise, {v.start, size, MADV_DONTNEED});
    }
    flush_if_full();
  }
  set_policies(p, inherited, *batch, flush_if_full);
  if (p.origin == nullptr || !same_mm_fields(p.origin->mm, p.mm)) set_mm_fields(*batch, p.mm, exe);
  if (!sent.empty()) batch->must(SYS_close_range, {0, sent.size() - 1, 0});
  if (batch->empty()) return;
  puppet.start(*batch);
  batches_[&p] = std::move(batch);
}

// The areas stand; a worker writes the pages, while other processes are made.
void PuppetTree::fill_memory(PlannedProcess& p) {
  Puppet& puppet = this->puppet(p);
  if (const auto batch = batches_.find(&p); batch != batches_.end()) {
    puppet.finish(*batch->second, waiter_);
    batches_.erase(batch);
  }
  PendingFill& pending = *(filling_[&p] = std::make_unique<PendingFill>());
  workers_->post([this, &p, &puppet, &pending] {
    const FillTarget target{p.pid, [&puppet] { return puppet.memory_fd(); }, p.describe()};
    if (!vdso_.inherited(p)) vdso_.write(p, puppet.memory_fd());
    if (p.origin == nullptr)
      pending.result.stats = p.fill->fill(target);
    else
      pending.result = p.fill->fill_child(target, *p.origin->fill, inherited_ranges(p));
    pending.done = true;
  });
}

void PuppetTree::finish_memory(PlannedProcess& p) {
  const auto at = filling_.find(&p);
  if (at == filling_.end()) return;
  workers_->help_until(at->second->done);
  const FillPlan::ChildFill result = std::move(at->second->result);
  filling_.erase(at);
  stats_.written_pages += result.stats.written_pages;
  stats_.kept_pages += result.stats.kept_pages;
  if (result.drop.empty()) return;
  Puppet& puppet = this->puppet(p);
  SyscallBatch batch;
  for (const AddressRange& r : result.drop) {
    batch.must(SYS_madvise, {r.start, r.size_bytes(), MADV_DONTNEED});
    if (batch.size() + kBatchRoom > kLeaderSlotBytes) {
      puppet.run(batch, waiter_);
      batch.clear();
    }
  }
  puppet.run(batch, waiter_);
}

namespace {

void lock_area(SyscallBatch& batch, const Vma& v, uint64_t stored_pages, bool has_guards) {
  const uint64_t flags = locks_on_fault(v, stored_pages) ? MLOCK_ONFAULT : 0;
  // Pages that cannot be read make the call say ENOMEM after it has locked the area.
  if (has_guards || (v.prot & PROT_READ) == 0) {
    batch.call(SYS_mlock2, {v.start, v.size_bytes(), flags});
  } else {
    batch.must(SYS_mlock2, {v.start, v.size_bytes(), flags});
  }
}

}  // namespace

void PuppetTree::start_advice(PlannedProcess& p) {
  Puppet& puppet = this->puppet(p);
  const FillPlan& fill = *p.fill;
  auto owned = std::make_unique<SyscallBatch>();
  SyscallBatch& batch = *owned;
  const auto run_if_full = [&] {
    if (batch.size() + kBatchRoom <= kLeaderSlotBytes) return;
    puppet.run(batch, waiter_);
    batch.clear();
  };
  for (size_t i = 0; i < p.vmas.areas.size(); ++i) {
    const Vma& v = p.vmas.areas[i];
    if (!is_mapped_by_us(v) || first_protection(v, fill.stored_pages(i)) == v.prot) continue;
    batch.must(SYS_mprotect, {v.start, v.size_bytes(), v.prot});
    run_if_full();
  }
  for (const Vma& v : p.vmas.areas) {
    if (!is_mapped_by_us(v)) continue;
    for (uint64_t left = v.madv & ~advice_by_mmap(); left != 0; left &= left - 1)
      batch.must(SYS_madvise, {v.start, v.size_bytes(), __builtin_ctzll(left)});
    run_if_full();
  }
  for (const AddressRange& g : p.vmas.guards) {
    batch.must(SYS_madvise, {g.start, g.size_bytes(), uapi::madv_guard_install});
    run_if_full();
  }
  // Locked memory takes no guards.
  auto guard = p.vmas.guards.begin();
  for (size_t i = 0; i < p.vmas.areas.size(); ++i) {
    const Vma& v = p.vmas.areas[i];
    while (guard != p.vmas.guards.end() && guard->end <= v.start) ++guard;
    if (v.is_locked() && is_mapped_by_us(v))
      lock_area(batch, v, fill.stored_pages(i), guard != p.vmas.guards.end() && guard->start < v.end);
    run_if_full();
  }
  // Nothing can be changed afterwards.
  for (const Vma& v : p.vmas.areas)
    if (v.sealed && is_mapped_by_us(v)) {
      batch.must(uapi::sys_mseal, {v.start, v.size_bytes(), 0});
      run_if_full();
    }
  if (batch.empty()) return;
  puppet.start(batch);
  batches_[&p] = std::move(owned);
}

// ---- the dead, and threads -------------------------------------------------------------------------------

void PuppetTree::end_zombies() {
  for (const auto& p : plan_.processes) {
    if (!p->zombie) continue;
    SyscallBatch name;
    const BatchData text = name.text(p->name);
    name.must(SYS_prctl, {PR_SET_NAME, text});
    puppet(*p).run(name, waiter_);
    puppet(*p).die(static_cast<int>(p->task.exit_code), waiter_);
  }
}

void PuppetTree::stop_processes() {
  for (const auto& p : plan_.processes) {
    if (p->zombie || p->task.stop_signal == 0) continue;
    puppet(*p).stop_by(p->task.stop_signal, waiter_);
    if (!p->task.stop_collected || p->parent == nullptr) continue;
    SyscallBatch batch;
    batch.must(SYS_wait4, {p->pid, nullptr, WUNTRACED | WNOHANG | __WALL, nullptr});
    puppet(*p->parent).run(batch, waiter_);
  }
}

void PuppetTree::forget_child_signals() {
  constexpr int kFirstQueued = 32;  // real-time ones queue up, one for each child
  std::map<const PlannedProcess*, std::multiset<int>> signals;
  for (const auto& p : plan_.processes) {
    if (p->parent == nullptr || (!p->zombie && p->task.stop_signal == 0)) continue;
    const int signal = p->zombie ? p->task.exit_signal : SIGCHLD;
    std::multiset<int>& sent = signals[p->parent];
    if (signal != 0 && (signal >= kFirstQueued || !sent.contains(signal))) sent.insert(signal);
  }
  for (const auto& [p, sent] : signals) {
    SyscallBatch batch;
    for (const int signal : sent) {
      const BatchData no_wait = batch.object(timespec{});
      const BatchData set = batch.object(uint64_t{1} << (signal - 1));
      batch.call(SYS_rt_sigtimedwait, {set, nullptr, no_wait, sizeof(uint64_t)});
      if (batch.size() + kBatchRoom <= kLeaderSlotBytes) continue;
      puppet(*p).run(batch, waiter_);
      batch.clear();
    }
    if (!batch.empty()) puppet(*p).run(batch, waiter_);
  }
}

void PuppetTree::clone_threads_with_tables(const PlannedProcess& p, Puppet& puppet) {
  for (const ThreadBirth& b : p.thread_births) {
    const pid_t tid = p.threads[b.thread].tid;
    puppet.clone_threads(puppet.thread(p.threads[b.cloner].tid), {&tid, 1}, kBatchRoom, waiter_, b.shared);
  }
  puppet.sort_threads(p.thread_order());
}

void PuppetTree::clone_threads(Tables tables) {
  for (const auto& p : plan_.processes) {
    if (p->zombie || p->thread_births.empty() != (tables == Tables::of_leader)) continue;
    Puppet& puppet = this->puppet(*p);
    const pid_t first = p->threads.front().tid;
    // Then this one is to the others what the leader mostly is.
    if (p->leader_has_ended()) puppet.clone_threads(puppet.leader(), {&first, 1}, kBatchRoom, waiter_);
    if (tables == Tables::own) {
      filters_.install_all(*p, puppet, waiter_);
      clone_threads_with_tables(*p, puppet);
      continue;
    }
    if (filters_.clone_threads(*p, puppet, waiter_)) continue;
    std::vector<pid_t> tids;
    for (const PlannedThread& t : std::span(p->threads).subspan(1)) tids.push_back(t.tid);
    puppet.clone_threads(puppet.thread(first), tids, kBatchRoom, waiter_);
  }
}

}  // namespace stasis

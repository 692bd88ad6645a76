#include "checkpoint/process_images.h"

#include "memory/vma_extension.h"
#include "objects/task/dumpable.h"
#include "objects/task/registers.h"
#include "objects/task/task_state.h"
#include "objects/task/thp_disable.h"
#include "proto/fs.pb.h"
#include "proto/mm.pb.h"

namespace stasis {

namespace {

// A leader that has ended has a core for what belongs to the process.
void write_cores(const FrozenProcess& p, ImageStore& store) {
  if (p.leader_has_ended()) {
    pb::core_entry core;
    core.set_mtype(CpuRegisters::architecture);
    p.states.encode(core);
    store.write_single(ImageKind::CORE, static_cast<uint64_t>(p.pid()), core);
  }
  for (const FrozenThread& t : p.threads) {
    pb::core_entry core;
    core.set_mtype(CpuRegisters::architecture);
    if (t.stat.pid == p.pid()) p.states.encode(core);
    t.states.encode(core);
    store.write_single(ImageKind::CORE, static_cast<uint64_t>(t.stat.pid), core);
  }
}

void write_mm(const FrozenProcess& p, ImageStore& store) {
  const ProcStat& s = p.threads.front().stat;
  pb::mm_entry mm;
  mm.set_mm_start_code(s.start_code);
  mm.set_mm_end_code(s.end_code);
  mm.set_mm_start_data(s.start_data);
  mm.set_mm_end_data(s.end_data);
  mm.set_mm_start_stack(s.start_stack);
  mm.set_mm_start_brk(s.start_brk);
  mm.set_mm_brk(p.brk);
  mm.set_mm_arg_start(s.arg_start);
  mm.set_mm_arg_end(s.arg_end);
  mm.set_mm_env_start(s.env_start);
  mm.set_mm_env_end(s.env_end);
  mm.set_exe_file_id(p.exe_file_id);
  for (const AuxEntry& a : p.auxv) {
    mm.add_mm_saved_auxv(a.type);
    mm.add_mm_saved_auxv(a.value);
  }
  // The vector ends with AT_NULL.
  mm.add_mm_saved_auxv(0);
  mm.add_mm_saved_auxv(0);
  for (const Vma& v : p.vmas) encode(v, *mm.add_vmas());
  for (const AddressRange& g : p.guards) encode_guard(g, *mm.add_vmas());
  mm.set_dumpable(p.states.get<Dumpable>().value);
  if (p.states.get<ThpDisable>().disabled) mm.set_thp_disabled(true);
  store.write_single(ImageKind::MM, static_cast<uint64_t>(p.pid()), mm);
}

void encode_tables(const FrozenProcess& p, const FrozenThread& t, pb::extension_tables& out) {
  const OwnTables& own = *t.own_tables;
  out.set_files_id(own.ids.files);
  out.set_fs_id(own.ids.fs);
  if (own.ids.fs == p.ids.fs) return;
  out.set_cwd_id(own.cwd_file_id);
  out.set_root_id(own.root_file_id);
  out.set_umask(t.status.umask.value_or(022));
}

}  // namespace

void write_process_images(const FrozenProcess& p, ImageStore& store) {
  const auto pid = static_cast<uint64_t>(p.pid());
  write_cores(p, store);
  pb::task_kobj_ids_entry ids;
  encode(p.ids, ids);
  store.write_single(ImageKind::IDS, pid, ids);
  write_mm(p, store);
  pb::fs_entry fs;
  fs.set_cwd_id(p.cwd_file_id);
  fs.set_root_id(p.root_file_id);
  fs.set_umask(p.threads.front().status.umask.value_or(022));
  store.write_single(ImageKind::FS, pid, fs);
}

void write_extension(const FrozenProcess& p, ExtensionWriter& extension) {
  const auto encode_process = [&](pb::extension_task& task) {
    p.states.encode_extension(task);
    encode_extension(p.vmas, p.policies.found(), task);
  };
  if (p.leader_has_ended()) {
    pb::extension_task task;
    task.set_tid(static_cast<uint32_t>(p.pid()));
    encode_process(task);
    extension.write(task);
  }
  for (const FrozenThread& t : p.threads) {
    pb::extension_task task;
    task.set_tid(static_cast<uint32_t>(t.stat.pid));
    if (t.stat.pid == p.pid()) encode_process(task);
    t.states.encode_extension(task);
    if (t.own_tables) encode_tables(p, t, *task.mutable_thread()->mutable_tables());
    extension.write(task);
  }
}

void write_zombie_images(const ProcStat& stat, ImageStore& store, ExtensionWriter& extension) {
  const TaskState::State state = zombie_state(stat);
  pb::core_entry core;
  core.set_mtype(CpuRegisters::architecture);
  TaskState::encode(state, core);
  store.write_single(ImageKind::CORE, static_cast<uint64_t>(stat.pid), core);
  pb::extension_task task;
  task.set_tid(static_cast<uint32_t>(stat.pid));
  TaskState::encode_extension(state, task);
  extension.write(task);
}

}  // namespace stasis

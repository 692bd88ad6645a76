#include "objects/task/credentials.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <bit>

#include "base/error.h"
#include "objects/task/own_status.h"

namespace stasis {

namespace {

using State = Credentials::State;

constexpr std::string_view kCapabilityNames[] = {"CHOWN",
                                                 "DAC_OVERRIDE",
                                                 "DAC_READ_SEARCH",
                                                 "FOWNER",
                                                 "FSETID",
                                                 "KILL",
                                                 "SETGID",
                                                 "SETUID",
                                                 "SETPCAP",
                                                 "LINUX_IMMUTABLE",
                                                 "NET_BIND_SERVICE",
                                                 "NET_BROADCAST",
                                                 "NET_ADMIN",
                                                 "NET_RAW",
                                                 "IPC_LOCK",
                                                 "IPC_OWNER",
                                                 "SYS_MODULE",
                                                 "SYS_RAWIO",
                                                 "SYS_CHROOT",
                                                 "SYS_PTRACE",
                                                 "SYS_PACCT",
                                                 "SYS_ADMIN",
                                                 "SYS_BOOT",
                                                 "SYS_NICE",
                                                 "SYS_RESOURCE",
                                                 "SYS_TIME",
                                                 "SYS_TTY_CONFIG",
                                                 "MKNOD",
                                                 "LEASE",
                                                 "AUDIT_WRITE",
                                                 "AUDIT_CONTROL",
                                                 "SETFCAP",
                                                 "MAC_OVERRIDE",
                                                 "MAC_ADMIN",
                                                 "SYSLOG",
                                                 "WAKE_ALARM",
                                                 "BLOCK_SUSPEND",
                                                 "AUDIT_READ",
                                                 "PERFMON",
                                                 "BPF",
                                                 "CHECKPOINT_RESTORE"};

std::string capability_names(uint64_t set) {
  std::string out;
  for (; set != 0; set &= set - 1) {
    const auto i = static_cast<size_t>(std::countr_zero(set));
    if (!out.empty()) out += ", ";
    out += i < std::size(kCapabilityNames) ? fmt::format("CAP_{}", kCapabilityNames[i]) : fmt::format("number {}", i);
  }
  return out;
}

// Capabilities that this kernel has.
uint64_t known_capabilities() {
  static const uint64_t known = [] {
    uint64_t set = 0;
    for (int i = 0; i < 64 && prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; ++i) set |= uint64_t{1} << i;
    return set;
  }();
  return known;
}

State from_status(const ProcStatus& status) {
  return {.uid = status.uid,
          .gid = status.gid,
          .groups = status.groups,
          .inheritable = status.cap_inheritable,
          .permitted = status.cap_permitted,
          .effective = status.cap_effective,
          .bounding = status.cap_bounding,
          .ambient = status.cap_ambient,
          .securebits = 0,
          .no_new_privs = status.no_new_privs};
}

using Words = google::protobuf::RepeatedField<uint32_t>;

void put(uint64_t set, Words* out) {
  out->Add(static_cast<uint32_t>(set));
  out->Add(static_cast<uint32_t>(set >> 32));
}

uint64_t take(const Words& in) {
  if (in.size() > 2) throw Error(Reason::IMAGE_CORRUPT, "a capability set has more than 64 bits");
  uint64_t set = 0;
  for (int i = 0; i < in.size(); ++i) set |= uint64_t{in[i]} << (32 * i);
  return set;
}

void refuse_impossible(const State& from, const State& to, const std::string& who) {
  const uint64_t lacking = (to.permitted & ~from.permitted) | (to.bounding & ~from.bounding);
  if (lacking != 0)
    throw Error(Reason::NO_PRIVILEGE,
                fmt::format("it had capabilities that this program lacks: {}", capability_names(lacking)))
        .object(who)
        .remedy("run the restore with all capabilities that the saved tasks have, in the bounding set, too");
  if (from.no_new_privs && !to.no_new_privs)
    throw Error(Reason::NO_PRIVILEGE, "it was saved without no_new_privs, which this program has and cannot clear")
        .object(who)
        .remedy("run the restore without no_new_privs");
}

void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable, SyscallBatch& batch) {
  const __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const auto low = [](uint64_t set) { return static_cast<uint32_t>(set); };
  const auto high = [](uint64_t set) { return static_cast<uint32_t>(set >> 32); };
  const std::array<__user_cap_data_struct, 2> data{
      __user_cap_data_struct{.effective = low(effective), .permitted = low(permitted), .inheritable = low(inheritable)},
      __user_cap_data_struct{
          .effective = high(effective), .permitted = high(permitted), .inheritable = high(inheritable)}};
  batch.must(SYS_capset, {batch.object(header), batch.object(data)});
}

void set_ids(const State& to, SyscallBatch& batch) {
  batch.must(SYS_setgroups, {to.groups.size(), batch.data(std::as_bytes(std::span(to.groups)))});
  batch.must(SYS_setresuid, {to.uid[0], to.uid[1], to.uid[2]});
  if (to.uid[3] != to.uid[1]) batch.must(SYS_setfsuid, {to.uid[3]});
  batch.must(SYS_setresgid, {to.gid[0], to.gid[1], to.gid[2]});
  if (to.gid[3] != to.gid[1]) batch.must(SYS_setfsgid, {to.gid[3]});
}

}  // namespace

const State& own_credentials() {
  static const State own = [] {
    State state = from_status(own_status());
    state.securebits = static_cast<uint32_t>(check(prctl(PR_GET_SECUREBITS), "the securebits cannot be read"));
    return state;
  }();
  return own;
}

void Credentials::look(const LookView& view, State& state) {
  state = from_status(view.status);
}

void Credentials::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.securebits = batch.must(SYS_prctl, {PR_GET_SECUREBITS, 0, 0, 0, 0});
}

void Credentials::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.securebits = static_cast<uint32_t>(batch.result(ask.securebits));
}

void Credentials::encode(const State& state, pb::core_entry& core) {
  pb::creds_entry& out = *core.mutable_thread_core()->mutable_creds();
  out.set_uid(state.uid[0]);
  out.set_euid(state.uid[1]);
  out.set_suid(state.uid[2]);
  out.set_fsuid(state.uid[3]);
  out.set_gid(state.gid[0]);
  out.set_egid(state.gid[1]);
  out.set_sgid(state.gid[2]);
  out.set_fsgid(state.gid[3]);
  put(state.inheritable, out.mutable_cap_inh());
  put(state.permitted, out.mutable_cap_prm());
  put(state.effective, out.mutable_cap_eff());
  put(state.bounding, out.mutable_cap_bnd());
  put(state.ambient, out.mutable_cap_amb());
  out.set_secbits(state.securebits);
  out.mutable_groups()->Assign(state.groups.begin(), state.groups.end());
  out.set_no_new_privs(state.no_new_privs ? 1 : 0);
}

void Credentials::decode(const pb::core_entry& core, State& state) {
  if (!core.thread_core().has_creds()) throw Error(Reason::IMAGE_CORRUPT, "the core image holds no credentials");
  const pb::creds_entry& in = core.thread_core().creds();
  state.uid = {in.uid(), in.euid(), in.suid(), in.fsuid()};
  state.gid = {in.gid(), in.egid(), in.sgid(), in.fsgid()};
  state.groups.assign(in.groups().begin(), in.groups().end());
  state.inheritable = take(in.cap_inh());
  state.permitted = take(in.cap_prm());
  state.effective = take(in.cap_eff());
  state.bounding = take(in.cap_bnd());
  state.ambient = take(in.cap_amb());
  state.securebits = in.secbits();
  state.no_new_privs = in.no_new_privs() != 0;
  if ((state.effective & ~state.permitted) != 0 || (state.ambient & ~(state.permitted & state.inheritable)) != 0)
    throw Error(Reason::IMAGE_CORRUPT, "the capability sets contradict each other");
}

void Credentials::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  State to = state;
  // A kernel that does not know a capability has nothing that could be denied for the lack of it.
  for (uint64_t* set : {&to.inheritable, &to.permitted, &to.effective, &to.bounding, &to.ambient})
    *set &= known_capabilities();
  change_credentials(own_credentials(), to, view.who, batch);
}

void change_credentials(const State& from, const State& to, const std::string& who, SyscallBatch& batch) {
  if (to == from) return;
  refuse_impossible(from, to, who);
  // Keeps the capabilities while the ids change.
  batch.must(SYS_prctl, {PR_SET_SECUREBITS, from.securebits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0});
  set_ids(to, batch);
  for (uint64_t drop = from.bounding & ~to.bounding; drop != 0; drop &= drop - 1)
    batch.must(SYS_prctl, {PR_CAPBSET_DROP, std::countr_zero(drop), 0, 0, 0});
  // A capability becomes ambient only while it is permitted and inheritable, and before a securebit forbids it; the
  // securebits need CAP_SETPCAP. So the capabilities are lowered last.
  set_capabilities(from.effective, from.permitted, to.inheritable, batch);
  if (from.ambient != 0) batch.must(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0});
  for (uint64_t raise = to.ambient; raise != 0; raise &= raise - 1)
    batch.must(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, std::countr_zero(raise), 0, 0});
  batch.must(SYS_prctl, {PR_SET_SECUREBITS, to.securebits, 0, 0, 0});
  set_capabilities(to.effective, to.permitted, to.inheritable, batch);
  if (to.no_new_privs && !from.no_new_privs) batch.must(SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
}

}  // namespace stasis

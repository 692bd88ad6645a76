#include "cli/option_table.h"

#include <unistd.h>

#include <cerrno>
#include <limits>
#include <type_traits>

#include "base/error.h"
#include "cli/values.h"

namespace stasis::cli {

namespace {

using Setter = void (*)(CommandLine&, const char*, bool);

// --- setters that only need to know a field ---

template <bool CommandLine::*field>
void flag(CommandLine& line, const char*, bool on) {
  line.*field = on;
}

// For options whose very name says no.
template <bool CommandLine::*field>
void negative(CommandLine& line, const char*, bool) {
  line.*field = false;
}

template <std::string CommandLine::*field>
void text(CommandLine& line, const char* argument, bool) {
  line.*field = argument;
}

template <std::vector<std::string> CommandLine::*field>
void list(CommandLine& line, const char* argument, bool) {
  (line.*field).emplace_back(argument);
}

template <auto field, uint64_t low, uint64_t high>
void number(CommandLine& line, const char* argument, bool) {
  using Value = std::remove_reference_t<decltype(line.*field)>;
  static_assert(high <= static_cast<uint64_t>(std::numeric_limits<Value>::max()));
  line.*field = static_cast<Value>(parse_number(argument, low, high));
}

template <auto field, auto parse>
void parsed(CommandLine& line, const char* argument, bool) {
  line.*field = parse(argument);
}

// --- setters with a rule of their own ---

constexpr uint64_t kMaxInt = std::numeric_limits<int>::max();

void set_verbosity(CommandLine& line, const char* argument, bool) {
  line.verbosity = parse_verbosity(argument, line.verbosity);
}

void add_close(CommandLine& line, const char* argument, bool) {
  line.close_fds.push_back(static_cast<int>(parse_number(argument, 0, kMaxInt)));
}

void set_ext_unix_sk(CommandLine& line, const char* argument, bool on) {
  line.ext_unix_sk = on;
  if (argument == nullptr) return;
  for (const std::string& inode : split(argument, ',')) {
    parse_number(inode, 1, std::numeric_limits<uint64_t>::max());
    line.external.push_back("unix[" + inode + "]");
  }
}

void set_cpu_cap(CommandLine& line, const char* argument, bool) {
  parse_cpu_list(argument, line.cpu);
}

void add_enable_fs(CommandLine& line, const char* argument, bool) {
  for (std::string& type : split(argument, ',')) line.enable_fs.push_back(std::move(type));
}

void add_allow_lossy(CommandLine& line, const char* argument, bool) {
  for (std::string& name : split(argument, ',')) line.allow_lossy.push_back(parse_loss(name));
}

void add_external(CommandLine& line, const char* argument, bool) {
  check_external(argument);
  const std::string_view spec = argument;
  if (!spec.starts_with("mnt[]")) {
    line.external.emplace_back(spec);
    return;
  }
  line.external_auto = true;
  // Only the first letter behind the colon counts: m asks for external masters, s for shared mounts.
  if (spec.starts_with("mnt[]:m")) line.external_masters = true;
  if (spec.starts_with("mnt[]:s")) line.external_sharing = true;
}

void add_ext_mount_map(CommandLine& line, const char* argument, bool) {
  const std::string_view spec = argument;
  if (spec == "auto") {
    line.external_auto = true;
    return;
  }
  const size_t colon = spec.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == spec.size()) {
    throw Error(Reason::BAD_OPTION, "the mount has no key or no value").remedy("write KEY:VALUE or auto");
  }
  line.external.push_back("mnt[" + std::string(spec.substr(0, colon)) + "]" + std::string(spec.substr(colon)));
}

void add_veth_pair(CommandLine& line, const char* argument, bool) {
  const std::string_view spec = argument;
  const size_t equals = spec.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == spec.size()) {
    throw Error(Reason::BAD_OPTION, "the pair lacks a name").remedy("write INNER=OUTER");
  }
  line.external.push_back("veth[" + std::string(spec.substr(0, equals)) + "]:" + std::string(spec.substr(equals + 1)));
}

void add_inherit_fd(CommandLine& line, const char* argument, bool) {
  bool is_debug = false;
  InheritedFd inherited = parse_inherit_fd(argument, is_debug);
  if (!is_debug) {
    line.inherit_fd.push_back(std::move(inherited));
    return;
  }
  // The debug form is a check of the descriptor's number: its text is written as soon as the option is read.
  if (::write(inherited.fd, inherited.key.data(), inherited.key.size()) < 0) {
    throw Error(Reason::BAD_OPTION, "cannot write to the descriptor")
        .error_number(errno)
        .remedy("name a descriptor that is open for writing");
  }
}

void add_join_ns(CommandLine& line, const char* argument, bool) {
  line.join_ns.push_back(parse_join_ns(argument));
}

void set_empty_ns(CommandLine& line, const char* argument, bool) {
  if (std::string_view(argument) != "net") {
    throw Error(Reason::BAD_OPTION, "only the network namespace can be left empty").remedy("write net");
  }
  line.empty_net_namespace = true;
}

void set_lsm_profile(CommandLine& line, const char* argument, bool) {
  const std::string_view spec = argument;
  if (!spec.starts_with("apparmor:") && !spec.starts_with("selinux:")) {
    throw Error(Reason::BAD_OPTION, "the profile has no known type").remedy("write apparmor:NAME or selinux:NAME");
  }
  line.lsm_profile = spec;
}

void set_manage_cgroups(CommandLine& line, const char* argument, bool) {
  line.manage_cgroups = argument == nullptr ? CgroupMode::soft : parse_cgroup_mode(argument);
}

void add_cgroup_root(CommandLine& line, const char* argument, bool) {
  line.cgroup_roots.push_back(parse_cgroup_root(argument));
}

void set_pre_dump_mode(CommandLine& line, const char* argument, bool) {
  const std::string_view mode = argument;
  if (mode != "splice" && mode != "read") {
    throw Error(Reason::BAD_OPTION, "there is no such mode").remedy("choose from splice and read");
  }
  line.pre_dump_mode = mode == "read" ? PreDumpMode::read : PreDumpMode::splice;
}

void refuse_ms(CommandLine&, const char*, bool) {
  throw Error(Reason::BAD_OPTION, "the option was removed").remedy("leave it out");
}

// --- the table ---

constexpr Verbs D = verb_bit(Verb::dump);
constexpr Verbs P = verb_bit(Verb::pre_dump);
constexpr Verbs R = verb_bit(Verb::restore);
constexpr Verbs C = verb_bit(Verb::check);
constexpr Verbs S =
    verb_bit(Verb::lazy_pages) | verb_bit(Verb::page_server) | verb_bit(Verb::service) | verb_bit(Verb::swrk);
constexpr Verbs all = ~0u;

constexpr auto none = Argument::none;
constexpr auto required = Argument::required;
constexpr auto optional = Argument::optional;
constexpr auto ready = Support::ready;
constexpr auto missing = Support::missing;
using enum Section;
using L = CommandLine;

// clang-format off
constexpr OptionRow kRows[] = {
    // name, letter, argument, has --no-, support, verbs, section, argument name, help, setter
    {"tree", 't', required, false, ready, D | P, generic, "PID", "root of the tree to dump", number<&L::tree, 1, kMaxInt>},
    {"images-dir", 'D', required, false, ready, all, generic, "DIR", "image directory (default: the current one)", text<&L::images_dir>},
    {"work-dir", 'W', required, false, ready, all, generic, "DIR", "directory for log, pid file and statistics (default: image directory)", text<&L::work_dir>},
    {"prev-images-dir", 0, required, false, missing, D | P, generic, "DIR", "images of the step before, relative to the image directory", text<&L::prev_images_dir>},
    {"root", 'r', required, false, missing, R, generic, "PATH", "new root of the mount namespace", text<&L::root>},
    {"libdir", 'L', required, false, ready, D | P | R, generic, "DIR", "directory with plugins", text<&L::libdir>},
    {"action-script", 0, required, false, missing, D | P | R | S, generic, "FILE", "program to run at each stage; repeatable", list<&L::action_scripts>},
    {"pidfile", 0, required, false, ready, R | S, generic, "FILE", "file that gets the pid of the root task or the daemon", text<&L::pidfile>},
    {"status-fd", 0, required, false, ready, D | S, generic, "FD", "descriptor that gets a NUL byte once a server is ready", number<&L::status_fd, 0, kMaxInt>},
    {"close", 0, required, false, ready, all, generic, "FD", "close this descriptor right away; repeatable", add_close},
    {"config", 0, required, false, ready, all, generic, "FILE", "configuration file to use instead of the default ones", text<&L::config>},
    {"no-default-config", 0, none, false, ready, all, generic, "", "do not read the default configuration files", negative<&L::default_config>},
    {"unprivileged", 0, none, true, ready, all, generic, "", "accept running as another user than root", flag<&L::unprivileged>},
    {"deprecated", 0, none, true, ready, all, generic, "", "allow deprecated behaviour", flag<&L::deprecated>},
    {"help", 'h', none, false, ready, all, generic, "", "show this text", flag<&L::help>},
    {"version", 'V', none, false, ready, all, generic, "", "show the version", flag<&L::version>},

    {"log-file", 'o', required, false, ready, all, logging, "FILE", "log to this file in the work directory; - is standard output (default: standard error)", text<&L::log_file>},
    {"log-pid", 0, none, true, ready, R, logging, "", "a log file for every restored task (all tasks share one log here)", flag<&L::log_pid>},
    {"verbosity", 'v', optional, false, ready, all, logging, "NUM", "log level 0 to 4 (default 2); each bare v adds one: -vv", set_verbosity},
    {"display-stats", 0, none, true, ready, D | R, logging, "", "print statistics at the end", flag<&L::display_stats>},

    {"leave-stopped", 's', none, false, ready, D | R, dump_restore, "", "leave the tasks stopped afterwards", flag<&L::leave_stopped>},
    {"leave-running", 'R', none, false, ready, D, dump_restore, "", "let the tasks run on after the dump", flag<&L::leave_running>},
    {"restore-detached", 'd', none, true, ready, R, dump_restore, "", "do not wait for the restored tree", flag<&L::detached>},
    {"restore-sibling", 'S', none, true, ready, R, dump_restore, "", "make the root a sibling of this process (needs -d)", flag<&L::restore_sibling>},
    {"exec-cmd", 0, none, false, ready, R, dump_restore, "", "after success execute the words behind --", flag<&L::exec_cmd>},
    {"new-pid-namespace", 0, none, true, ready, R, dump_restore, "", "restore in a pid namespace of its own: for pids that are taken", flag<&L::new_pid_namespace>},
    {"shell-job", 'j', none, true, ready, D | R, dump_restore, "", "the tree was started from a shell: take session and terminal from the caller", flag<&L::shell_job>},
    {"file-locks", 'l', none, true, ready, D | R, dump_restore, "", "save and restore file locks", flag<&L::file_locks>},
    {"ext-unix-sk", 'x', optional, true, ready, D | R, dump_restore, "INODE,INODE", "unix sockets may have peers outside of the tree", set_ext_unix_sk},
    {"tcp-established", 0, none, true, ready, D | R, dump_restore, "", "save and restore established TCP connections", flag<&L::tcp_established>},
    {"tcp-close", 0, none, true, ready, D | R, dump_restore, "", "TCP connections come back closed; give it to both", flag<&L::tcp_close>},
    {"skip-in-flight", 0, none, true, ready, D, dump_restore, "", "drop TCP connections that nobody has accepted yet", flag<&L::skip_in_flight>},
    {"network-lock", 0, required, false, ready, D, dump_restore, "METHOD", "iptables, nftables or skip (default iptables)", parsed<&L::network_lock, parse_network_lock>},
    {"evasive-devices", 0, none, true, ready, D | R, dump_restore, "", "any path to the same device will do", flag<&L::evasive_devices>},
    {"link-remap", 0, none, true, ready, D | R, dump_restore, "", "allow temporary hard links for unlinked files", flag<&L::link_remap>},
    {"ghost-limit", 0, required, false, ready, D, dump_restore, "SIZE", "largest unlinked file to keep, suffix K, M or G (default: any)", parsed<&L::ghost_limit_bytes, parse_size_bytes>},
    {"ghost-fiemap", 0, none, true, ready, D, dump_restore, "", "find holes of unlinked files by the extent map, not by seeking", flag<&L::ghost_fiemap>},
    {"force-irmap", 0, none, true, ready, D, dump_restore, "", "find the paths of watched inodes by scanning", flag<&L::force_irmap>},
    {"irmap-scan-path", 0, required, false, ready, D, dump_restore, "PATH", "one more path to scan; repeatable", list<&L::irmap_scan_paths>},
    {"timeout", 0, required, false, ready, D, dump_restore, "SEC", "limit for bringing the tree to rest (default 10)", number<&L::timeout_s, 0, kMaxInt>},
    {"freeze-cgroup", 0, required, false, missing, D | P, dump_restore, "PATH", "stop the tasks by this freezer group", text<&L::freeze_cgroup>},
    {"weak-sysctls", 0, none, true, ready, R, dump_restore, "", "skip sysctls that this kernel does not have", flag<&L::weak_sysctls>},
    {"cpu-cap", 0, optional, false, ready, D | R, dump_restore, "LIST", "CPU features to demand: fpu, cpu, ins, all, none; ^ takes one out (default fpu,ins)", set_cpu_cap},
    {"cpu-affinity", 0, required, false, ready, R, dump_restore, "CHOICE", "keep (default), or ignore the processors that tasks were bound to", parsed<&L::cpu_affinity, parse_cpu_affinity>},
    {"file-validation", 0, required, false, ready, D | R, dump_restore, "METHOD", "filesize or buildid (default buildid)", parsed<&L::file_validation, parse_file_validation>},
    {"skip-file-rwx-check", 0, none, true, ready, R, dump_restore, "", "permission bits of files may have changed", flag<&L::skip_file_rwx_check>},
    {"allow-grown", 0, none, true, ready, R, dump_restore, "", "files may have grown since the dump", flag<&L::allow_grown>},
    {"allow-lossy", 0, required, false, ready, D, dump_restore, "LIST", "state to leave out where no image can hold it: core-scheduling, landlock, unread-events; repeatable", add_allow_lossy},
    {"allow-uprobes", 0, none, true, ready, D | R, dump_restore, "", "accept the mapping of uprobes; give it to both", flag<&L::allow_uprobes>},
    {"mntns-compat-mode", 0, none, true, ready, R, dump_restore, "", "build mounts the older way", flag<&L::mntns_compat_mode>},
    {"no-timens", 0, none, false, ready, R, dump_restore, "", "make no time namespace: monotonic clocks may jump", negative<&L::time_namespace>},
    {"enable-fs", 0, required, false, ready, D | R, dump_restore, "LIST", "file system types that need no saving, or all; repeatable", add_enable_fs},
    {"skip-mnt", 0, required, false, ready, D | R, dump_restore, "PATH", "leave out this mount; repeatable", list<&L::skip_mounts>},
    {"ext-mount-map", 'M', required, false, ready, D | R, dump_restore, "KEY:VAL", "external mount, older spelling; auto finds them", add_ext_mount_map},
    {"enable-external-sharing", 0, none, false, ready, D | R, dump_restore, "", "accept mounts shared with the outside", flag<&L::external_sharing>},
    {"enable-external-masters", 0, none, false, ready, D | R, dump_restore, "", "accept mounts that are slaves of the outside", flag<&L::external_masters>},
    {"external", 0, required, false, ready, D | R, dump_restore, "RES", "resource that stays outside, TYPE[KEY]:VALUE; repeatable", add_external},
    {"inherit-fd", 0, required, false, ready, R, dump_restore, "fd[N]:RES", "descriptor that takes the place of a saved file; repeatable", add_inherit_fd},
    {"veth-pair", 0, required, false, ready, R, dump_restore, "IN=OUT", "older spelling of --external veth[IN]:OUT", add_veth_pair},
    {"join-ns", 'J', required, false, missing, R, dump_restore, "NS:PID|FILE", "enter this namespace: net, uts, time, ipc, user or mnt; repeatable", add_join_ns},
    {"empty-ns", 0, required, false, missing, D | R, dump_restore, "net", "make the namespace but leave it empty", set_empty_ns},
    {"lsm-profile", 0, required, false, ready, R, dump_restore, "TYPE:NAME", "other profile of apparmor or selinux", set_lsm_profile},
    {"lsm-mount-context", 0, required, false, missing, R, dump_restore, "CTX", "other context of mounts that have one", text<&L::lsm_mount_context>},
    {"stream", 0, none, true, missing, D | P | R, dump_restore, "", "pass images through the streamer", flag<&L::stream>},

    {"manage-cgroups", 0, optional, false, ready, D | R, cgroups, "MODE", "ignore, none, props, soft, full or strict (default soft)", set_manage_cgroups},
    {"cgroup-root", 0, required, false, missing, D | R, cgroups, "[CTRL:]/PATH", "other root of the groups; repeatable", add_cgroup_root},
    {"cgroup-props", 0, required, false, missing, D, cgroups, "TEXT", "description of properties to save", text<&L::cgroup_props>},
    {"cgroup-props-file", 0, required, false, missing, D, cgroups, "FILE", "the same in a file", text<&L::cgroup_props_file>},
    {"cgroup-dump-controller", 0, required, false, ready, D, cgroups, "NAME", "save only this controller; repeatable", list<&L::cgroup_dump_controllers>},
    {"cgroup-yard", 0, required, false, ready, D | R, cgroups, "DIR", "prepared mounts of the hierarchies", text<&L::cgroup_yard>},

    {"snapshot", 0, required, false, ready, D, memory, "WAY", "hold memory of tasks that run on: auto (default), fork (run on while a forked copy is saved), copy", parsed<&L::snapshot, parse_memory_snapshot>},
    {"track-mem", 0, none, true, missing, D, memory, "", "track which pages change until the next step", flag<&L::track_mem>},
    {"auto-dedup", 0, none, true, missing, D | P | R, memory, "", "punch pages that are not needed any more out of the images", flag<&L::auto_dedup>},
    {"pre-dump-mode", 0, required, false, ready, P, memory, "MODE", "splice or read (default splice)", set_pre_dump_mode},
    {"lazy-pages", 0, none, false, missing, D | R | S, memory, "", "bring memory back on demand", flag<&L::lazy_pages>},
    {"page-server", 0, none, true, missing, D | P | R, memory, "", "send or fetch pages over the network", flag<&L::page_server>},

    {"address", 0, required, false, ready, D | P | R | S, server, "ADDR", "address of the server, or path of the service socket", text<&L::address>},
    {"port", 0, required, false, ready, D | P | R | S, server, "NUM", "TCP port of the server", number<&L::port, 1, 65535>},
    {"ps-socket", 0, required, false, ready, D | P | R | S, server, "FD", "connection that is already made", number<&L::ps_socket, 0, kMaxInt>},
    {"daemon", 'd', none, true, ready, S, server, "", "go to the background once ready", flag<&L::detached>},
    {"tls", 0, none, true, ready, D | P | R | S, server, "", "encrypt the connection", flag<&L::tls>},
    {"tls-cacert", 0, required, false, ready, D | P | R | S, server, "FILE", "trusted authority", text<&L::tls_cacert>},
    {"tls-cacrl", 0, required, false, ready, D | P | R | S, server, "FILE", "revocation list", text<&L::tls_cacrl>},
    {"tls-cert", 0, required, false, ready, D | P | R | S, server, "FILE", "own certificate", text<&L::tls_cert>},
    {"tls-key", 0, required, false, ready, D | P | R | S, server, "FILE", "own key", text<&L::tls_key>},
    {"tls-no-cn-verify", 0, none, false, ready, D | P | R | S, server, "", "do not check the host name", negative<&L::tls_cn_verify>},

    {"extra", 0, none, true, ready, C, check, "", "also check features that only some trees need", flag<&L::extra>},
    {"experimental", 0, none, true, ready, C, check, "", "also check features of experimental operations", flag<&L::experimental>},
    {"all", 0, none, false, ready, C, check, "", "check everything and list it", flag<&L::check_all>},
    {"feature", 0, required, false, ready, C, check, "NAME", "check only this feature", text<&L::feature>},
    {"ms", 0, none, false, ready, C, check, "", "removed", refuse_ms},
};
// clang-format on

static_assert(std::size(kRows) <= kMaxOptions);

constexpr VerbRow kVerbs[] = {
    {"dump", Verb::dump, ready, "save a tree of tasks, and end it unless told otherwise"},
    {"pre-dump", Verb::pre_dump, missing, "save memory alone; the tasks run on"},
    {"restore", Verb::restore, ready, "bring a saved tree back"},
    {"lazy-pages", Verb::lazy_pages, missing, "daemon that feeds memory to a lazy restore"},
    {"check", Verb::check, ready, "test what the kernel can do"},
    {"page-server", Verb::page_server, missing, "receive or serve pages over the network"},
    {"service", Verb::service, missing, "serve requests on a socket"},
    {"swrk", Verb::swrk, missing, "serve requests on the connection FD"},
    {"dedup", Verb::dedup, missing, "punch pages that later images hold out of earlier ones"},
    {"cpuinfo", Verb::cpuinfo, ready, "dump: write the CPU description; check: compare it"},
    {"exec", Verb::exec, ready, ""},
    {"show", Verb::show, ready, ""},
};

}  // namespace

std::span<const OptionRow> option_table() {
  return kRows;
}

std::string_view section_title(Section section) {
  switch (section) {
    case generic:
      return "Generic";
    case logging:
      return "Logging";
    case dump_restore:
      return "Dump and restore";
    case cgroups:
      return "Control groups";
    case memory:
      return "Memory";
    case server:
      return "Page server and service";
    case Section::check:
      return "Check";
  }
  return "";
}

std::span<const VerbRow> verb_table() {
  return kVerbs;
}

std::string_view verb_name(Verb verb) {
  for (const VerbRow& row : kVerbs) {
    if (row.verb == verb) return row.name;
  }
  return "";
}

}  // namespace stasis::cli

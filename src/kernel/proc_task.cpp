#include "kernel/proc_task.h"

#include "kernel/proc_text.h"

namespace stasis {

using proc_text::Cursor;

ProcStat parse_stat(std::string_view text) {
  // comm is written raw and may hold blanks, parentheses and newlines: only the last ')' of the text ends it, because
  // all that follows is numbers and one letter.
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open)
    proc_text::bad("stat", "the name in parentheses is missing", text);
  ProcStat s;
  s.pid = Cursor(text, "stat").number<pid_t>();
  s.comm.assign(text.substr(open + 1, close - open - 1));

  Cursor c(text.substr(close + 1), "stat");
  c.skip_blanks();
  s.state = c.take();
  s.ppid = c.number<pid_t>();
  s.pgid = c.number<pid_t>();
  s.sid = c.number<pid_t>();
  s.tty_nr = static_cast<uint32_t>(c.number<int32_t>());
  s.tty_pgrp = c.number<pid_t>();
  s.flags = c.number<uint32_t>();
  s.min_flt = c.number<uint64_t>();
  s.cmin_flt = c.number<uint64_t>();
  s.maj_flt = c.number<uint64_t>();
  s.cmaj_flt = c.number<uint64_t>();
  s.utime_ticks = c.number<uint64_t>();
  s.stime_ticks = c.number<uint64_t>();
  s.cutime_ticks = c.number<int64_t>();
  s.cstime_ticks = c.number<int64_t>();
  s.priority = c.number<int>();
  s.nice = c.number<int>();
  s.num_threads = c.number<int>();
  c.skip_words(1);  // itrealvalue, always 0
  s.start_time_ticks = c.number<uint64_t>();
  s.vsize_bytes = c.number<uint64_t>();
  s.rss_pages = c.number<int64_t>();
  s.rss_limit_bytes = c.number<uint64_t>();
  s.start_code = c.number<uint64_t>();
  s.end_code = c.number<uint64_t>();
  s.start_stack = c.number<uint64_t>();
  s.kstk_esp = c.number<uint64_t>();
  s.kstk_eip = c.number<uint64_t>();
  c.skip_words(4);  // signal sets cut to 31 bits: status has them whole
  s.wchan = c.number<uint64_t>();
  c.skip_words(2);  // nswap, cnswap: always 0
  s.exit_signal = c.number<int>();
  s.processor = c.number<int>();
  s.rt_priority = c.number<uint32_t>();
  s.policy = c.number<uint32_t>();
  c.skip_words(3);  // block I/O delay, guest times
  s.start_data = c.number<uint64_t>();
  s.end_data = c.number<uint64_t>();
  s.start_brk = c.number<uint64_t>();
  s.arg_start = c.number<uint64_t>();
  s.arg_end = c.number<uint64_t>();
  s.env_start = c.number<uint64_t>();
  s.env_end = c.number<uint64_t>();
  s.exit_code = c.number<int>();
  return s;
}

namespace {

// The kernel writes the name with newline and backslash escaped, and nothing else (fs/proc/array.c, proc_task_name).
std::string unescape_name(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == 'n' || text[i + 1] == '\\'))
      out.push_back(text[++i] == 'n' ? '\n' : '\\');
    else
      out.push_back(text[i]);
  }
  return out;
}

NsIds ns_ids(Cursor& c) {
  NsIds out;
  for (c.skip_blanks(); !c.at_end(); c.skip_blanks()) {
    if (out.count == out.ids.size()) c.fail("too many pid namespaces");
    out.ids[out.count++] = c.number<pid_t>();
  }
  return out;
}

std::array<uint32_t, 4> four_ids(Cursor& c) {
  return {c.number<uint32_t>(), c.number<uint32_t>(), c.number<uint32_t>(), c.number<uint32_t>()};
}

// Lines are told apart by their key; the most telling letter comes first so that a line costs one or two comparisons.
class StatusReader {
 public:
  bool saw_pid = false;

  void line(std::string_view key, Cursor& c) {
    switch (key.empty() ? '\0' : key.front()) {
      case 'S':
        signal_line(key, c);
        break;
      case 'C':
        capability_line(key, c);
        break;
      case 'N':
        name_line(key, c);
        break;
      case 'T':
        thread_line(key, c);
        break;
      case 'V':
        memory_line(key, c);
        break;
      default:
        other_line(key, c);
        break;
    }
  }
  ProcStatus take() && { return std::move(s_); }

 private:
  void signal_line(std::string_view key, Cursor& c) {
    if (key == "State") {
      c.skip_blanks();
      s_.state = c.take();
    } else if (key == "SigQ") {
      s_.sigq = c.number<uint64_t>();
      c.expect('/');
      s_.sigq_limit = c.number<uint64_t>();
    } else if (key == "SigPnd") {
      s_.sig_pending = c.number<uint64_t>(16);
    } else if (key == "ShdPnd") {
      s_.shared_pending = c.number<uint64_t>(16);
    } else if (key == "SigBlk") {
      s_.sig_blocked = c.number<uint64_t>(16);
    } else if (key == "SigIgn") {
      s_.sig_ignored = c.number<uint64_t>(16);
    } else if (key == "SigCgt") {
      s_.sig_caught = c.number<uint64_t>(16);
    } else if (key == "Seccomp") {
      s_.seccomp = c.number<int>();
    } else if (key == "Seccomp_filters") {
      s_.seccomp_filters = c.number<uint32_t>();
    } else if (key == "Speculation_Store_Bypass") {
      c.skip_blanks();
      s_.store_bypass_open = c.rest() == "thread vulnerable";
    }
  }

  void capability_line(std::string_view key, Cursor& c) {
    if (key == "CapInh")
      s_.cap_inheritable = c.number<uint64_t>(16);
    else if (key == "CapPrm")
      s_.cap_permitted = c.number<uint64_t>(16);
    else if (key == "CapEff")
      s_.cap_effective = c.number<uint64_t>(16);
    else if (key == "CapBnd")
      s_.cap_bounding = c.number<uint64_t>(16);
    else if (key == "CapAmb")
      s_.cap_ambient = c.number<uint64_t>(16);
  }

  void name_line(std::string_view key, Cursor& c) {
    if (key == "Name") {
      if (c.peek() == '\t') c.take();
      s_.name = unescape_name(c.rest());
    } else if (key == "Ngid") {
      s_.ngid = c.number<pid_t>();
    } else if (key == "NStgid") {
      s_.ns_tgid = ns_ids(c);
    } else if (key == "NSpid") {
      s_.ns_pid = ns_ids(c);
    } else if (key == "NSpgid") {
      s_.ns_pgid = ns_ids(c);
    } else if (key == "NSsid") {
      s_.ns_sid = ns_ids(c);
    } else if (key == "NoNewPrivs") {
      s_.no_new_privs = c.number<int>() != 0;
    }
  }

  void thread_line(std::string_view key, Cursor& c) {
    if (key == "Tgid")
      s_.tgid = c.number<pid_t>();
    else if (key == "TracerPid")
      s_.tracer_pid = c.number<pid_t>();
    else if (key == "Threads")
      s_.threads = c.number<uint32_t>();
    else if (key == "THP_enabled")
      s_.thp_enabled = c.number<int>() != 0;
  }

  void memory_line(std::string_view key, Cursor& c) {
    s_.has_mm = true;
    if (key == "VmSize")
      s_.vm_size_kib = c.number<uint64_t>();
    else if (key == "VmLck")
      s_.vm_locked_kib = c.number<uint64_t>();
    else if (key == "VmRSS")
      s_.vm_rss_kib = c.number<uint64_t>();
  }

  void other_line(std::string_view key, Cursor& c) {
    if (key == "Pid") {
      s_.pid = c.number<pid_t>();
      saw_pid = true;
    } else if (key == "PPid") {
      s_.ppid = c.number<pid_t>();
    } else if (key == "Uid") {
      s_.uid = four_ids(c);
    } else if (key == "Gid") {
      s_.gid = four_ids(c);
    } else if (key == "Umask") {
      s_.umask = c.number<uint32_t>(8);
    } else if (key == "FDSize") {
      s_.fd_size = c.number<uint32_t>();
    } else if (key == "Groups") {
      for (c.skip_blanks(); !c.at_end(); c.skip_blanks()) s_.groups.push_back(c.number<uint32_t>());
    } else if (key == "voluntary_ctxt_switches") {
      s_.voluntary_switches = c.number<uint64_t>();
    } else if (key == "Kthread") {
      s_.kthread = c.number<int>() != 0;
    } else if (key == "x86_Thread_features") {
      for (std::string_view word = c.word(); !word.empty(); word = c.word())
        if (word == "shstk") s_.x86_shadow_stack = true;
    }
  }

  ProcStatus s_;
};

}  // namespace

ProcStatus parse_status(std::string_view text) {
  StatusReader reader;
  const std::string_view all = text;
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    Cursor c(line.substr(colon + 1), "status");
    reader.line(line.substr(0, colon), c);
  }
  if (!reader.saw_pid) proc_text::bad("status", "the line Pid is missing", all);
  return std::move(reader).take();
}

std::optional<ProcSyscall> parse_syscall(std::string_view text) {
  if (text.starts_with("running")) return std::nullopt;
  Cursor c(text, "syscall");
  ProcSyscall call;
  call.number = c.number<int64_t>();
  if (call.number < 0) return std::nullopt;
  const auto hexadecimal = [&] {
    c.skip_blanks();
    c.expect('0');
    c.expect('x');
    return c.number<uint64_t>(16);
  };
  for (uint64_t& arg : call.args) arg = hexadecimal();
  hexadecimal();  // the stack pointer
  call.instruction_pointer = hexadecimal();
  return call;
}

std::optional<ProcSched> parse_sched(std::string_view text) {
  std::optional<uint64_t> start_ns, switches;
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view key = proc_text::trim(line.substr(0, colon));
    Cursor c(line.substr(colon + 1), "sched");
    if (key == "se.exec_start") {
      // Milliseconds with six digits behind the point.
      start_ns = c.number<uint64_t>() * 1'000'000;
      c.expect('.');
      *start_ns += c.number<uint64_t>();
    } else if (key == "nr_voluntary_switches") {
      switches = c.number<uint64_t>();
    }
  }
  if (!start_ns || !switches) return std::nullopt;
  return ProcSched{*start_ns, *switches};
}

}  // namespace stasis

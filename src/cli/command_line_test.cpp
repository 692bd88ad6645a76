#include "cli/command_line.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "base/error.h"
#include "cli/option_table.h"

namespace stasis::cli {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

CommandLine parse(const std::string& text) {
  return parse_command_line(words_of(text), Environment{});
}

// "REASON object" of what a function throws.
std::string refusal(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    return std::string(reason_code(e.reason())) + " " + e.object();
  }
  return "accepted";
}

struct Case {
  const char* text;
  std::function<bool(const CommandLine&)> holds;
};

void expect_all(std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    try {
      EXPECT_TRUE(c.holds(parse(c.text))) << c.text;
    } catch (const Error& e) {
      ADD_FAILURE() << c.text << ": " << e.report();
    }
  }
}

using L = const CommandLine&;

TEST(CommandLine, Defaults) {
  const CommandLine line = parse("dump");
  EXPECT_EQ(line.verb, Verb::dump);
  EXPECT_EQ(line.verbosity, 2);
  EXPECT_EQ(line.timeout_s, 10u);
  EXPECT_FALSE(line.ghost_limit_bytes);
  EXPECT_FALSE(line.ghost_fiemap);
  EXPECT_TRUE(line.time_namespace);
  EXPECT_EQ(line.manage_cgroups, CgroupMode::soft);
  EXPECT_TRUE(line.cpu == CpuChecks{});
  EXPECT_TRUE(line.given.none());
}

TEST(CommandLine, WhereWordsMayStand) {
  expect_all({
      {"dump -t 42 -D /x", [](L l) { return l.verb == Verb::dump && l.tree == 42 && l.images_dir == "/x"; }},
      {"-t 42 dump -D /x", [](L l) { return l.verb == Verb::dump && l.tree == 42 && l.images_dir == "/x"; }},
      {"-t42 -D/x -- dump", [](L l) { return l.verb == Verb::dump && l.tree == 42 && l.images_dir == "/x"; }},
      {"--tree=42 dump", [](L l) { return l.tree == 42; }},
      {"--tre 42 dump", [](L l) { return l.tree == 42; }},
      {"dump -jRl -t 1", [](L l) { return l.shell_job && l.leave_running && l.file_locks; }},
      {"restore --exec-cmd -d -- cmd -x --help",
       [](L l) {
         return l.exec_cmd && l.detached && !l.help && l.words == std::vector<std::string>{"cmd", "-x", "--help"};
       }},
      {"restore --exec-cmd cmd arg",
       [](L l) {
         return l.words == std::vector<std::string>{"cmd", "arg"};
       }},
      {"swrk 3", [](L l) { return l.verb == Verb::swrk && l.words == std::vector<std::string>{"3"}; }},
      {"cpuinfo dump", [](L l) { return l.verb == Verb::cpuinfo && l.words == std::vector<std::string>{"dump"}; }},
      {"", [](L l) { return l.verb == Verb::none; }},
  });
}

TEST(CommandLine, PosixlyCorrectChangesNothing) {
  ::setenv("POSIXLY_CORRECT", "1", 1);
  EXPECT_EQ(parse("dump -t 42").tree, 42);
  ::unsetenv("POSIXLY_CORRECT");
}

TEST(CommandLine, Verbosity) {
  expect_all({
      {"dump -v", [](L l) { return l.verbosity == 3; }},
      {"dump -vv", [](L l) { return l.verbosity == 4; }},
      {"dump -vvv", [](L l) { return l.verbosity == 5; }},
      {"dump -v -v", [](L l) { return l.verbosity == 4; }},
      {"dump -v4", [](L l) { return l.verbosity == 4; }},
      {"dump -v0 -v", [](L l) { return l.verbosity == 1; }},
      {"dump --verbosity", [](L l) { return l.verbosity == 3; }},
      {"dump --verbosity=4", [](L l) { return l.verbosity == 4; }},
      {"dump -verbosity=0", [](L l) { return l.verbosity == 0; }},
      {"dump -jv4", [](L l) { return l.verbosity == 4 && l.shell_job; }},
  });
  // An optional argument has to be glued; a separate one is a word.
  EXPECT_EQ(refusal([] { parse("-v 4 dump"); }), "BAD_OPTION 4");
}

TEST(CommandLine, Values) {
  expect_all({
      {"dump --ghost-limit 10K", [](L l) { return l.ghost_limit_bytes == 10240; }},
      {"dump --timeout 60", [](L l) { return l.timeout_s == 60; }},
      {"dump --network-lock none", [](L l) { return l.network_lock == NetworkLock::skip; }},
      {"dump --manage-cgroups", [](L l) { return l.manage_cgroups == CgroupMode::soft; }},
      {"dump --manage-cgroups=ignore", [](L l) { return l.manage_cgroups == CgroupMode::ignore; }},
      {"dump --cpu-cap", [](L l) { return l.cpu.cpu && l.cpu.image; }},
      {"dump --cpu-cap=none --cpu-cap=ins", [](L l) { return !l.cpu.fpu && l.cpu.ins; }},
      {"dump --file-validation filesize", [](L l) { return l.file_validation == FileValidation::size; }},
      {"dump --status-fd 7 --close 5 --close 6",
       [](L l) {
         return l.status_fd == 7 && l.close_fds == std::vector<int>{5, 6};
       }},
      {"dump --allow-lossy landlock,core-scheduling",
       [](L l) {
         return l.allow_lossy == std::vector<std::string>{"landlock", "core-scheduling"};
       }},
      {"dump --enable-fs a,b --enable-fs all",
       [](L l) {
         return l.enable_fs == std::vector<std::string>{"a", "b", "all"};
       }},
      {"dump --cgroup-root /a --cgroup-root cpu:/b", [](L l) { return l.cgroup_roots.size() == 2; }},
      {"restore --no-timens", [](L l) { return !l.time_namespace; }},
      {"restore -J net:42 -J user:/x,1,2", [](L l) { return l.join_ns.size() == 2 && l.join_ns[1].gid == 2u; }},
      {"restore --empty-ns net", [](L l) { return l.empty_net_namespace; }},
      {"restore --lsm-profile apparmor:x", [](L l) { return l.lsm_profile == "apparmor:x"; }},
      {"restore --inherit-fd fd[3]:a/b", [](L l) { return l.inherit_fd.size() == 1 && l.inherit_fd[0].fd == 3; }},
      {"page-server --port 65535 --address ::1", [](L l) { return l.port == 65535 && l.address == "::1"; }},
      {"pre-dump --pre-dump-mode read", [](L l) { return l.pre_dump_mode == PreDumpMode::read; }},
  });
}

TEST(CommandLine, SwitchesAndTheirNoForms) {
  expect_all({
      {"restore -d", [](L l) { return l.detached; }},
      {"restore --daemon", [](L l) { return l.detached; }},
      {"page-server -d", [](L l) { return l.detached; }},
      {"restore -d --no-daemon", [](L l) { return !l.detached; }},
      {"dump --ghost-fiemap", [](L l) { return l.ghost_fiemap; }},
      {"dump --ghost-fiemap --no-ghost-fiemap", [](L l) { return !l.ghost_fiemap; }},
      {"dump --tcp-close --no-tcp-close", [](L l) { return !l.tcp_close; }},
      {"dump --no-tcp-close --tcp-close", [](L l) { return l.tcp_close; }},
      {"page-server --tls-no-cn-verify", [](L l) { return !l.tls_cn_verify; }},
  });
}

TEST(CommandLine, ExternalResourcesInAllSpellings) {
  using Strings = std::vector<std::string>;
  expect_all({
      {"dump -x", [](L l) { return l.ext_unix_sk && l.external.empty(); }},
      {"dump -x12,34",
       [](L l) {
         return l.ext_unix_sk && l.external == Strings{"unix[12]", "unix[34]"};
       }},
      {"dump --ext-unix-sk=12", [](L l) { return l.external == Strings{"unix[12]"}; }},
      {"restore --veth-pair eth0=v0@br0", [](L l) { return l.external == Strings{"veth[eth0]:v0@br0"}; }},
      {"dump -M /a:key", [](L l) { return l.external == Strings{"mnt[/a]:key"}; }},
      {"dump -M auto --enable-external-masters",
       [](L l) { return l.external_auto && l.external_masters && !l.external_sharing; }},
      {"dump --external mnt[]", [](L l) { return l.external_auto && !l.external_masters && l.external.empty(); }},
      {"dump --external mnt[]:ms", [](L l) { return l.external_masters && !l.external_sharing; }},
      {"dump --external mnt[]:s --external mnt[]:m", [](L l) { return l.external_masters && l.external_sharing; }},
      {"dump --external file[2f:1a]", [](L l) { return l.external == Strings{"file[2f:1a]"}; }},
  });
}

TEST(CommandLine, RefusesBadOptionsByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"dump --no-such-option", "--no-such-option"},
      {"dump --no-such=x", "--no-such"},
      {"dump -Q", "-Q"},
      {"dump -jQ", "-Q"},
      {"dump --tcp", "--tcp"},
      {"dump --tcp-close=1", "--tcp-close"},
      {"dump -t", "-t"},
      {"dump --tree", "--tree"},
      {"dump -t 0", "-t 0"},
      {"dump -t x", "-t x"},
      {"dump -tcp-established", "-tcp-established"},
      {"dump --ghost-limit 1X", "--ghost-limit 1X"},
      {"dump --port 0", "--port 0"},
      {"dump --port=65536", "--port=65536"},
      {"dump --timeout -1", "--timeout -1"},
      {"dump --network-lock x", "--network-lock x"},
      {"dump --cpu-cap=x", "--cpu-cap=x"},
      {"dump -x0", "-x0"},
      {"dump -M x", "-M x"},
      {"dump --external veth[a]", "--external veth[a]"},
      {"restore --inherit-fd fd[1]", "--inherit-fd fd[1]"},
      {"restore -J pid:1", "-J pid:1"},
      {"restore --empty-ns uts", "--empty-ns uts"},
      {"restore --lsm-profile x", "--lsm-profile x"},
      {"restore --veth-pair x", "--veth-pair x"},
      {"pre-dump --pre-dump-mode x", "--pre-dump-mode x"},
      {"check --ms", "--ms"},
      {"dmup", "dmup"},
      {"--network-lock", "--network-lock"},
  };
  for (const auto& [text, object] : cases) {
    EXPECT_EQ(refusal([&] { parse(text); }), std::string("BAD_OPTION ") + object) << text;
  }
}

TEST(CommandLine, DebugTextsAreWrittenAtOnce) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::string descriptor = std::to_string(ends[1]);
  EXPECT_TRUE(parse("restore --inherit-fd debug[" + descriptor + "]:hello").inherit_fd.empty());
  char text[16] = {};
  EXPECT_EQ(::read(ends[0], text, sizeof text), 5);
  EXPECT_STREQ(text, "hello");
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_THROW(parse("restore --inherit-fd debug[" + descriptor + "]:hello"), Error);
}

TEST(CommandLine, AnAmbiguousAbbreviationListsItsMeanings) {
  try {
    parse("dump --tcp");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.remedy(), "write one of --tcp-established, --tcp-close");
  }
}

TEST(CommandLine, HelpWinsOverErrors) {
  for (const char* text : {"--help", "-h", "dump --no-such-option --help", "--help -t x", "dmup -h", "-jh"}) {
    EXPECT_TRUE(parse(text).help) << text;
  }
  // Behind -- it is a word, as an argument it is an argument.
  EXPECT_THROW(parse("dump --no-such-option -- --help"), Error);
  EXPECT_FALSE(parse("dump -D --help").help);
}

TEST(CheckVerb, AcceptsWhatIsThereAndNamesTheRest) {
  const auto verdict = [](const char* text) { return refusal([&] { check_verb(parse(text)); }); };
  EXPECT_EQ(verdict("dump"), "accepted");
  EXPECT_EQ(verdict("restore"), "accepted");
  EXPECT_EQ(verdict("check"), "accepted");
  EXPECT_EQ(verdict("restore --exec-cmd -- a b"), "accepted");
  EXPECT_EQ(verdict(""), "BAD_OPTION ");
  EXPECT_EQ(verdict("dump restore"), "BAD_OPTION restore");
  EXPECT_EQ(verdict("dump --exec-cmd -- a"), "BAD_OPTION a");
  for (const char* name : {"pre-dump", "lazy-pages", "page-server", "service", "dedup", "exec", "show"}) {
    EXPECT_EQ(verdict(name), std::string("OPTION_NOT_SUPPORTED ") + name);
  }
  EXPECT_EQ(verdict("swrk 3"), "OPTION_NOT_SUPPORTED swrk");
  EXPECT_EQ(verdict("cpuinfo check"), "accepted");
  EXPECT_EQ(verdict("cpuinfo dump"), "accepted");
  for (const char* words : {"cpuinfo", "cpuinfo x", "cpuinfo dump check"})
    EXPECT_EQ(verdict(words).substr(0, 10), "BAD_OPTION") << words;
}

// An option without its feature is refused, but only by a verb it matters for and only if it is still asked for.
TEST(CheckSupported, EveryMissingRowIsRefusedByItsVerbsOnly) {
  for (size_t i = 0; i < option_table().size(); ++i) {
    const OptionRow& row = option_table()[i];
    for (Verb verb : {Verb::dump, Verb::restore, Verb::check}) {
      CommandLine line;
      line.verb = verb;
      line.given.set(i);
      const bool want = row.support == Support::missing && (row.verbs & verb_bit(verb)) != 0;
      EXPECT_EQ(refusal([&] { check_supported(line); }),
                want ? "OPTION_NOT_SUPPORTED --" + std::string(row.name) : "accepted")
          << row.name;
    }
  }
}

TEST(CheckSupported, Examples) {
  const auto verdict = [](const char* text) { return refusal([&] { check_supported(parse(text)); }); };
  EXPECT_EQ(verdict("dump --track-mem"), "OPTION_NOT_SUPPORTED --track-mem");
  EXPECT_EQ(verdict("dump --track-mem --no-track-mem"), "accepted");
  EXPECT_EQ(verdict("restore --track-mem"), "accepted");
  EXPECT_EQ(verdict("restore --lazy-pages"), "OPTION_NOT_SUPPORTED --lazy-pages");
  EXPECT_EQ(verdict("check --lazy-pages --root /x"), "accepted");
  // What makes no sense for the verb, or depends on what the tree holds, passes.
  EXPECT_EQ(verdict("dump --pidfile x --root /x --pre-dump-mode read --tcp-established --tcp-close -l -x --link-remap "
                    "--ghost-limit 1G --evasive-devices --manage-cgroups=ignore --skip-in-flight --enable-fs all "
                    "--force-irmap --external unix[1] --cpu-cap=none --network-lock skip"),
            "accepted");
  EXPECT_EQ(verdict("restore --weak-sysctls --skip-file-rwx-check --leave-running --tcp-close --mntns-compat-mode"),
            "accepted");
}

TEST(CheckSupported, PluginsAreRefusedOnlyIfThereAreAny) {
  char name[] = "/tmp/command_line_test.XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const std::string directory = name;
  const auto verdict = [&](const char* verb) {
    return refusal([&] { check_supported(parse(std::string(verb) + " -L " + directory)); });
  };
  EXPECT_EQ(verdict("dump"), "accepted");
  std::ofstream(directory + "/a_plugin.so") << "";
  EXPECT_EQ(verdict("dump"), "OPTION_NOT_SUPPORTED plugins in " + directory);
  EXPECT_EQ(verdict("check"), "accepted");
  Environment environment;
  environment.libs_dir = directory;
  EXPECT_NE(refusal([&] { check_supported(parse_command_line({"restore"}, environment)); }), "accepted");
  std::filesystem::remove_all(directory);
}

TEST(CheckConsistent, NamesWhatIsLackingOrContradictory) {
  const auto verdict = [](const char* text) { return refusal([&] { check_consistent(parse(text)); }); };
  EXPECT_EQ(verdict("dump -t 1"), "accepted");
  EXPECT_EQ(verdict("dump"), "BAD_OPTION ");
  EXPECT_EQ(verdict("restore"), "accepted");
  EXPECT_EQ(verdict("restore -S"), "BAD_OPTION ");
  EXPECT_EQ(verdict("restore -S -d"), "accepted");
  EXPECT_EQ(verdict("restore --exec-cmd -- a"), "accepted");
  EXPECT_EQ(verdict("restore --exec-cmd -d -- a"), "BAD_OPTION ");
  EXPECT_EQ(verdict("restore --exec-cmd"), "BAD_OPTION ");
}

}  // namespace
}  // namespace stasis::cli

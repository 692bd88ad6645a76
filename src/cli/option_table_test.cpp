#include "cli/option_table.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "cli/help.h"
#include "cli/settings.h"

namespace stasis::cli {
namespace {

TEST(OptionTable, NamesAreUnique) {
  std::set<std::string> seen;
  for (const OptionRow& row : option_table()) {
    EXPECT_TRUE(seen.insert(std::string(row.name)).second) << row.name;
    if (row.has_no) {
      EXPECT_TRUE(seen.insert("no-" + std::string(row.name)).second) << row.name;
    }
  }
}

TEST(OptionTable, OnlyOneSwitchSharesItsLetter) {
  std::map<char, int> uses;
  for (const OptionRow& row : option_table()) {
    if (row.letter != 0) ++uses[row.letter];
  }
  for (const auto& [letter, count] : uses) EXPECT_EQ(count, letter == 'd' ? 2 : 1) << letter;
}

TEST(OptionTable, RowsOfASectionStandTogetherAndSayWhatTheyTake) {
  std::set<Section> done;
  const OptionRow* previous = nullptr;
  for (const OptionRow& row : option_table()) {
    if (previous == nullptr || previous->section != row.section) {
      EXPECT_TRUE(done.insert(row.section).second) << row.name;
    }
    EXPECT_EQ(row.argument == Argument::none, row.argument_name.empty()) << row.name;
    EXPECT_FALSE(row.help.empty()) << row.name;
    EXPECT_NE(row.verbs, 0u) << row.name;
    if (row.has_no) {
      EXPECT_NE(row.argument, Argument::required) << row.name;
    }
    previous = &row;
  }
}

// Names and forms are an interface that scripts use: this is the list of them.
TEST(OptionTable, HoldsEveryOptionOfTheInterface) {
  const char* const flags_with_no[] = {"unprivileged",
                                       "deprecated",
                                       "log-pid",
                                       "display-stats",
                                       "restore-detached",
                                       "restore-sibling",
                                       "shell-job",
                                       "file-locks",
                                       "tcp-established",
                                       "tcp-close",
                                       "skip-in-flight",
                                       "evasive-devices",
                                       "link-remap",
                                       "ghost-fiemap",
                                       "force-irmap",
                                       "weak-sysctls",
                                       "allow-uprobes",
                                       "mntns-compat-mode",
                                       "skip-file-rwx-check",
                                       "allow-grown",
                                       "new-pid-namespace",
                                       "stream",
                                       "track-mem",
                                       "auto-dedup",
                                       "page-server",
                                       "daemon",
                                       "tls",
                                       "extra",
                                       "experimental"};
  const char* const flags[] = {"no-default-config",
                               "help",
                               "version",
                               "leave-stopped",
                               "leave-running",
                               "exec-cmd",
                               "enable-external-sharing",
                               "enable-external-masters",
                               "lazy-pages",
                               "tls-no-cn-verify",
                               "all",
                               "ms",
                               "no-timens"};
  const char* const with_argument[] = {"tree",
                                       "images-dir",
                                       "work-dir",
                                       "prev-images-dir",
                                       "root",
                                       "libdir",
                                       "action-script",
                                       "pidfile",
                                       "status-fd",
                                       "close",
                                       "config",
                                       "log-file",
                                       "network-lock",
                                       "ghost-limit",
                                       "irmap-scan-path",
                                       "timeout",
                                       "freeze-cgroup",
                                       "cpu-affinity",
                                       "allow-lossy",
                                       "snapshot",
                                       "file-validation",
                                       "enable-fs",
                                       "skip-mnt",
                                       "ext-mount-map",
                                       "external",
                                       "inherit-fd",
                                       "veth-pair",
                                       "join-ns",
                                       "empty-ns",
                                       "lsm-profile",
                                       "lsm-mount-context",
                                       "cgroup-root",
                                       "cgroup-props",
                                       "cgroup-props-file",
                                       "cgroup-dump-controller",
                                       "cgroup-yard",
                                       "pre-dump-mode",
                                       "address",
                                       "port",
                                       "ps-socket",
                                       "tls-cacert",
                                       "tls-cacrl",
                                       "tls-cert",
                                       "tls-key",
                                       "feature"};
  const char* const with_optional_argument[] = {"verbosity", "cpu-cap", "manage-cgroups", "ext-unix-sk"};

  std::map<std::string_view, std::pair<Argument, bool>> want;
  for (const char* name : flags_with_no) want[name] = {Argument::none, true};
  for (const char* name : flags) want[name] = {Argument::none, false};
  for (const char* name : with_argument) want[name] = {Argument::required, false};
  for (const char* name : with_optional_argument) want[name] = {Argument::optional, false};
  want["ext-unix-sk"].second = true;
  for (const OptionRow& row : option_table()) {
    const auto it = want.find(row.name);
    if (it == want.end()) {
      ADD_FAILURE() << "not in the interface: " << row.name;
      continue;
    }
    EXPECT_EQ(it->second, std::make_pair(row.argument, row.has_no)) << row.name;
    want.erase(it);
  }
  for (const auto& [name, form] : want) ADD_FAILURE() << "missing: " << name;
}

TEST(OptionTable, LettersAreThoseOfTheInterface) {
  const std::map<std::string_view, char> want = {
      {"tree", 't'},          {"images-dir", 'D'},    {"work-dir", 'W'},        {"root", 'r'},
      {"libdir", 'L'},        {"help", 'h'},          {"version", 'V'},         {"log-file", 'o'},
      {"verbosity", 'v'},     {"leave-stopped", 's'}, {"leave-running", 'R'},   {"restore-detached", 'd'},
      {"shell-job", 'j'},     {"file-locks", 'l'},    {"restore-sibling", 'S'}, {"ext-unix-sk", 'x'},
      {"ext-mount-map", 'M'}, {"join-ns", 'J'},       {"daemon", 'd'}};
  for (const OptionRow& row : option_table()) {
    const auto it = want.find(row.name);
    EXPECT_EQ(row.letter, it == want.end() ? '\0' : it->second) << row.name;
  }
}

// A bad flag would show as a crash (no argument handed in) or as a field that stays as it was.
TEST(OptionTable, EveryFlagCanBeSetAndTakenBack) {
  for (size_t i = 0; i < option_table().size(); ++i) {
    const OptionRow& row = option_table()[i];
    if (row.argument == Argument::required || row.name == "ms") continue;
    CommandLine line;
    apply({.row = i, .on = true, .argument = {}, .shown = "--x"}, line);
    EXPECT_TRUE(line.given.test(i)) << row.name;
    if (!row.has_no) continue;
    apply({.row = i, .on = false, .argument = {}, .shown = "--no-x"}, line);
    EXPECT_FALSE(line.given.test(i)) << row.name;
  }
}

TEST(Help, ShowsEveryRowAndVerb) {
  const std::string text = help_text();
  for (const OptionRow& row : option_table()) {
    EXPECT_NE(text.find((row.has_no ? "--[no-]" : "--") + std::string(row.name)), std::string::npos) << row.name;
    EXPECT_NE(text.find(row.help), std::string::npos) << row.name;
    if (row.letter != 0) {
      EXPECT_NE(text.find(std::string("  -") + row.letter + ", --"), std::string::npos) << row.name;
    }
  }
  for (const VerbRow& row : verb_table()) {
    if (!row.help.empty()) {
      EXPECT_NE(text.find("\n  " + std::string(row.name) + " "), std::string::npos) << row.name;
    }
  }
}

TEST(Help, LooksLikeThis) {
  const std::string text = help_text();
  EXPECT_TRUE(text.starts_with("Usage: stasis [options] COMMAND [options]\n"));
  EXPECT_NE(text.find("\n  -t, --tree PID                  root of the tree to dump\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n      --[no-]track-mem            "), std::string::npos);
  EXPECT_NE(text.find("\n  -v, --verbosity[=NUM]           "), std::string::npos);
}

TEST(Help, VersionComesFirst) {
  EXPECT_TRUE(version_text().starts_with("Version: 4.2\nStasis "));
}

}  // namespace
}  // namespace stasis::cli

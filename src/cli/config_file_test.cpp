#include "cli/config_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "cli/command_line.h"

namespace stasis::cli {
namespace {

CommandLine line_of(const std::string& text) {
  CommandLine line;
  for (const Setting& setting : parse_config_text(text, "f")) apply(setting, line);
  return line;
}

std::string refusal(const std::string& text) {
  try {
    parse_config_text(text, "f");
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::BAD_CONFIG_FILE) << text;
    return e.object();
  }
  return "accepted";
}

TEST(ConfigText, ReadsOneOptionALine) {
  const CommandLine line = line_of(
      "# a comment\n"
      "\n"
      "   \t \n"
      "tcp-established\n"
      "\tghost-limit   3M  \n"
      "work-dir /tmp/x # a comment\n"
      "  # another\n"
      "shell-job # first token behind the name\n"
      "external unix[1]\n"
      "external unix[2]");
  EXPECT_TRUE(line.tcp_established);
  EXPECT_EQ(line.ghost_limit_bytes, 3u << 20);
  EXPECT_EQ(line.work_dir, "/tmp/x");
  EXPECT_TRUE(line.shell_job);
  EXPECT_EQ(line.external, (std::vector<std::string>{"unix[1]", "unix[2]"}));
}

TEST(ConfigText, Quotes) {
  EXPECT_EQ(line_of("work-dir \"a b\"").work_dir, "a b");
  EXPECT_EQ(line_of("work-dir \"a \\\"b\\\" c\"").work_dir, "a \"b\" c");
  EXPECT_EQ(line_of("work-dir \"a\\nb\\\\c\"").work_dir, "a\\nb\\\\c");  // no other escape
  EXPECT_EQ(line_of("work-dir \"\"").work_dir, "");
  EXPECT_EQ(line_of("work-dir \"a\" # c").work_dir, "a");
  EXPECT_EQ(line_of("work-dir a\"b").work_dir, "a\"b");  // only at the start
}

TEST(ConfigText, AHashEndsTheArgumentEvenInQuotes) {
  EXPECT_EQ(line_of("work-dir /tmp/a#b").work_dir, "/tmp/a");
  EXPECT_EQ(refusal("work-dir \"a#b\""), "f:1");
}

TEST(ConfigText, OptionalArgumentsMustBeGlued) {
  EXPECT_EQ(line_of("verbosity=4").verbosity, 4);
  EXPECT_EQ(line_of("verbosity 4").verbosity, 3);  // the word is dropped, bare adds one
  EXPECT_EQ(line_of("manage-cgroups=full").manage_cgroups, CgroupMode::full);
  EXPECT_EQ(line_of("manage-cgroups full").manage_cgroups, CgroupMode::soft);
  EXPECT_TRUE(line_of("cpu-cap=none").cpu == (CpuChecks{.fpu = false, .cpu = false, .ins = false, .image = false}));
}

TEST(ConfigText, AStrayWordIsNeverAnOption) {
  const CommandLine line = line_of("tcp-close --shell-job\ntcp-close -j");
  EXPECT_TRUE(line.tcp_close);
  EXPECT_FALSE(line.shell_job);
}

TEST(ConfigText, RequiredArgumentsMayBeGluedOrLookLikeOptions) {
  EXPECT_EQ(line_of("work-dir=/x").work_dir, "/x");
  EXPECT_EQ(line_of("work-dir --odd").work_dir, "--odd");
}

TEST(ConfigText, NegationAndAbbreviation) {
  EXPECT_FALSE(line_of("tcp-close\nno-tcp-close").tcp_close);
  EXPECT_TRUE(line_of("tcp-e").tcp_established);
}

TEST(ConfigText, MalformedLinesAreNamed) {
  EXPECT_EQ(refusal("tcp-close\nwork-dir a b"), "f:2");
  EXPECT_EQ(refusal("work-dir \"a\" b"), "f:1");
  EXPECT_EQ(refusal("work-dir \"a\"b"), "f:1");
  EXPECT_EQ(refusal("work-dir=/x /y"), "f:1");
  EXPECT_EQ(refusal("work-dir \"a"), "f:1");
  EXPECT_EQ(refusal("work-dir"), "f:1");
  EXPECT_EQ(refusal("work-dir # nothing"), "f:1");
  EXPECT_EQ(refusal("\n\nno-such-option"), "f:3");
  EXPECT_EQ(refusal("dump"), "f:1");  // commands are not allowed
  EXPECT_EQ(refusal("--tcp-close"), "f:1");
  EXPECT_EQ(refusal("tcp-close=1"), "f:1");
  EXPECT_EQ(refusal("tcp"), "f:1");  // ambiguous
  EXPECT_EQ(refusal("help"), "f:1");
  EXPECT_EQ(refusal("config /x"), "f:1");
}

class ConfigFiles : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/config_file_test.XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    std::filesystem::create_directory(directory_ + "/.criu");
    environment_ = {.system_config = directory_ + "/system.conf",
                    .home = directory_,
                    .config_file = directory_ + "/variable.conf",
                    .libs_dir = "",
                    .deprecated = false};
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(directory_ + "/" + name) << text; }
  CommandLine parse(const std::vector<std::string>& arguments) { return parse_command_line(arguments, environment_); }

  std::string directory_;
  Environment environment_;
};

TEST_F(ConfigFiles, LaterOnesOverrideAndListsGrow) {
  write("system.conf", "work-dir system\nroot system\nlog-file system\nimages-dir system\nskip-mnt /1");
  write(".criu/default.conf", "root home\nlog-file home\nimages-dir home\nskip-mnt /2");
  write("variable.conf", "log-file variable\nimages-dir variable\nskip-mnt /3");
  const CommandLine line = parse({"dump", "-D", "arguments", "--skip-mnt", "/4"});
  EXPECT_EQ(line.work_dir, "system");
  EXPECT_EQ(line.root, "home");
  EXPECT_EQ(line.log_file, "variable");
  EXPECT_EQ(line.images_dir, "arguments");
  EXPECT_EQ(line.skip_mounts, (std::vector<std::string>{"/1", "/2", "/3", "/4"}));
}

TEST_F(ConfigFiles, ConfigReplacesTheDefaultOnesOnly) {
  write("system.conf", "root system");
  write(".criu/default.conf", "root home");
  write("variable.conf", "work-dir variable\nlog-file variable");
  write("own.conf", "log-file own");
  const CommandLine line = parse({"dump", "--config", directory_ + "/own.conf"});
  EXPECT_EQ(line.root, "");
  EXPECT_EQ(line.work_dir, "variable");
  EXPECT_EQ(line.log_file, "own");
}

TEST_F(ConfigFiles, NoDefaultConfigMayBeGivenTwice) {
  write("system.conf", "this is no option");
  write("variable.conf", "root variable");
  const CommandLine line =
      parse({"check", "--no-default-config", "--no-default-config", "-verbosity=0", "--feature", "timens"});
  EXPECT_EQ(line.verb, Verb::check);
  EXPECT_EQ(line.verbosity, 0);
  EXPECT_EQ(line.feature, "timens");
  EXPECT_EQ(line.root, "variable");
}

TEST_F(ConfigFiles, MissingOnesAreSkipped) {
  environment_.home = "/nonexistent";
  EXPECT_EQ(parse({"dump", "--config", "/nonexistent/x.conf"}).verb, Verb::dump);
  EXPECT_FALSE(read_config_file("/nonexistent/x.conf"));
}

TEST_F(ConfigFiles, MalformedOnesEndTheRun) {
  for (const char* text : {"dump", "ghost-limit 1X", "tree 0"}) {
    write("variable.conf", text);
    try {
      parse({"dump"});
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.reason(), Reason::BAD_CONFIG_FILE) << text;
      EXPECT_TRUE(e.object().starts_with(directory_ + "/variable.conf:1")) << e.object();
    }
  }
  write("variable.conf", std::string("tcp-close\0", 10));
  EXPECT_THROW(parse({"dump"}), Error);
  environment_.config_file = directory_;  // a directory
  EXPECT_THROW(parse({"dump"}), Error);
}

TEST_F(ConfigFiles, ArgumentsTakeBackWhatAFileSet) {
  write("variable.conf", "track-mem\nverbosity=3");
  const CommandLine line = parse({"dump", "-t", "1", "--no-track-mem", "-v"});
  EXPECT_FALSE(line.track_mem);
  EXPECT_EQ(line.verbosity, 4);
  EXPECT_NO_THROW(check_supported(line));
}

}  // namespace
}  // namespace stasis::cli

#include "cli/run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "cli/option_table.h"

namespace stasis::cli {
namespace {

std::vector<std::string> called;

int ok(std::string name) {
  called.push_back(std::move(name));
  return 0;
}

constexpr Actions kActions = {
    .dump = [](const CommandLine&, Workplace place) { return ok(place.images_dir && place.work_dir ? "dump" : "?"); },
    .restore = [](const CommandLine&, Workplace) { return ok("restore"); },
    .check = [](const CommandLine&) { return ok("check"); },
    .cpuinfo = [](const CommandLine&, Workplace) { return ok("cpuinfo"); },
};

constexpr Actions kFailing = {
    .dump = [](const CommandLine&, Workplace) -> int {
      throw Error(Reason::NO_SUCH_TASK, "cannot find it").object("pid 42").remedy("look again");
    },
    .restore = [](const CommandLine&, Workplace) -> int { throw std::runtime_error("odd"); },
    .check = [](const CommandLine&) { return 7; },
    .cpuinfo = [](const CommandLine&, Workplace) -> int { throw Error(Reason::CPU_LACKS_FEATURE, "no AVX"); },
};

struct Outcome {
  int status = -1;
  std::string out, err;
};

class RunTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/run_test.XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    before_ = std::filesystem::current_path();
    called.clear();
    // Whoever runs the tests, the verbs are to be reached.
    privileged_ = ::geteuid() == 0;
  }
  void TearDown() override {
    log::reset();
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(directory_);
  }

  Outcome run_in_images(const std::string& text, const Actions& actions = kActions) {
    return run_words(text + " -D " + directory_, actions);
  }
  Outcome run_words(const std::string& text, const Actions& actions = kActions) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    log::reset();
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Outcome outcome;
    outcome.status = run(words, Environment{}, actions);
    log::flush();
    outcome.out = testing::internal::GetCapturedStdout();
    outcome.err = testing::internal::GetCapturedStderr();
    return outcome;
  }
  std::string file(const std::string& name) {
    std::ifstream in(directory_ + "/" + name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }

  std::string directory_;
  std::filesystem::path before_;
  bool privileged_ = false;
};

#define NEEDS_ROOT() \
  if (!privileged_) GTEST_SKIP() << "dump and restore are refused to users other than root"

TEST_F(RunTest, HelpAndVersion) {
  const Outcome help = run_words("--no-such-option --help");
  EXPECT_EQ(help.status, 0);
  EXPECT_TRUE(help.out.starts_with("Usage:"));
  EXPECT_EQ(help.err, "");
  const Outcome version = run_words("--version");
  EXPECT_EQ(version.status, 0);
  EXPECT_TRUE(version.out.starts_with("Version: 4.2\n"));
}

TEST_F(RunTest, BadRequestsExitWithOneAndOneError) {
  for (const char* text :
       {"", "--no-such-option", "dmup", "dump -t 0", "page-server", "check --ms", "--network-lock"}) {
    const Outcome outcome = run_words(text);
    EXPECT_EQ(outcome.status, 1) << text;
    EXPECT_EQ(outcome.out, "") << text;
    EXPECT_TRUE(outcome.err.starts_with("stasis: ")) << outcome.err;
    EXPECT_NE(outcome.err.find("What to do: "), std::string::npos) << outcome.err;
  }
  EXPECT_TRUE(called.empty());
}

TEST_F(RunTest, RemovedCommandsHaveTheirStatus) {
  EXPECT_EQ(run_words("exec").status, 255);
  EXPECT_EQ(run_words("show").status, 255);
  EXPECT_NE(run_words("show").err.find("crit"), std::string::npos);
}

TEST_F(RunTest, FeatureProbeOfExistingCallers) {
  const Outcome outcome = run_words("check --no-default-config --no-default-config -verbosity=0 --feature mnt_id");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(called, std::vector<std::string>{"check"});
}

TEST_F(RunTest, TheStatusOfTheVerbIsTheStatus) {
  EXPECT_EQ(run_in_images("check", kFailing).status, 7);
}

TEST_F(RunTest, TheLogIsMadeInTheWorkDirectory) {
  EXPECT_EQ(run_in_images("check -v4 -o my.log").status, 0);
  struct stat st {};
  ASSERT_EQ(::stat((directory_ + "/my.log").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777u, 0600u);
  EXPECT_NE(file("my.log").find(") Stasis "), std::string::npos) << file("my.log");
  EXPECT_EQ(file("my.log").find("Error"), std::string::npos);
  EXPECT_EQ(file("my.log").find("Warn"), std::string::npos);

  std::filesystem::create_directory(directory_ + "/place");
  EXPECT_EQ(run_in_images("check -o my.log -W " + directory_ + "/place").status, 0);
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/place/my.log"));
  EXPECT_EQ(std::filesystem::current_path(), directory_ + "/place");
}

TEST_F(RunTest, TheLogIsTruncated) {
  std::ofstream(directory_ + "/my.log") << "old text";
  EXPECT_EQ(run_in_images("check -o my.log").status, 0);
  EXPECT_EQ(file("my.log"), "");
}

TEST_F(RunTest, ALogNameHasNoDirectoryPart) {
  std::filesystem::create_directory(directory_ + "/sub");
  for (const char* name : {"sub/x.log", "/tmp/x.log"}) {
    const Outcome outcome = run_in_images(std::string("check -o ") + name);
    EXPECT_EQ(outcome.status, 1) << name;
    EXPECT_NE(outcome.err.find("[LOG_FILE]"), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("-W DIR"), std::string::npos) << outcome.err;
  }
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/sub/x.log"));
}

TEST_F(RunTest, TheLogMayBeStandardOutput) {
  EXPECT_NE(run_in_images("check -v3 -o -").out.find(") Stasis "), std::string::npos);
}

TEST_F(RunTest, ImageDirectoriesThatCannotBeUsed) {
  const Outcome absent = run_words("check -D " + directory_ + "/absent");
  EXPECT_EQ(absent.status, 1);
  EXPECT_NE(absent.err.find("/absent: cannot open the image directory: No such file or directory (ENOENT) [IMAGE_DIR]"),
            std::string::npos)
      << absent.err;
  EXPECT_NE(absent.err.find("create it"), std::string::npos) << absent.err;

  std::ofstream(directory_ + "/file") << "";
  const Outcome no_directory = run_words("check -D " + directory_ + "/file");
  EXPECT_NE(no_directory.err.find("(ENOTDIR) [IMAGE_DIR]"), std::string::npos) << no_directory.err;

  const Outcome no_work = run_in_images("check -W " + directory_ + "/absent");
  EXPECT_NE(no_work.err.find("cannot open the work directory"), std::string::npos) << no_work.err;
}

TEST_F(RunTest, TheLogExistsEvenIfTheRunFailsEarly) {
  std::filesystem::create_directory(directory_ + "/place");
  const Outcome outcome = run_words("check -o my.log -D " + directory_ + "/absent -W " + directory_ + "/place");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(file("place/my.log").find("Error (workplace.cpp:"), std::string::npos) << file("place/my.log");
  EXPECT_NE(outcome.err.find("Log: " + directory_ + "/place/my.log\n"), std::string::npos) << outcome.err;
}

TEST_F(RunTest, OneErrorToBothPlaces) {
  NEEDS_ROOT();
  const Outcome outcome = run_in_images("dump -t 42 -o my.log", kFailing);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err,
            "stasis: pid 42: cannot find it [NO_SUCH_TASK]\nWhat to do: look again\nLog: " + directory_ + "/my.log\n");
  EXPECT_TRUE(file("my.log").starts_with("Error (run_test.cpp:")) << file("my.log");
  EXPECT_NE(file("my.log").find("): pid 42: cannot find it [NO_SUCH_TASK]\nWhat to do: look again\n"),
            std::string::npos);
}

TEST_F(RunTest, OneErrorIfTheLogIsStandardError) {
  NEEDS_ROOT();
  const Outcome outcome = run_in_images("dump -t 42", kFailing);
  EXPECT_TRUE(outcome.err.starts_with("Error (run_test.cpp:")) << outcome.err;
  EXPECT_EQ(outcome.err.find("cannot find it"), outcome.err.rfind("cannot find it"));
  // A silent log does not make the run silent.
  EXPECT_TRUE(run_in_images("dump -t 42 -v0", kFailing).err.starts_with("stasis: pid 42"));
}

TEST_F(RunTest, OtherExceptionsAreDefects) {
  NEEDS_ROOT();
  const Outcome outcome = run_in_images("restore", kFailing);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("odd [INTERNAL]"), std::string::npos) << outcome.err;
}

TEST_F(RunTest, VerbsAreReached) {
  NEEDS_ROOT();
  EXPECT_EQ(run_in_images("dump -t 42").status, 0);
  EXPECT_EQ(run_in_images("restore").status, 0);
  EXPECT_EQ(called, (std::vector<std::string>{"dump", "restore"}));
}

TEST_F(RunTest, RequestsThatCannotBeMetStopBeforeTheVerb) {
  NEEDS_ROOT();
  EXPECT_NE(run_in_images("dump").err.find("-t PID"), std::string::npos);
  EXPECT_NE(run_in_images("dump -t 42 --track-mem").err.find("--track-mem: "), std::string::npos);
  EXPECT_TRUE(called.empty());
}

TEST_F(RunTest, RestoreIgnoresThePidWithAWarning) {
  NEEDS_ROOT();
  const Outcome outcome = run_in_images("restore -t 42");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(outcome.err.starts_with("Warn  (run.cpp:")) << outcome.err;
}

TEST_F(RunTest, DescriptorsAreClosedRightAway) {
  const int fd = ::fcntl(STDERR_FILENO, F_DUPFD, 100);
  EXPECT_EQ(run_in_images("check --close " + std::to_string(fd)).status, 0);
  EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
}

TEST_F(RunTest, OtherUsersNeedAPrivilege) {
  if (privileged_) GTEST_SKIP() << "needs another user than root";
  EXPECT_NE(run_in_images("dump -t 42").err.find("[NO_PRIVILEGE]"), std::string::npos);
  EXPECT_NE(run_in_images("dump -t 42 --unprivileged").err.find("CAP_CHECKPOINT_RESTORE"), std::string::npos);
}

}  // namespace
}  // namespace stasis::cli

// Dumps small programs and reads the images as the format is documented, byte for byte.
//
//   image_format_test --stasis PROGRAM [GoogleTest options]
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>

#include "image_facts.h"

namespace stasis::compat {
namespace {

namespace fs = std::filesystem;

std::string stasis_program;

// A directory for one test; kept for a look when the test fails.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = (fs::temp_directory_path() / "stasis-compat-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ScratchDirectory() {
    if (!::testing::Test::HasFailure()) fs::remove_all(path_);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// In a new process: a few descriptors and nothing inherited.
[[noreturn]] void become(const std::vector<std::string>& command, int standard_files) {
  for (int fd = 0; fd < 3; ++fd) dup2(standard_files, fd);
  close_range(3, ~0u, 0);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

int run_stasis(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), stasis_program);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (const std::string& word : arguments) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The name of the program behind a pid, as soon as it is `wanted`.
bool wait_for_program(pid_t pid, const std::string& wanted) {
  for (int tries = 0; tries < 2000; ++tries) {
    std::string name;
    std::ifstream(fmt::format("/proc/{}/comm", pid)) >> name;
    // Past exec it still has to start; asleep it has.
    std::string stat;
    std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), stat);
    const size_t at = stat.rfind(") ");
    if (name == wanted && at != stat.npos && stat[at + 2] == 'S') return true;
    usleep(1000);
  }
  return false;
}

class ImageFormat : public ::testing::Test {
 protected:
  ~ImageFormat() override {
    for (const pid_t pid : subjects_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

  // Starts a program in a session of its own.
  pid_t start(const std::vector<std::string>& command, const std::string& shows_as) {
    const pid_t pid = fork();
    if (pid == 0) {
      setsid();
      become(command, open("/dev/null", O_RDWR | O_CLOEXEC));
    }
    subjects_.insert(pid);
    EXPECT_TRUE(wait_for_program(pid, shows_as));
    return pid;
  }
  // Dumps and kills it; all files of the directory, decoded.
  void dump(pid_t pid, std::vector<std::string> options = {}) {
    options.insert(options.begin(), {"dump", "-t", std::to_string(pid), "-D", directory_.path()});
    ASSERT_EQ(run_stasis(options), 0);
    waitpid(pid, nullptr, 0);
    subjects_.erase(pid);
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      const std::string name = entry.path().filename();
      if (name == "stasis-manifest") continue;  // not part of the format; others ignore it
      names_.insert(name);
      EXPECT_NE(fact_of(name), nullptr) << name << " is no image file that the format knows";
      images_[name] = read_image(entry.path());
    }
  }
  const Image& image(const std::string& name) {
    EXPECT_TRUE(images_.contains(name)) << name;
    return images_[name];
  }
  const google::protobuf::Message& record(const std::string& name, size_t index = 0) {
    const Image& i = image(name);
    if (index >= i.records.size()) throw std::runtime_error(name + " has too few records");
    return *i.records[index];
  }

  void check_bytes() {
    for (const auto& [name, i] : images_) EXPECT_TRUE(encode(i) == i.whole) << name << " is not what its records give";
  }
  void check_inventory() {
    const auto& inventory = record("inventory.img");
    EXPECT_EQ(number(inventory, "img_version"), 2u);
    EXPECT_EQ(number(inventory, "fdinfo_per_id"), 1u);
    EXPECT_EQ(number(inventory, "ns_per_id"), 1u);
    EXPECT_TRUE(has(inventory, "plugins_entry"));
    EXPECT_EQ(text(inventory, "dump_criu_run_id").size(), 36u);
    // The dumping program is the first of all.
    for (const char* id : {"vm_id", "files_id", "fs_id", "sighand_id"})
      EXPECT_EQ(number(inventory, std::string("root_ids.") + id), 1u) << id;
  }
  // Every file id that is referred to is in files.img, once.
  void check_files() {
    std::set<uint64_t> ids;
    for (const auto& f : image("files.img").records) EXPECT_TRUE(ids.insert(number(*f, "id")).second);
    EXPECT_FALSE(ids.contains(0));
    for (const auto& [name, i] : images_) {
      if (name.starts_with("fdinfo-")) {
        for (const auto& d : i.records) EXPECT_TRUE(ids.contains(number(*d, "id"))) << name;
      }
      if (name.starts_with("mm-")) {
        EXPECT_TRUE(ids.contains(number(*i.records.at(0), "exe_file_id"))) << name;
      }
      if (name.starts_with("fs-")) {
        EXPECT_TRUE(ids.contains(number(*i.records.at(0), "cwd_id"))) << name;
        EXPECT_TRUE(ids.contains(number(*i.records.at(0), "root_id"))) << name;
      }
    }
  }
  void check_process(uint64_t pid) {
    SCOPED_TRACE(fmt::format("pid {}", pid));
    const auto& core = record(fmt::format("core-{}.img", pid));
    EXPECT_EQ(number(core, "mtype"), 1u) << "x86-64";
    EXPECT_TRUE(has(core, "thread_info"));
    EXPECT_TRUE(has(core, "thread_core"));
    EXPECT_EQ(number(core, "tc.task_state"), 1u);
    EXPECT_EQ(count(core, "tc.sigactions"), 62) << "all signals but SIGKILL and SIGSTOP";
    EXPECT_EQ(count(core, "tc.rlimits.rlimits"), 16);
    EXPECT_FALSE(has(core, "tc.stop_signo"));
    const auto& ids = record(fmt::format("ids-{}.img", pid));
    for (const char* id : {"vm_id", "files_id", "fs_id", "sighand_id"}) EXPECT_GT(number(ids, id), 1u) << id;
    EXPECT_EQ(number(ids, "pid_ns_id"), number(record("inventory.img"), "root_ids.pid_ns_id"));
    image(fmt::format("mm-{}.img", pid));
    image(fmt::format("fs-{}.img", pid));
    image(fmt::format("pagemap-{}.img", pid));
    image(fmt::format("fdinfo-{}.img", number(ids, "files_id")));
  }
  // Ranges ascend, and the pages files and the statistics hold exactly them.
  void check_pages() {
    uint64_t file_pages = 0;
    for (const auto& [name, i] : images_) {
      if (!name.starts_with("pagemap-") || i.records.empty()) continue;
      uint64_t present = 0, end = 0;
      for (size_t k = 1; k < i.records.size(); ++k) {
        const auto& range = *i.records[k];
        EXPECT_GE(number(range, "vaddr"), end) << name;
        EXPECT_TRUE(has(range, "compat_nr_pages")) << name << ": required, though always zero today";
        EXPECT_EQ(number(range, "compat_nr_pages"), 0u) << name;
        end = number(range, "vaddr") + number(range, "nr_pages") * 4096;
        if ((number(range, "flags") & 4) != 0) present += number(range, "nr_pages");
      }
      const Image& pages = image(fmt::format("pages-{}.img", number(*i.records[0], "pages_id")));
      EXPECT_EQ(pages.whole.size(), present * 4096) << name;
      file_pages += present;
    }
    const auto& stats = record("stats-dump");
    EXPECT_EQ(number(stats, "dump.pages_written") + number(stats, "dump.shpages_written"), file_pages);
    EXPECT_GE(number(stats, "dump.pages_scanned"), number(stats, "dump.pages_written"));
  }
  void check_all() {
    check_bytes();
    check_inventory();
    check_files();
    check_pages();
    uint64_t root = 0;
    for (const auto& p : image("pstree.img").records) {
      const uint64_t pid = number(*p, "pid");
      if (root == 0) {
        root = pid;
        EXPECT_EQ(number(*p, "ppid"), 0u);
      } else {
        EXPECT_NE(number(*p, "ppid"), 0u);
      }
      EXPECT_EQ(number(*p, "threads", 0), pid) << "the leader is the first thread";
      check_process(pid);
    }
  }

  ScratchDirectory directory_;
  std::set<pid_t> subjects_;
  std::set<std::string> names_;
  std::map<std::string, Image> images_;
};

TEST_F(ImageFormat, OfASleepingProgram) {
  const pid_t pid = start({"sleep", "1000"}, "sleep");
  dump(pid);
  const uint64_t table = number(record(fmt::format("ids-{}.img", pid)), "files_id");
  EXPECT_EQ(names_, (std::set<std::string>{"inventory.img", "pstree.img", "files.img", "seccomp.img", "extension.img",
                                           "timens-0.img", "stats-dump", fmt::format("core-{}.img", pid),
                                           fmt::format("ids-{}.img", pid), fmt::format("mm-{}.img", pid),
                                           fmt::format("fs-{}.img", pid), fmt::format("pagemap-{}.img", pid),
                                           "pages-1.img", fmt::format("fdinfo-{}.img", table)}));
  check_all();
  EXPECT_EQ(text(record(fmt::format("core-{}.img", pid)), "tc.comm"), "sleep");
  EXPECT_EQ(record("seccomp.img").ByteSizeLong(), 0u) << "no filter: an empty message";
  EXPECT_EQ(image("pstree.img").records.size(), 1u);
  EXPECT_EQ(image(fmt::format("fdinfo-{}.img", table)).records.size(), 3u);

  ASSERT_EQ(run_stasis({"restore", "-d", "-D", directory_.path()}), 0);
  EXPECT_TRUE(wait_for_program(pid, "sleep"));
  subjects_.insert(pid);
  const Image restored = read_image(directory_.path() / "stats-restore");
  EXPECT_TRUE(encode(restored) == restored.whole);
  ASSERT_FALSE(restored.records.empty());
  EXPECT_FALSE(has(*restored.records[0], "dump"));
  // All but the vdso's pages, which are in the images for comparison with the kernel's own.
  const uint64_t filled = number(*restored.records[0], "restore.pages_restored");
  EXPECT_GT(filled, 0u);
  EXPECT_LE(filled, number(record("stats-dump"), "dump.pages_written"));
}

TEST_F(ImageFormat, OfAPipelineWithDataInFlight) {
  // The shell waits; the first child has written, and the second, stopped by reading elsewhere, has not read.
  const pid_t pid = start({"sh", "-c", "(echo in flight; exec sleep 1000) | (exec sleep 1001 3<&0)"}, "sh");
  usleep(200'000);
  dump(pid);
  EXPECT_TRUE(names_.contains("pipes-data.img"));
  check_all();
  EXPECT_EQ(image("pstree.img").records.size(), 3u);
  const Image& data = image("pipes-data.img");
  ASSERT_EQ(data.records.size(), 1u);
  EXPECT_EQ(data.raw[0], "in flight\n");
  std::set<uint64_t> pipe_ids;
  for (const auto& f : image("files.img").records)
    if (has(*f, "pipe")) pipe_ids.insert(number(*f, "pipe.pipe_id"));
  EXPECT_EQ(pipe_ids, std::set<uint64_t>{number(*data.records[0], "pipe_id")});
}

TEST_F(ImageFormat, OfAShellJobOnATerminal) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_TRUE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  int to_test[2];
  ASSERT_EQ(pipe2(to_test, O_CLOEXEC), 0);
  const pid_t shell = fork();
  if (shell == 0) {
    setsid();
    const int terminal = open(ptsname(master), O_RDWR | O_CLOEXEC);
    const pid_t job = fork();
    if (job == 0) {
      setpgid(0, 0);
      become({"sleep", "1000"}, terminal);
    }
    if (write(to_test[1], &job, sizeof job) != sizeof job) _exit(1);
    waitpid(job, nullptr, 0);
    for (;;) pause();
  }
  subjects_.insert(shell);
  pid_t job = 0;
  ASSERT_EQ(read(to_test[0], &job, sizeof job), static_cast<ssize_t>(sizeof job));
  ASSERT_TRUE(wait_for_program(job, "sleep"));
  EXPECT_NE(run_stasis({"dump", "-t", std::to_string(job), "-D", directory_.path(), "-o", "refused.log"}), 0)
      << "without --shell-job";
  EXPECT_FALSE(fs::exists(directory_.path() / "inventory.img"));
  fs::remove(directory_.path() / "refused.log");
  dump(job, {"--shell-job"});
  EXPECT_TRUE(names_.contains("tty-info.img"));
  check_all();
  const auto& tty = record("tty-info.img");
  EXPECT_EQ(number(tty, "type"), 1u) << "a pty";
  EXPECT_EQ(count(tty, "termios.c_cc"), 19);
  EXPECT_EQ(number(record("pstree.img"), "sid"), static_cast<uint64_t>(shell));
  close(master);
}

}  // namespace
}  // namespace stasis::compat

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc == 3 && std::string_view(argv[1]) == "--stasis") stasis::compat::stasis_program = argv[2];
  if (stasis::compat::stasis_program.empty()) {
    fmt::print(stderr, "usage: {} --stasis PROGRAM\n", argv[0]);
    return 2;
  }
  constexpr int kSkipped = 77;
  if (geteuid() != 0) {
    fmt::print("skipped: dumping needs root\n");
    return kSkipped;
  }
  // Restored roots become children of this program when the tool ends.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  return RUN_ALL_TESTS();
}

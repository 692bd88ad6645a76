#include "kernel/mapping_reader.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace stasis {
namespace {

// 4000 mappings of one page each.
char* many_mappings() {
  auto* area = static_cast<char*>(mmap(nullptr, size_t{4000} * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (size_t i = 0; i < 2000; ++i) mprotect(area + 2 * i * 4096, 4096, PROT_READ | PROT_WRITE);
  return area;
}

// A child that sets up its memory and then stands still.
class StoppedChild {
 public:
  explicit StoppedChild(const std::function<void()>& setup) {
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      setup();
      raise(SIGSTOP);
      _exit(0);
    }
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
  }
  ~StoppedChild() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

void expect_as_smaps(MappingReader& reader, pid_t pid) {
  ProcDir proc(pid);
  ProcBuffer buffer;
  std::vector<Mapping> got;
  reader.read(proc, buffer, got);
  const std::vector<Mapping> expected = parse_smaps(proc.read("smaps"));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const Mapping &a = got[i], &b = expected[i];
    EXPECT_EQ(a.start, b.start);
    EXPECT_EQ(a.end, b.end);
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.inode, b.inode);
    EXPECT_EQ(a.offset, b.offset);
    EXPECT_EQ(a.vm_flags, b.vm_flags) << std::hex << a.start << " " << a.name;
    EXPECT_EQ(a.unknown_vm_flags, b.unknown_vm_flags);
    EXPECT_EQ(a.protection_key, b.protection_key);
  }
}

class MappingReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    reader_ = MappingReader::open();
    if (!reader_) GTEST_SKIP() << "BPF iterators over the mappings of a task (Linux 6.1, CAP_BPF, CAP_PERFMON)";
  }
  std::unique_ptr<MappingReader> reader_;
};

char* map(size_t pages, int protection) {
  return static_cast<char*>(mmap(nullptr, pages * 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

TEST_F(MappingReaderTest, TellsWhatSmapsTells) {
  const StoppedChild child([] {
    const int rw = PROT_READ | PROT_WRITE;
    madvise(map(4, rw), 4096, MADV_DONTFORK);
    madvise(map(4, rw), 4096, MADV_WIPEONFORK);
    madvise(map(4, rw), 4096, MADV_DONTDUMP);
    madvise(map(4, rw), 4096, MADV_MERGEABLE);
    madvise(map(4, rw), 4096, MADV_SEQUENTIAL);
    madvise(map(4, rw), 4096, MADV_RANDOM);
    madvise(map(4, rw), 4096, MADV_NOHUGEPAGE);
    mlock(map(2, rw), 4096);
    map(1, PROT_NONE);
    mmap(nullptr, 8192, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_NORESERVE, -1, 0);
    mmap(nullptr, 8192, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  });
  expect_as_smaps(*reader_, child.pid());
  expect_as_smaps(*reader_, child.pid());  // all words are known now
}

// An advice that changes nothing but the flags must be seen although all its words are known.
TEST_F(MappingReaderTest, SeesFlagsThatChangedSince) {
  for (int advice : {MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK}) {
    const StoppedChild child([&] { madvise(map(4, PROT_READ | PROT_WRITE), size_t{4} * 4096, advice); });
    expect_as_smaps(*reader_, child.pid());
  }
}

TEST_F(MappingReaderTest, ReadsOnUntilTheLastNewWord) {
  const StoppedChild child([] {
    // More text than is read at once, and the odd one behind (addresses are given downwards) and in the middle of it.
    char* area = many_mappings();
    madvise(area + size_t{3998} * 4096, 4096, MADV_WIPEONFORK);
    madvise(area + size_t{2000} * 4096, 4096, MADV_SEQUENTIAL);
  });
  expect_as_smaps(*reader_, child.pid());
}

// Some thousand at once, and counts around what fits into a read.
TEST_F(MappingReaderTest, FindsTheEnd) {
  for (int extra = 0; extra < 3; ++extra) {
    const StoppedChild child([&] {
      char* area = many_mappings();
      munmap(area, static_cast<size_t>(extra) * 4096);
    });
    expect_as_smaps(*reader_, child.pid());
  }
}

}  // namespace
}  // namespace stasis

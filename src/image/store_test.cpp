#include "image/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/scope_guard.h"
#include "base/test_error.h"
#include "proto/fs.pb.h"
#include "proto/inventory.pb.h"
#include "proto/pstree.pb.h"
#include "proto/stats.pb.h"

namespace stasis {
namespace {

namespace fs = std::filesystem;

class Store : public testing::Test {
 protected:
  Store() {
    std::string pattern = (fs::temp_directory_path() / "stasis-store-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Store() override { fs::remove_all(path_); }

  Fd directory() const { return Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }
  ImageStore create() const { return ImageStore::in_directory(directory(), "images"); }
  ImageStore open() const { return ImageStore::in_directory(directory(), "images"); }

  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(path_)) found.insert(entry.path().filename().string());
    return found;
  }
  void put(const std::string& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
  }
  std::string get(const std::string& name) const {
    std::ifstream file(path_ / name, std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }

  fs::path path_;
};

pb::inventory_entry inventory(uint32_t version = 2) {
  pb::inventory_entry entry;
  entry.set_img_version(version);
  entry.set_fdinfo_per_id(true);
  return entry;
}

pb::pstree_entry process(uint32_t pid) {
  pb::pstree_entry entry;
  entry.set_pid(pid);
  entry.set_ppid(0);
  entry.set_pgid(1);
  entry.set_sid(1);
  return entry;
}

void write_sample(ImageStore& store) {
  store.writer(ImageKind::PSTREE).write(process(1));
  store.writer(ImageKind::PSTREE).write(process(2));
  pb::fs_entry fs_entry;
  fs_entry.set_cwd_id(1);
  fs_entry.set_root_id(2);
  store.write_single(ImageKind::FS, 1, fs_entry);
  Fd pages = store.create_raw(ImageKind::PAGES, 1);
  ASSERT_EQ(::write(pages.get(), "pages", 5), 5);
}

TEST_F(Store, WhatIsCommittedIsRead) {
  {
    ImageStore store = create();
    write_sample(store);
    EXPECT_FALSE(names().contains("inventory.img"));
    store.commit(inventory(), Durability::DISK);
  }
  EXPECT_EQ(names(),
            (std::set<std::string>{"fs-1.img", "inventory.img", "pages-1.img", "pstree.img", "stasis-manifest"}));
  struct stat status;
  ASSERT_EQ(::stat((path_ / "pstree.img").c_str(), &status), 0);
  mode_t mask = ::umask(0);
  ::umask(mask);
  EXPECT_EQ(status.st_mode & 07777, 0644u & ~mask);

  ImageStore store = open();
  EXPECT_TRUE(read_inventory(store).fdinfo_per_id());
  EXPECT_TRUE(verify_manifest(store));
  ImageReader pstree = store.require(ImageKind::PSTREE);
  pb::pstree_entry entry;
  EXPECT_TRUE(pstree.next(entry));
  EXPECT_TRUE(pstree.next(entry));
  EXPECT_EQ(entry.pid(), 2u);
  EXPECT_FALSE(pstree.next(entry));
  EXPECT_EQ(store.open_raw(ImageKind::PAGES, 1)->size_bytes, 5u);
  EXPECT_FALSE(store.open_raw(ImageKind::PAGES, 2));
  EXPECT_FALSE(store.reader(ImageKind::FS, 2));
  Error missing = error_of([&] { store.require(ImageKind::CORE, 42); });
  EXPECT_EQ(missing.reason(), Reason::IMAGE_MISSING);
  EXPECT_EQ(missing.object(), "images/core-42.img");
}

TEST_F(Store, MemoryBehavesLikeADirectory) {
  ImageStore store = ImageStore::in_memory();
  write_sample(store);
  store.commit(inventory());
  EXPECT_EQ(read_inventory(store).img_version(), 2u);
  EXPECT_TRUE(verify_manifest(store));
  pb::fs_entry entry;
  store.require_single(ImageKind::FS, 1, entry);
  EXPECT_EQ(entry.root_id(), 2u);
  char bytes[8];
  EXPECT_EQ(::read(store.open_raw(ImageKind::PAGES, 1)->fd.get(), bytes, sizeof bytes), 5);
}

TEST_F(Store, StaleInventoryIsGoneBeforeTheFirstFileIsThere) {
  put("inventory.img", "old");
  put("stasis-manifest", "old");
  { ImageStore refused = create(); }
  EXPECT_EQ(get("inventory.img"), "old");
  EXPECT_EQ(get("stasis-manifest"), "old");
  ImageStore store = create();
  store.create_raw(ImageKind::PAGES, 1);
  EXPECT_EQ(names(), std::set<std::string>{"pages-1.img"});
}

TEST_F(Store, StaleFilesOfTheSetGoAtCommit) {
  put("filelocks.img", "old");    // nobody asked for it in this dump
  put("timens-5.img", "old");     // asked for, but nothing was written
  put("pages-65537.img", "old");  // may come from a page server
  put("notes.txt", "mine");
  {
    ImageStore store = create();
    store.writer(ImageKind::TIMENS, 5);
    write_sample(store);
    store.commit(inventory());
  }
  EXPECT_EQ(names(), (std::set<std::string>{"fs-1.img", "inventory.img", "notes.txt", "pages-1.img", "pages-65537.img",
                                            "pstree.img", "stasis-manifest"}));
}

TEST_F(Store, WithoutCommitNothingStays) {
  put("dump.log", "why");
  {
    ImageStore store = create();
    write_sample(store);
    EXPECT_TRUE(names().contains("fs-1.img"));
  }
  EXPECT_EQ(names(), std::set<std::string>{"dump.log"});
}

TEST_F(Store, WhatAFailureLeavesIsTold) {
  EXPECT_EQ(create().left_by_failure(), "");
  put("inventory.img", "old");
  ImageStore store = create();
  EXPECT_EQ(store.left_by_failure(), "images holds an older dump, as before");
  write_sample(store);
  EXPECT_EQ(store.left_by_failure(),
            "images holds no dump, what was written is removed; the older dump that was there is incomplete now");
  store.commit(inventory());
  EXPECT_EQ(store.left_by_failure(), "");

  fs::remove(path_ / "inventory.img");
  ImageStore first = create();
  write_sample(first);
  EXPECT_EQ(first.left_by_failure(), "images holds no dump, what was written is removed");
}

TEST_F(Store, AFileThatCannotBeWrittenFailsTheCommitAndLeavesNothing) {
  fs::create_directory(path_ / "pstree.img");
  {
    ImageStore store = create();
    write_sample(store);
    Error error = error_of([&] { store.commit(inventory()); });
    EXPECT_EQ(error.reason(), Reason::IMAGE_WRITE);
    EXPECT_EQ(error.error_number(), EISDIR);
    EXPECT_EQ(error.object(), "images/pstree.img");
  }
  EXPECT_EQ(names(), std::set<std::string>{"pstree.img"});
}

TEST_F(Store, LinksAreNotFollowedWhenWriting) {
  put("victim", "precious");
  fs::create_symlink("victim", path_ / "fs-1.img");
  ImageStore store = create();
  EXPECT_EQ(error_of([&] { write_sample(store); }).error_number(), ELOOP);
  EXPECT_EQ(get("victim"), "precious");
}

TEST_F(Store, ADirectoryThatIsGoneIsAWriteError) {
  ImageStore store = create();
  fs::remove_all(path_);
  EXPECT_EQ(error_of([&] { write_sample(store); }).reason(), Reason::IMAGE_WRITE);
}

TEST_F(Store, AFileSizeLimitIsAWriteErrorAndLeavesNothing) {
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ScopeGuard undo([&] {
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, old_handler);
  });
  struct rlimit tiny = {20, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tiny), 0);
  {
    ImageStore store = create();
    store.writer(ImageKind::PSTREE).write(process(1));
    store.writer(ImageKind::PSTREE).write(process(2));
    Error error = error_of([&] { store.commit(inventory()); });
    EXPECT_EQ(error.reason(), Reason::IMAGE_WRITE);
    EXPECT_EQ(error.error_number(), EFBIG);
  }
  EXPECT_TRUE(names().empty());
}

// Exit codes of the child below.
enum { AS_EXPECTED = 0, UNEXPECTED = 1, NO_NAMESPACE = 2, NO_TMPFS = 3 };

bool enter_mount_namespace() {
  if (::unshare(CLONE_NEWNS) == 0) return true;
  std::string uid = std::to_string(::getuid());
  std::string gid = std::to_string(::getgid());
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return false;
  // Without a map of its ids a process cannot make files.
  std::ofstream("/proc/self/setgroups") << "deny";
  std::ofstream("/proc/self/uid_map") << "0 " + uid + " 1";
  std::ofstream("/proc/self/gid_map") << "0 " + gid + " 1";
  return true;
}

int fill_tiny_tmpfs(const fs::path& path) {
  if (!enter_mount_namespace()) return NO_NAMESPACE;
  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  if (::mount("tmpfs", path.c_str(), "tmpfs", 0, "size=16k") < 0) return NO_TMPFS;
  try {
    ImageStore store = ImageStore::in_directory(Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), "images");
    for (uint32_t i = 0; i < 10000; ++i) store.writer(ImageKind::PSTREE).write(process(i));
    store.commit(inventory());
  } catch (const Error& e) {
    bool told = e.reason() == Reason::IMAGE_WRITE && e.error_number() == ENOSPC && !e.remedy().empty();
    return told && fs::is_empty(path) ? AS_EXPECTED : UNEXPECTED;
  }
  return UNEXPECTED;
}

TEST_F(Store, AFullFileSystemIsAWriteErrorAndLeavesNothing) {
  pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(fill_tiny_tmpfs(path_));
  int status;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == NO_NAMESPACE) GTEST_SKIP() << "a mount namespace cannot be made by this user";
  if (WEXITSTATUS(status) == NO_TMPFS) GTEST_SKIP() << "tmpfs cannot be mounted by this user";
  EXPECT_EQ(WEXITSTATUS(status), AS_EXPECTED);
}

TEST_F(Store, MisuseIsADefect) {
  ImageStore store = create();
  EXPECT_EQ(error_of([&] { store.writer(ImageKind::PAGES, 1); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { store.writer(ImageKind::INVENTORY); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { store.writer(ImageKind::VMAS, 1); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { store.create_raw(ImageKind::CORE, 1); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { store.writer(ImageKind::PIPES_DATA).write_raw("x"); }).reason(), Reason::INTERNAL);
  ImageWriter& closed = store.writer(ImageKind::PSTREE);
  closed.close();
  EXPECT_EQ(error_of([&] { closed.write(process(1)); }).reason(), Reason::INTERNAL);
}

// As a restore does.
bool verify_all(ImageStore& store) {
  const bool known = verify_manifest(store);
  verify_unread_images(store);
  return known;
}

TEST_F(Store, EveryTruncationOfEveryFileIsFoundByTheManifest) {
  {
    ImageStore store = create();
    write_sample(store);
    store.commit(inventory());
  }
  for (const std::string& name : names()) {
    std::string whole = get(name);
    for (size_t size = 0; size < whole.size(); ++size) {
      put(name, whole.substr(0, size));
      ImageStore store = open();
      Reason reason = error_of([&] { verify_all(store); }).reason();
      EXPECT_TRUE(reason == Reason::IMAGE_TRUNCATED || reason == Reason::IMAGE_CORRUPT) << name << " " << size;
    }
    put(name, whole);
  }
}

TEST_F(Store, EveryFlippedBitOfARecordFileIsFoundByTheManifest) {
  {
    ImageStore store = create();
    write_sample(store);
    store.commit(inventory());
  }
  std::string whole = get("pstree.img");
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    put("pstree.img", bad);
    ImageStore store = open();
    EXPECT_TRUE(verify_manifest(store));
    EXPECT_EQ(error_of([&] { store.reader(ImageKind::PSTREE); }).reason(), Reason::IMAGE_CORRUPT);
  }
}

TEST_F(Store, AFlippedBitOfAFileThatNobodyReadsIsFound) {
  {
    ImageStore store = create();
    write_sample(store);
    store.commit(inventory());
  }
  for (const std::string name : {"inventory.img", "fs-1.img"}) {
    const std::string whole = get(name);
    std::string bad = whole;
    bad.back() = static_cast<char>(bad.back() ^ 1);
    put(name, bad);
    ImageStore store = open();
    EXPECT_EQ(error_of([&] { verify_all(store); }).reason(), Reason::IMAGE_CORRUPT);
    put(name, whole);
  }
  ImageStore store = open();
  EXPECT_TRUE(verify_all(store));
}

TEST_F(Store, AMissingFileIsFoundByTheManifestAndAMissingManifestIsNoError) {
  {
    ImageStore store = create();
    write_sample(store);
    store.commit(inventory());
  }
  fs::remove(path_ / "pages-1.img");
  {
    ImageStore store = open();
    Error error = error_of([&] { verify_all(store); });
    EXPECT_EQ(error.reason(), Reason::IMAGE_MISSING);
    EXPECT_EQ(error.object(), "images/pages-1.img");
  }
  fs::remove(path_ / "stasis-manifest");
  ImageStore store = open();
  EXPECT_FALSE(verify_manifest(store));
}

TEST_F(Store, WhatIsNoFileIsNotRead) {
  ASSERT_EQ(::mkfifo((path_ / "pstree.img").c_str(), 0600), 0);
  fs::create_directory(path_ / "files.img");
  ImageStore store = open();
  EXPECT_EQ(error_of([&] { store.reader(ImageKind::PSTREE); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(error_of([&] { store.reader(ImageKind::FILES); }).reason(), Reason::IMAGE_CORRUPT);
  ASSERT_EQ(::truncate((path_ / "cgroup.img").c_str(), 0), -1);
  put("cgroup.img", "");
  ASSERT_EQ(::truncate((path_ / "cgroup.img").c_str(), off_t{1} << 40), 0);
  EXPECT_EQ(error_of([&] { store.reader(ImageKind::CGROUP); }).reason(), Reason::IMAGE_CORRUPT);
}

TEST(Inventory, OnlyKnownVersionsAreRead) {
  auto store_with = [](const pb::inventory_entry& entry) {
    // NOLINTNEXTLINE(modernize-make-unique): a store can be neither copied nor moved
    auto store = std::unique_ptr<ImageStore>(new ImageStore(ImageStore::in_memory()));
    store->commit(entry);
    return store;
  };
  EXPECT_EQ(read_inventory(*store_with(inventory(1))).img_version(), 1u);
  EXPECT_EQ(error_of([&] { read_inventory(*store_with(inventory(3))); }).reason(), Reason::IMAGE_VERSION);
  Error pre_dump = error_of([&] { read_inventory(*store_with(inventory(0))); });
  EXPECT_EQ(pre_dump.reason(), Reason::IMAGE_VERSION);
  EXPECT_NE(pre_dump.remedy().find("pre-dump"), std::string::npos);
  pb::inventory_entry per_task = inventory();
  per_task.clear_fdinfo_per_id();
  EXPECT_EQ(error_of([&] { read_inventory(*store_with(per_task)); }).reason(), Reason::IMAGE_VERSION);
  ImageStore empty = ImageStore::in_memory();
  EXPECT_EQ(error_of([&] { read_inventory(empty); }).reason(), Reason::IMAGE_MISSING);
}

TEST_F(Store, FilesOfVersionOneAreReadAfterTheInventorySaysSo) {
  {
    ImageStore store = create();
    write_sample(store);
    store.commit(inventory(1));
  }
  put("pstree.img", get("pstree.img").substr(4));
  ImageStore store = open();
  EXPECT_EQ(error_of([&] { store.reader(ImageKind::PSTREE); }).reason(), Reason::IMAGE_CORRUPT);
  read_inventory(store);
  pb::pstree_entry entry;
  store.require(ImageKind::PSTREE).require(entry);
}

TEST_F(Store, WorkFilesHaveTheServiceMagic) {
  Fd dir = directory();
  write_work_file(dir.get(), "work", ImageKind::STATS_DUMP, pb::stats_entry());
  EXPECT_EQ(get("stats-dump"), std::string("\x40\x59\x10\x55\x06\x33\x09\x57\0\0\0\0", 12));
  EXPECT_EQ(error_of([&] { write_work_file(dir.get(), "work", ImageKind::PSTREE, process(1)); }).reason(),
            Reason::INTERNAL);
}

}  // namespace
}  // namespace stasis

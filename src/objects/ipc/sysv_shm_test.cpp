#include "objects/ipc/sysv_shm.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "base/test_error.h"
#include "proto/ipc-shm.pb.h"

namespace stasis {
namespace {

Vma area(uint64_t start, uint64_t end, uint64_t segment, uint64_t offset, uint32_t open_mode = O_RDWR) {
  Vma v;
  v.start = start, v.end = end, v.shmid = segment, v.pgoff_bytes = offset, v.fdflags = open_mode;
  v.status = vma_status::regular | vma_status::sysv_shm | vma_status::anon_shared;
  v.flags = MAP_SHARED | MAP_ANONYMOUS;
  v.prot = PROT_READ;
  return v;
}

std::vector<Vma> areas() {
  Vma other = area(0x3000, 0x4000, 1, 0x2000);
  other.status = vma_status::regular | vma_status::anon_private;
  return {area(0x1000, 0x2000, 1, 0),      other,
          area(0x4000, 0x6000, 1, 0x3000), area(0x6000, 0x7000, 1, 0x5000, O_RDONLY),
          area(0x8000, 0x9000, 2, 0x7000), area(0x9000, 0xa000, 1, 0)};
}

TEST(SysvAttachment, PiecesOfOneAttachingCall) {
  const auto found = attachments_of(areas());
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].pieces, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(found[0].base, 0x1000u);
  EXPECT_EQ(found[1].pieces, std::vector<size_t>{3});
  EXPECT_TRUE(found[1].read_only && !found[0].read_only);
  EXPECT_EQ(found[2].segment, 2u);
  EXPECT_EQ(found[3].base, 0x9000u);
}

TEST(SysvAttachment, IsInheritedAsAWholeOrNotAtAll) {
  std::vector<AddressRange> inherited = {{0x1000, 0x2000}, {0x3000, 0x4000}, {0x6000, 0x7000}, {0x9000, 0xa000}};
  drop_parts_of_attachments(areas(), inherited);
  ASSERT_EQ(inherited.size(), 3u);
  EXPECT_EQ(inherited.front().start, 0x3000u);
}

TEST(SysvSegment, ReservesWholePages) {
  EXPECT_EQ((SysvSegment{.size_bytes = 4097}).mapped_bytes(), 8192u);
  EXPECT_EQ((SysvSegment{.size_bytes = 1, .huge_flags = SHM_HUGETLB | 21u << 26}).mapped_bytes(), 2u << 20);
}

pb::ipc_shm_entry entry(uint32_t id) {
  pb::ipc_shm_entry e;
  pb::ipc_desc_entry& desc = *e.mutable_desc();
  desc.set_id(id), desc.set_key(7), desc.set_uid(1), desc.set_gid(2), desc.set_cuid(3), desc.set_cgid(4);
  desc.set_mode(0640 | SHM_DEST);
  e.set_size(10);
  e.set_in_pagemaps(true);
  return e;
}

std::map<uint64_t, SysvSegment> read_back(std::initializer_list<pb::ipc_shm_entry> entries,
                                          const pb::extension_head* head = nullptr) {
  ImageStore store = ImageStore::in_memory();
  for (const auto& e : entries) store.writer(ImageKind::IPCNS_SHM, 9).write(e);
  if (entries.size() > 0) store.writer(ImageKind::IPCNS_SHM, 9).close();
  return read_segments(store, 9, head);
}

TEST(SysvSegment, IsReadWithWhatTheExtensionTells) {
  EXPECT_TRUE(read_back({}).empty());
  pb::extension_head head;
  head.add_segments()->set_id(5);
  head.mutable_segments(0)->set_born_ns(123);
  const auto segments = read_back({entry(4), entry(5)}, &head);
  ASSERT_EQ(segments.size(), 2u);
  const SysvSegment& s = segments.at(5);
  EXPECT_EQ(s.key, 7u);
  EXPECT_TRUE(s.uid == 1 && s.gid == 2 && s.cuid == 3 && s.cgid == 4);
  EXPECT_EQ(s.mode, 0640u | SHM_DEST);
  EXPECT_EQ(s.size_bytes, 10u);
  EXPECT_EQ(s.born_ns, 123u);
  EXPECT_FALSE(segments.at(4).born_ns);
}

Reason reason_of(void (*change)(pb::ipc_shm_entry&)) {
  pb::ipc_shm_entry e = entry(4);
  change(e);
  return error_of([&] { read_back({e}); }).reason();
}

TEST(SysvSegment, BadRecordsAreRefused) {
  using E = pb::ipc_shm_entry;
  EXPECT_EQ(error_of([] { read_back({entry(4), entry(4)}); }).reason(), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.set_in_pagemaps(false); }), Reason::IMAGE_UNSUPPORTED);
  EXPECT_EQ(reason_of([](E& e) { e.set_size(0); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.set_size(UINT64_MAX); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.mutable_desc()->set_id(UINT32_MAX); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.mutable_desc()->set_mode(0x10000); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.set_hugetlb_flag(63u << 26 | SHM_HUGETLB); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](E& e) { e.set_hugetlb_flag(21u << 26); }), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis

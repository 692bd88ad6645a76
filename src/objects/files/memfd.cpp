#include "objects/files/memfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/page_size.h"
#include "kernel/uapi.h"
#include "memory/shmem.h"
#include "proto/memfd.pb.h"

namespace stasis {
namespace {

constexpr std::string_view memfd_prefix = "/memfd:";

// "/memfd:NAME (deleted)", "/dev/zero (deleted)"; nothing when no such object has this link.
std::optional<std::string> name_of(std::string_view link) {
  if (!link.ends_with(deleted_mark)) return std::nullopt;
  link.remove_suffix(deleted_mark.size());
  if (link.starts_with(memfd_prefix)) return std::string(link.substr(memfd_prefix.size()));
  if (link == "/dev/zero" || link == "/anon_hugepage") return std::string(link);
  return std::nullopt;
}

std::string what_of(const Memfd::Inode& inode) {
  return fmt::format("memory object {} ({})", inode.id, inode.name);
}

Error restore_failed(const Memfd::Inode& inode, std::string what_failed) {
  return Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(what_of(inode)).error_number(errno);
}

uint32_t huge_flags_of(const FileView& view) {
  struct statfs info;
  if (::fstatfs(view.fd, &info) != 0) throw view.failed("cannot get the file system of an object");
  if (info.f_type != HUGETLBFS_MAGIC) return 0;
  const auto size = static_cast<unsigned>(std::countr_zero(static_cast<uint64_t>(info.f_bsize)));
  return MFD_HUGETLB | size << MAP_HUGE_SHIFT;
}

// Objects of different file systems may have the same number.
uint32_t free_pages_id(const DumpFiles& files, uint32_t wanted) {
  const auto taken = [&](uint64_t id) {
    return std::ranges::find(files.memory_objects, id, &MemoryObject::id) != files.memory_objects.end();
  };
  while (taken(wanted)) ++wanted;
  return wanted;
}

Memfd::Inode dump_inode(const FileView& view, DumpFiles& files, uint32_t id) {
  Memfd::Inode inode;
  inode.id = id;
  inode.name = *name_of(view.link);
  if (inode.is_anonymous() && view.link.starts_with(memfd_prefix))
    throw Error(Reason::UNSUPPORTED_FILE,
                "a memfd has the name of shared anonymous memory, which images keep apart by it")
        .object(view.who())
        .remedy("let the program give its memfd another name");
  inode.uid = view.st.st_uid;
  inode.gid = view.st.st_gid;
  inode.size_bytes = static_cast<uint64_t>(view.st.st_size);
  inode.mode = view.st.st_mode & permission_bits;
  inode.huge_flags = huge_flags_of(view);
  Fd fd = reopen(view.fd, O_RDONLY | O_CLOEXEC);
  if (!fd) throw view.failed("cannot open a memory object to read it");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) throw view.failed("cannot read the seals of a memory object");
  inode.seals = static_cast<uint32_t>(seals);
  inode.pages_id = free_pages_id(files, static_cast<uint32_t>(view.st.st_ino));
  files.memory_objects.push_back({inode.pages_id, std::move(fd), view.who()});
  return inode;
}

Fd make_memfd(const Memfd::Inode& inode) {
  // The sysctl vm.memfd_noexec must not decide: the mode is set below.
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | inode.huge_flags;
  int fd = ::memfd_create(inode.name.c_str(), flags | uapi::mfd_exec);
  // Linux before 6.3 does not know the flag, and vm.memfd_noexec=2 forbids it.
  if (fd < 0 && errno == EINVAL) fd = ::memfd_create(inode.name.c_str(), flags);
  if (fd < 0 && errno == EACCES) fd = ::memfd_create(inode.name.c_str(), flags | uapi::mfd_noexec_seal);
  if (fd < 0) throw restore_failed(inode, "cannot make a memfd");
  return Fd(fd);
}

Fd make_anonymous(const Memfd::Inode& inode) {
  SharedNeed need{.size_bytes = inode.size_bytes, .noreserve = inode.huge_flags == 0, .huge_flags = 0};
  if (inode.huge_flags != 0) need.huge_flags = (inode.huge_flags & ~MFD_HUGETLB) | MAP_HUGETLB;
  return shmem_create(need);
}

void add_seals(int fd, const Memfd::Inode& inode, uint32_t seals) {
  const int now = ::fcntl(fd, F_GET_SEALS);
  if (now >= 0 && (seals & ~static_cast<uint32_t>(now)) == 0) return;
  if (now < 0 || ::fcntl(fd, F_ADD_SEALS, seals) < 0)
    throw restore_failed(inode, fmt::format("cannot add the seals {:#x}", seals));
}

bool seals_late(const Memfd::Inode& inode) {
  return (inode.seals & F_SEAL_FUTURE_WRITE) != 0;
}

// Open for reading; made when it is asked for first.
int object_of(uint32_t inode_id, Memfd::Shared& shared) {
  Fd& made = shared.made[inode_id];
  if (made) return made.get();
  const Memfd::Inode& inode = shared.inodes.at(inode_id);
  const Fd fd = inode.is_anonymous() ? make_anonymous(inode) : make_memfd(inode);
  if (const auto pages = shared.pages.find(inode_id); pages != shared.pages.end() && pages->second) {
    if (inode.huge_flags != 0 && ::ftruncate(fd.get(), static_cast<off_t>(inode.size_bytes)) < 0)
      throw restore_failed(inode, "cannot set the size of a memory object");
    shmem_fill(fd.get(), *pages->second, what_of(inode));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(inode.size_bytes)) < 0)
    throw restore_failed(inode, "cannot set the size of a memory object");
  // A change of the owner clears bits of the mode, and the mode decides what F_SEAL_EXEC adds.
  if (::fchown(fd.get(), inode.uid, inode.gid) < 0) throw restore_failed(inode, "cannot set the owner");
  if (inode.mode && ::fchmod(fd.get(), *inode.mode) < 0) throw restore_failed(inode, "cannot set the mode");
  if (!inode.is_anonymous() && !seals_late(inode)) add_seals(fd.get(), inode, inode.seals);
  made = reopen(fd.get(), O_RDONLY | O_CLOEXEC);
  if (!made) throw restore_failed(inode, "cannot open a new memory object");
  return made.get();
}

const Memfd::Inode& inode_of(const Memfd::State& state, const Memfd::Shared& shared) {
  const auto found = shared.inodes.find(state.inode_id);
  if (found == shared.inodes.end())
    throw Error(Reason::IMAGE_CORRUPT, fmt::format("the memory object {} is not in memfd.img", state.inode_id))
        .object(fmt::format("file {}", state.id));
  return found->second;
}

// What the caller gives in its place, by the name that /proc shows; -1: nothing.
int given_instead(const Memfd::Inode& inode, const RestoreFiles& files) {
  return inode.is_anonymous() ? -1 : files.inherited("/memfd:" + inode.name);
}

}  // namespace

bool Memfd::match(const FileView& view) {
  return S_ISREG(view.st.st_mode) && view.st.st_nlink == 0 && name_of(view.link).has_value();
}

void Memfd::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  const off_t pos = view.path_only() ? 0 : ::lseek(view.fd, 0, SEEK_CUR);
  state.pos = pos < 0 ? 0 : static_cast<uint64_t>(pos);
  const auto next_id = static_cast<uint32_t>(shared.dumped.size() + 1);
  const auto [at, fresh] = shared.dumped.try_emplace({view.st.st_dev, view.st.st_ino}, next_id);
  if (fresh) shared.inodes.emplace(at->second, dump_inode(view, files, at->second));
  state.inode_id = at->second;
}

void Memfd::encode(const State& state, pb::file_entry& out) {
  pb::memfd_file_entry& memfd = *out.mutable_memfd();
  encode_open_file(state, pb::MEMFD, out, memfd);
  memfd.set_pos(state.pos);
  memfd.set_inode_id(state.inode_id);
}

void Memfd::write_images(Shared& shared, ImageStore& store) {
  if (shared.inodes.empty()) return;
  ImageWriter& writer = store.writer(ImageKind::MEMFD_INODE);
  for (const auto& [id, inode] : shared.inodes) {
    pb::memfd_inode_entry entry;
    entry.set_name(inode.name);
    entry.set_uid(inode.uid);
    entry.set_gid(inode.gid);
    entry.set_size(inode.size_bytes);
    entry.set_shmid(inode.pages_id);
    entry.set_seals(inode.seals);
    entry.set_inode_id(id);
    if (inode.huge_flags != 0) entry.set_hugetlb_flag(inode.huge_flags);
    if (inode.mode) entry.set_mode(*inode.mode);
    writer.write(entry);
  }
}

void Memfd::decode(const pb::file_entry& in, State& state) {
  const pb::memfd_file_entry& memfd = in.memfd();
  decode_open_file(memfd, state);
  state.pos = memfd.pos();
  state.inode_id = memfd.inode_id();
}

void Memfd::read_images(const ImageStore& store, Shared& shared) {
  std::optional<ImageReader> reader = store.reader(ImageKind::MEMFD_INODE);
  if (!reader) return;
  pb::memfd_inode_entry entry;
  while (reader->next(entry)) {
    Inode inode;
    inode.id = static_cast<uint32_t>(entry.inode_id());
    inode.name = entry.name();
    inode.uid = entry.uid();
    inode.gid = entry.gid();
    inode.size_bytes = entry.size();
    inode.pages_id = entry.shmid();
    inode.seals = entry.seals();
    inode.huge_flags = entry.hugetlb_flag();
    if (entry.has_mode()) inode.mode = entry.mode() & permission_bits;
    if (inode.size_bytes > INT64_MAX || inode.name.find('\0') != std::string::npos ||
        (inode.is_anonymous() && inode.size_bytes == 0))
      reader->corrupt(fmt::format("the memory object {} has an impossible size or name", inode.id));
    if ((inode.huge_flags & ~(MFD_HUGETLB | unsigned{MAP_HUGE_MASK} << MAP_HUGE_SHIFT)) != 0)
      reader->corrupt(fmt::format("the memory object {} has unknown flags", inode.id));
    auto pages = PagemapReader::open(store, ImageKind::SHMEM_PAGEMAP, inode.pages_id);
    const uint64_t page = page_size_bytes();
    if (pages && !pages->ranges().empty()) {
      const PageRange& last = pages->ranges().back().range;
      if (last.vaddr + last.nr_pages * page > (inode.size_bytes + page - 1) / page * page)
        reader->corrupt(fmt::format("pages of the memory object {} lie beyond its end", inode.id));
    }
    shared.pages.emplace(inode.id, std::move(pages));
    if (!shared.inodes.emplace(inode.id, inode).second)
      reader->corrupt(fmt::format("two memory objects have the id {}", inode.id));
  }
}

void Memfd::plan(const State& state, RestoreFiles&, Shared& shared) {
  inode_of(state, shared);
}

Fd Memfd::create(const State& state, RestoreFiles& files, Shared& shared) {
  const Inode& inode = inode_of(state, shared);
  if (const int given = given_instead(inode, files); given >= 0)
    return Fd(check(::fcntl(given, F_DUPFD_CLOEXEC, 3), "cannot duplicate an inherited descriptor"));
  Fd fd = reopen(object_of(state.inode_id, shared), reopen_flags(state.flags));
  if (!fd) throw restore_failed(inode, fmt::format("cannot open it (flags {:#o})", state.flags));
  if (state.pos != 0 && ::lseek(fd.get(), static_cast<off_t>(state.pos), SEEK_SET) < 0)
    throw restore_failed(inode, fmt::format("cannot set a position to {}", state.pos));
  return fd;
}

Fd Memfd::open_mapped(const State& state, int flags, RestoreFiles& files, Shared& shared) {
  const Inode& inode = inode_of(state, shared);
  const int given = given_instead(inode, files);
  Fd fd = reopen(given >= 0 ? given : object_of(state.inode_id, shared), flags | O_CLOEXEC);
  if (!fd) throw restore_failed(inode, "cannot open it to map it");
  return fd;
}

void Memfd::finish(const State& state, int fd, RestoreFiles& files, Shared& shared) {
  restore_file_owner(state.owner, fd, files, what_of(inode_of(state, shared)));
}

void Memfd::complete(RestoreFiles&, Shared& shared) {
  for (const auto& [id, fd] : shared.made) {
    const Inode& inode = shared.inodes.at(id);
    if (!fd || inode.is_anonymous() || !seals_late(inode)) continue;
    const Fd writer = reopen(fd.get(), O_RDWR | O_CLOEXEC);
    if (!writer) throw restore_failed(inode, "cannot open it to seal it");
    add_seals(writer.get(), inode, inode.seals);
  }
}

}  // namespace stasis

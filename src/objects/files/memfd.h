// Memory objects without a path: memfds and shared anonymous memory, of small or huge pages; open, mapped, or executed.
//
// One inode is made and filled once (memfd.img, pagemap-shmem-N.img), when the first task maps or opens it. It is held
// open for reading only: a writer in this program would keep a task from executing it (ETXTBSY). Seals that stop
// writing come before the mappings, which cannot be writable then; one that stops future writing comes when all is
// open.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "image/pagemap.h"
#include "objects/files/file_kind.h"

namespace stasis {

struct Memfd {
  static constexpr std::string_view name = "memory object";
  static constexpr pb::fd_types type = pb::MEMFD;

  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    uint64_t pos = 0;
    FileOwner owner;
    uint32_t inode_id = 0;

    bool operator==(const State&) const = default;
  };
  struct Inode {
    uint32_t id = 0;
    std::string name;  // as given to memfd_create(); "/dev/zero", "/anon_hugepage" for shared anonymous memory
    uint32_t uid = 0, gid = 0;
    uint64_t size_bytes = 0;
    uint32_t pages_id = 0;  // names the page map
    uint32_t seals = 0;
    uint32_t huge_flags = 0;       // MFD_HUGETLB and the size of its pages, or 0
    std::optional<uint32_t> mode;  // permissions

    bool is_anonymous() const { return name == "/dev/zero" || name == "/anon_hugepage"; }
    bool operator==(const Inode&) const = default;
  };
  struct Shared {
    std::map<uint32_t, Inode> inodes;                        // by id
    std::map<std::pair<dev_t, ino_t>, uint32_t> dumped;      // dump
    std::map<uint32_t, std::optional<PagemapReader>> pages;  // restore, by inode id
    std::map<uint32_t, Fd> made;                             // restore, by inode id; open for reading
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void write_images(Shared& shared, ImageStore& store);
  static void decode(const pb::file_entry& in, State& state);
  static void read_images(const ImageStore& store, Shared& shared);
  static void plan(const State& state, RestoreFiles&, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static Fd open_mapped(const State& state, int flags, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static void complete(RestoreFiles&, Shared& shared);
};

}  // namespace stasis

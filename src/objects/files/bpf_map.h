// BPF maps (bpf(2)): arrays and hash tables, with what is in them. CAP_BPF or CAP_SYS_ADMIN is needed on both sides.
//
// All descriptions of a map lead to one map again, each with its access mode. A restored map is a new one with a new
// id: what else may know it by the old one - a program that is loaded, another process by BPF_MAP_GET_FD_BY_ID - is cut
// off, so a map that a loaded program uses is refused. Refused are also other kinds of maps, and maps whose keys or
// values have BTF types.
#pragma once

#include <linux/bpf.h>

#include <map>
#include <optional>
#include <set>
#include <string>

#include "objects/files/file_kind.h"

namespace stasis {

struct BpfMap {
  static constexpr std::string_view name = "BPF map";
  static constexpr pb::fd_types type = pb::BPFMAP;

  struct Info {
    uint32_t map_type = 0, key_size = 0, value_size = 0, max_entries = 0, map_flags = 0;
    uint64_t map_extra = 0, memlock = 0;
    bool frozen = false;
    std::string map_name;

    bool operator==(const Info&) const = default;
  };
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint32_t map_id = 0;
    Info info;

    bool operator==(const State&) const = default;
  };
  struct Content {
    std::string keys, values;
    uint32_t count = 0;
  };
  struct Shared {
    std::map<uint32_t, Content> contents;           // by map id
    std::optional<std::set<uint32_t>> in_programs;  // dump: ids of the maps that loaded programs use
    std::map<uint32_t, Fd> made;                    // restore: by the old id
  };

  static bool match(const FileView&);
  static void dump(const FileView&, DumpFiles&, Shared&, State&);
  static void encode(const State&, pb::file_entry&);
  static void write_images(Shared&, ImageStore&);
  static void decode(const pb::file_entry&, State&);
  static void read_images(const ImageStore&, Shared&);
  static void plan(const State&, RestoreFiles&, Shared&);
  static Fd create(const State&, RestoreFiles&, Shared&);
  static void finish(const State&, int fd, RestoreFiles&, Shared&);
};

}  // namespace stasis

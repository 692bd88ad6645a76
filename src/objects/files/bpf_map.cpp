#include "objects/files/bpf_map.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "proto/bpfmap-data.pb.h"

namespace stasis {
namespace {

constexpr uint32_t kFirstBatch = 4096;              // entries
constexpr uint64_t kMostBytes = uint64_t{1} << 31;  // of keys or values, by their sizes in the image

long bpf(int command, bpf_attr& attributes) {
  return ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

bpf_attr no_attributes() {
  bpf_attr out;
  std::memset(&out, 0, sizeof out);
  return out;
}

uint64_t address_of(const void* p) {
  return reinterpret_cast<uint64_t>(p);
}

template <class Info>
bool get_bpf_info(int fd, Info& info) {
  bpf_attr attributes = no_attributes();
  attributes.info.bpf_fd = static_cast<uint32_t>(fd);
  attributes.info.info_len = sizeof info;
  attributes.info.info = address_of(&info);
  return bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) == 0;
}

// `access`: O_RDWR, O_RDONLY or O_WRONLY.
Fd map_by_id(uint32_t map_id, uint32_t access) {
  bpf_attr attributes = no_attributes();
  attributes.map_id = map_id;
  attributes.open_flags = access == O_RDONLY ? uint32_t{BPF_F_RDONLY} : access == O_WRONLY ? uint32_t{BPF_F_WRONLY} : 0;
  return Fd(static_cast<int>(bpf(BPF_MAP_GET_FD_BY_ID, attributes)));
}

std::string what(const BpfMap::State& state) {
  return fmt::format("BPF map {} ({})", state.map_id, state.info.map_name);
}

Error bpf_failed(const FileView& view, std::string what_failed) {
  Error e = view.failed(std::move(what_failed));
  if (errno == EPERM) return std::move(e).remedy("give this program CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON");
  return e;
}

Error refused(const FileView& view, std::string why, std::string remedy) {
  return Error(Reason::UNSUPPORTED_FILE, std::move(why)).object(view.who()).remedy(std::move(remedy));
}

Error restore_failed(const BpfMap::State& state, std::string what_failed) {
  Error e = Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(what(state)).error_number(errno);
  if (errno == EPERM) return std::move(e).remedy("give this program CAP_SYS_ADMIN, or CAP_BPF");
  return e;
}

// Of all programs that are loaded on this machine.
std::set<uint32_t> maps_of_programs(const FileView& view) {
  std::set<uint32_t> out;
  for (uint32_t id = 0;;) {
    bpf_attr next = no_attributes();
    next.start_id = id;
    if (bpf(BPF_PROG_GET_NEXT_ID, next) != 0) {
      if (errno == ENOENT) return out;
      throw bpf_failed(view, "cannot list the loaded BPF programs");
    }
    id = next.next_id;
    bpf_attr by_id = no_attributes();
    by_id.prog_id = id;
    const Fd program(static_cast<int>(bpf(BPF_PROG_GET_FD_BY_ID, by_id)));
    if (!program) continue;  // unloaded meanwhile
    bpf_prog_info count{};
    if (!get_bpf_info(program.get(), count)) throw bpf_failed(view, "cannot look at a loaded BPF program");
    std::vector<uint32_t> ids(count.nr_map_ids);
    bpf_prog_info info{};
    info.nr_map_ids = count.nr_map_ids;
    info.map_ids = address_of(ids.data());
    if (!get_bpf_info(program.get(), info)) throw bpf_failed(view, "cannot look at a loaded BPF program");
    out.insert(ids.begin(), ids.end());
  }
}

void refuse_what_cannot_be_made_again(const FileView& view, const bpf_map_info& info, BpfMap::Shared& shared) {
  if (info.type != BPF_MAP_TYPE_ARRAY && info.type != BPF_MAP_TYPE_HASH)
    throw refused(view,
                  fmt::format("it is a BPF map of type {}, which is neither an array nor a hash table", info.type),
                  "let the program close it before the dump");
  if (info.btf_key_type_id != 0 || info.btf_value_type_id != 0)
    throw refused(view, "the keys or values of the BPF map have types (BTF)", "make the map without BTF");
  if (info.ifindex != 0 || (info.map_flags & (BPF_F_NUMA_NODE | BPF_F_INNER_MAP)) != 0)
    throw refused(view, "the BPF map belongs to a network device, a NUMA node or another map",
                  "let the program close it before the dump");
  if (!shared.in_programs) shared.in_programs = maps_of_programs(view);
  if (shared.in_programs->contains(info.id))
    throw refused(view, "a BPF program that is loaded uses the map, and would not see the restored one",
                  "unload the program before the dump");
}

// Any description of the map may be for writing alone; and nothing changes a map that only stopped tasks can reach.
BpfMap::Content read_content(const FileView& view, const bpf_map_info& info) {
  const Fd map = map_by_id(info.id, O_RDONLY);
  if (!map) throw bpf_failed(view, "cannot open a BPF map to read it");
  BpfMap::Content out;
  uint32_t room = std::min(std::max(info.max_entries, 1u), kFirstBatch);
  std::string keys, values;
  std::vector<std::byte> position(std::max<size_t>(info.key_size, sizeof(uint64_t)));
  for (bool first = true;;) {
    keys.resize(size_t{room} * info.key_size);
    values.resize(size_t{room} * info.value_size);
    std::vector<std::byte> next(position.size());
    bpf_attr attributes = no_attributes();
    attributes.batch.in_batch = first ? 0 : address_of(position.data());
    attributes.batch.out_batch = address_of(next.data());
    attributes.batch.keys = address_of(keys.data());
    attributes.batch.values = address_of(values.data());
    attributes.batch.count = room;
    attributes.batch.map_fd = static_cast<uint32_t>(map.get());
    const long result = bpf(BPF_MAP_LOOKUP_BATCH, attributes);
    if (result != 0 && errno == ENOSPC) {  // more in one bucket than there is room for
      room *= 2;
      continue;
    }
    if (result != 0 && errno != ENOENT) throw bpf_failed(view, "cannot read a BPF map");
    const uint32_t count = attributes.batch.count;
    out.keys.append(keys, 0, size_t{count} * info.key_size);
    out.values.append(values, 0, size_t{count} * info.value_size);
    out.count += count;
    if (out.keys.size() > kMostBytes || out.values.size() > kMostBytes)
      throw refused(view, "the BPF map holds more than the images can tell",
                    "let the program close it before the dump");
    if (result != 0) return out;  // that was the last part
    position = std::move(next);
    first = false;
  }
}

void fill(int map, const BpfMap::State& state, const BpfMap::Content& content) {
  if (content.count == 0) return;
  bpf_attr attributes = no_attributes();
  attributes.batch.keys = address_of(content.keys.data());
  attributes.batch.values = address_of(content.values.data());
  attributes.batch.count = content.count;
  attributes.batch.map_fd = static_cast<uint32_t>(map);
  if (bpf(BPF_MAP_UPDATE_BATCH, attributes) != 0) throw restore_failed(state, "cannot fill a BPF map");
}

Fd make(const BpfMap::State& state, const BpfMap::Content& content) {
  const BpfMap::Info& info = state.info;
  bpf_attr attributes = no_attributes();
  attributes.map_type = info.map_type;
  attributes.key_size = info.key_size;
  attributes.value_size = info.value_size;
  attributes.max_entries = info.max_entries;
  attributes.map_flags = info.map_flags;
  attributes.map_extra = info.map_extra;
  info.map_name.copy(attributes.map_name, sizeof attributes.map_name - 1);
  Fd map(static_cast<int>(bpf(BPF_MAP_CREATE, attributes)));
  if (!map) throw restore_failed(state, "cannot make a BPF map");
  fill(map.get(), state, content);
  if (!info.frozen) return map;
  bpf_attr freeze = no_attributes();
  freeze.map_fd = static_cast<uint32_t>(map.get());
  if (bpf(BPF_MAP_FREEZE, freeze) != 0) throw restore_failed(state, "cannot freeze a BPF map");
  return map;
}

}  // namespace

bool BpfMap::match(const FileView& view) {
  return view.link == "anon_inode:bpf-map";
}

void BpfMap::dump(const FileView& view, DumpFiles& files, Shared& shared, State& state) {
  dump_open_file(view, files, state);
  bpf_map_info info{};
  if (!get_bpf_info(view.fd, info)) throw bpf_failed(view, "cannot look at a BPF map");
  refuse_what_cannot_be_made_again(view, info, shared);
  const std::string text = own_fdinfo(view.fd);
  state.map_id = info.id;
  state.info = {.map_type = info.type,
                .key_size = info.key_size,
                .value_size = info.value_size,
                .max_entries = info.max_entries,
                .map_flags = info.map_flags,
                .map_extra = info.map_extra,
                .memlock = fdinfo_number(text, "memlock").value_or(0),
                .frozen = fdinfo_number(text, "frozen").value_or(0) != 0,
                .map_name = std::string(info.name, strnlen(info.name, sizeof info.name))};
  if (!shared.contents.contains(info.id)) shared.contents.emplace(info.id, read_content(view, info));
}

void BpfMap::encode(const State& state, pb::file_entry& out) {
  pb::bpfmap_file_entry& bpf = *out.mutable_bpf();
  encode_open_file(state, type, out, bpf);
  bpf.set_pos(0);
  bpf.set_map_type(state.info.map_type);
  bpf.set_key_size(state.info.key_size);
  bpf.set_value_size(state.info.value_size);
  bpf.set_map_id(state.map_id);
  bpf.set_max_entries(state.info.max_entries);
  bpf.set_map_flags(state.info.map_flags);
  bpf.set_memlock(state.info.memlock);
  bpf.set_frozen(state.info.frozen);
  bpf.set_map_name(state.info.map_name);
  bpf.set_ifindex(0);
  if (state.info.map_extra != 0) bpf.set_map_extra(state.info.map_extra);
}

void BpfMap::write_images(Shared& shared, ImageStore& store) {
  if (shared.contents.empty()) return;
  ImageWriter& writer = store.writer(ImageKind::BPFMAP_DATA);
  for (const auto& [map_id, content] : shared.contents) {
    pb::bpfmap_data_entry record;
    record.set_map_id(map_id);
    record.set_keys_bytes(static_cast<uint32_t>(content.keys.size()));
    record.set_values_bytes(static_cast<uint32_t>(content.values.size()));
    record.set_count(content.count);
    writer.write(record);
    writer.write_raw(content.keys);
    writer.write_raw(content.values);
  }
}

void BpfMap::decode(const pb::file_entry& in, State& state) {
  const pb::bpfmap_file_entry& bpf = in.bpf();
  decode_open_file(bpf, state);
  state.map_id = bpf.map_id();
  state.info = {.map_type = bpf.map_type(),
                .key_size = bpf.key_size(),
                .value_size = bpf.value_size(),
                .max_entries = bpf.max_entries(),
                .map_flags = bpf.map_flags(),
                .map_extra = bpf.map_extra(),
                .memlock = bpf.memlock(),
                .frozen = bpf.frozen(),
                .map_name = bpf.map_name()};
  if (bpf.ifindex() != 0) throw Error(Reason::IMAGE_UNSUPPORTED, "a BPF map of a network device").object(what(state));
  if (state.info.map_type != BPF_MAP_TYPE_ARRAY && state.info.map_type != BPF_MAP_TYPE_HASH)
    throw Error(Reason::IMAGE_UNSUPPORTED, fmt::format("a BPF map of type {}", state.info.map_type))
        .object(what(state));
}

void BpfMap::read_images(const ImageStore& store, Shared& shared) {
  std::optional<ImageReader> reader = store.reader(ImageKind::BPFMAP_DATA);
  if (!reader) return;
  pb::bpfmap_data_entry record;
  while (reader->next(record)) {
    Content& content = shared.contents[record.map_id()];
    content.count = record.count();
    content.keys = reader->raw(record.keys_bytes());
    content.values = reader->raw(record.values_bytes());
  }
}

void BpfMap::plan(const State& state, RestoreFiles&, Shared& shared) {
  const auto content = shared.contents.find(state.map_id);
  if (content == shared.contents.end()) return;  // an empty one, to the best of our knowledge
  if (content->second.keys.size() != uint64_t{content->second.count} * state.info.key_size ||
      content->second.values.size() != uint64_t{content->second.count} * state.info.value_size)
    throw Error(Reason::IMAGE_CORRUPT, "the content of a BPF map does not fit its keys and values").object(what(state));
}

Fd BpfMap::create(const State& state, RestoreFiles&, Shared& shared) {
  Fd& made = shared.made[state.map_id];
  if (!made) made = make(state, shared.contents[state.map_id]);
  bpf_map_info info{};
  if (!get_bpf_info(made.get(), info)) throw restore_failed(state, "cannot look at a new BPF map");
  Fd fd = map_by_id(info.id, state.flags & O_ACCMODE);
  if (!fd) throw restore_failed(state, "cannot open a new BPF map");
  return fd;
}

void BpfMap::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what(state));
}

}  // namespace stasis

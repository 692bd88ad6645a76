#include "objects/files/regular.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "objects/files/build_id.h"

namespace stasis {
namespace {

// Memory devices without state of their own (Linux devices.txt, char 1): null, zero, full, random, urandom.
bool is_plain_device(const struct stat& st) {
  constexpr std::array<unsigned, 5> minors = {3, 5, 7, 8, 9};
  return S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 && std::ranges::find(minors, minor(st.st_rdev)) != minors.end();
}

// Objects of the kernel that show a path although no name leads to them (mm/shmem.c, ipc/shm.c, fs/aio.c).
bool is_nameless_object(const struct stat& st, std::string_view link) {
  if (link == "/secretmem (deleted)") return true;  // counts a name that it has not
  if (st.st_nlink != 0 || !link.ends_with(deleted_mark)) return false;
  constexpr std::array<std::string_view, 5> prefixes = {"/memfd:", "/SYSV", "/[aio]", "/dev/zero (",
                                                        "/anon_hugepage ("};
  return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return link.starts_with(prefix); });
}

// Reading must not leave a mark: no new access time where that is permitted (open(2), O_NOATIME). O_NONBLOCK: never
// wait for the holder of a lease (fcntl(2)).
constexpr int quiet_read = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;

std::vector<uint32_t> build_id_of(const char* path) {
  Fd fd(::open(path, quiet_read | O_NOATIME));
  if (!fd && errno == EPERM) fd = Fd(::open(path, quiet_read));
  return fd ? read_build_id(fd.get()) : std::vector<uint32_t>();
}

// Looking into each of thousands of data files would cost time in the freeze and find nothing, and whoever watches them
// would see it.
bool may_be_program(const struct stat& st, std::string_view path) {
  return S_ISREG(st.st_mode) && st.st_size > 0 &&
         ((st.st_mode & 0111) != 0 || path.ends_with(".so") || path.find(".so.") != std::string_view::npos);
}

bool may_grow(uint32_t flags) {
  return (flags & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND);
}

void take_identity(int fd, const struct stat& st, bool program, RegularFile::State& state) {
  state.mode = st.st_mode;
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) state.device = st.st_rdev;
  if (may_grow(state.flags)) return;
  state.size_bytes = static_cast<uint64_t>(st.st_size);
  if (program) state.build_id = build_id_of(fmt::format("/proc/self/fd/{}", fd).c_str());
}

// "/proc/42/...": exists when the task does.
bool belongs_to_process(std::string_view path) {
  constexpr std::string_view proc = "/proc/";
  return path.starts_with(proc) && path.size() > proc.size() && path[proc.size()] >= '0' && path[proc.size()] <= '9';
}

Error changed(const RegularFile::State& state, std::string what) {
  return Error(Reason::FILE_CHANGED, std::move(what)).object(state.path);
}

void verify_mode(const RegularFile::State& state, const struct stat& now, bool compare_permissions) {
  if (!state.mode) return;
  if ((*state.mode & S_IFMT) != (now.st_mode & S_IFMT))
    throw changed(state, "the path leads to a file of another type than at the dump")
        .remedy("put the file of the dump back");
  if (!compare_permissions || (*state.mode & permission_bits) == (now.st_mode & permission_bits)) return;
  throw changed(state, fmt::format("the permissions of the file are {:04o}, at the dump they were {:04o}",
                                   now.st_mode & permission_bits, *state.mode & permission_bits))
      .remedy("set them back, or accept the change with --skip-file-rwx-check");
}

void verify_device(const RegularFile::State& state, const struct stat& now) {
  if (!state.device || *state.device == now.st_rdev) return;
  throw changed(state, fmt::format("the path leads to the device {}:{}, at the dump it was {}:{}", major(now.st_rdev),
                                   minor(now.st_rdev), major(*state.device), minor(*state.device)))
      .remedy("make the device node again with the number it had");
}

void verify_contents(const RegularFile::State& state, const struct stat& now, const RestoreOptions& options) {
  if (!S_ISREG(now.st_mode)) return;
  const FileValidation how = options.file_validation;
  constexpr const char* remedy = "put the file of the dump back: saved tasks rely on its contents";
  const auto size_bytes = static_cast<uint64_t>(now.st_size);
  const bool grown = state.size_bytes && size_bytes > *state.size_bytes;
  if (state.size_bytes && size_bytes != *state.size_bytes && !(grown && options.allow_grown))
    throw changed(state, fmt::format("the file has {} bytes, at the dump it had {}", size_bytes, *state.size_bytes))
        .remedy(grown ? fmt::format("{}; or accept files that have grown with --allow-grown", remedy) : remedy);
  if (how != FileValidation::build_id || state.build_id.empty()) return;
  if (build_id_of(state.path.c_str()) != state.build_id)
    throw changed(state, "the file has another ELF build id than at the dump")
        .remedy(fmt::format("{}; --file-validation filesize compares sizes alone", remedy));
}

std::string inherit_key(const RegularFile::State& state) {
  return state.external || state.path.empty() ? state.path : state.path.substr(1);
}

std::string what_of(const RegularFile::State& state) {
  return fmt::format("file {} ({})", state.id, state.path);
}

// The name of a file that the user declared external; empty: it is none. Mounts are asked for only if there is any.
std::string external_key(const FileView& view, const DumpFiles& files) {
  constexpr std::string_view begin = "file[";
  if (std::ranges::none_of(files.options().external, [&](const std::string& key) { return key.starts_with(begin); }))
    return {};
  const auto mount = fdinfo_number(own_fdinfo(view.fd), "mnt_id");
  std::string key = fmt::format("{}{:x}:{:x}]", begin, mount.value_or(0), view.st.st_ino);
  return files.is_external(key) ? key : std::string();
}

}  // namespace

bool is_message_queue(const FileView& view) {
  // Few files have exactly this size: the others are not asked (ipc/mqueue.c, FILENT_SIZE).
  constexpr off_t queue_bytes = 80;
  constexpr long mqueue_magic = 0x19800202;
  struct statfs fs;
  return S_ISREG(view.st.st_mode) && view.st.st_size == queue_bytes && ::fstatfs(view.fd, &fs) == 0 &&
         fs.f_type == mqueue_magic;
}

bool RegularFile::match(const FileView& view) {
  if (is_message_queue(view)) return false;
  if (!view.link.starts_with('/') || is_nameless_object(view.st, view.link)) return false;
  return view.path_only() || S_ISREG(view.st.st_mode) || S_ISDIR(view.st.st_mode) || is_plain_device(view.st);
}

void RegularFile::dump(const FileView& view, DumpFiles& files, Shared&, State& state) {
  state.path = external_key(view, files);
  state.external = !state.path.empty();
  if (!state.external) {
    state.path = leads_to_file(view.link, view.fd, view.st)
                     ? view.link
                     : files.remaps.path_of({view.id, view.fd, view.st, view.link, view.who()});
  }
  dump_open_file(view, files, state);
  // Fails for files without a position; the kernel then ignores one, too.
  const off_t pos = view.path_only() ? 0 : ::lseek(view.fd, 0, SEEK_CUR);
  state.pos = pos < 0 ? 0 : static_cast<uint64_t>(pos);
  take_identity(view.fd, view.st, !view.leased && may_be_program(view.st, view.link), state);
}

RegularFile::State describe_path_file(const PathFile& file, uint32_t id, DumpFiles& files) {
  RegularFile::State state;
  const bool named = !file.must_exist || leads_to_file(file.link, file.fd, file.st);
  // To change to it takes a process with that pid, and by then the tree may have one.
  if (!named && belongs_to_process(file.link))
    throw Error(Reason::UNSUPPORTED_FILE, "the process is dead that this directory in /proc belonged to")
        .object(file.who)
        .remedy("let the task change to another directory before the dump");
  state.id = id;
  state.flags = file.flags;
  state.path = named ? file.link : files.remaps.path_of({id, file.fd, file.st, file.link, file.who});
  state.owner = file.owner;
  take_identity(file.fd, file.st, may_be_program(file.st, file.link), state);
  return state;
}

void RegularFile::encode(const State& state, pb::file_entry& out) {
  pb::reg_file_entry& reg = *out.mutable_reg();
  encode_open_file(state, pb::REG, out, reg);
  reg.set_pos(state.pos);
  reg.set_name(state.path);
  if (state.mount_id >= 0) reg.set_mnt_id(state.mount_id);
  if (state.size_bytes) reg.set_size(*state.size_bytes);
  if (state.external) reg.set_ext(true);
  if (state.mode) reg.set_mode(*state.mode);
  for (const uint32_t word : state.build_id) reg.add_build_id(word);
}

void RegularFile::encode_extension(const State& state, pb::extension_file& out) {
  if (state.device) out.set_device(*state.device);
}

void RegularFile::decode_extension(const pb::extension_file& in, State& state) {
  if (in.has_device()) state.device = in.device();
}

void RegularFile::decode(const pb::file_entry& in, State& state) {
  const pb::reg_file_entry& reg = in.reg();
  decode_open_file(reg, state);
  state.pos = reg.pos();
  state.path = reg.name();
  state.mount_id = reg.mnt_id();
  if (reg.has_size()) state.size_bytes = reg.size();
  if (reg.has_mode()) state.mode = reg.mode();
  state.external = reg.ext();
  state.build_id.assign(reg.build_id().begin(), reg.build_id().end());
  // Names of files that the caller gives need not be paths. A NUL would cut the name that the kernel sees.
  if (state.path.find('\0') != std::string::npos || (!state.external && !state.path.starts_with('/')))
    throw Error(Reason::IMAGE_CORRUPT, "the name of a file is not an absolute path").object(what_of(state));
}

void verify_path_file(const RegularFile::State& state, const RestoreFiles& files) {
  if (files.remaps.contains(state.id) || belongs_to_process(state.path)) return;
  const RestoreOptions& options = files.options();
  struct stat now;
  if (::fstatat(AT_FDCWD, state.path.c_str(), &now, AT_SYMLINK_NOFOLLOW) < 0)
    throw Error(Reason::FILE_MISSING, "a file that the saved tasks use is not there")
        .object(state.path)
        .error_number(errno)
        .remedy("put the file back where it was at the dump");
  verify_mode(state, now, !options.skip_file_rwx_check);
  verify_device(state, now);
  verify_contents(state, now, options);
}

const RegularFile::State& path_file_state(const RestoreFiles& files, uint32_t id) {
  const auto* state = std::any_cast<RegularFile::State>(files.state_of(id));
  if (state != nullptr) return *state;
  throw Error(Reason::IMAGE_CORRUPT, "the images use a file by its path, but it has none, or is not there")
      .object(fmt::format("file {}", id));
}

Fd try_open_path_file(const RegularFile::State& state, const RestoreFiles& files, int flags) {
  return files.remaps.contains(state.id) ? files.remaps.open(state.id, flags)
                                         : Fd(::open(state.path.c_str(), flags | O_CLOEXEC));
}

Fd open_path_file(const RegularFile::State& state, const RestoreFiles& files, int flags) {
  Fd fd = try_open_path_file(state, files, flags);
  if (!fd)
    throw Error(Reason::FILE_MISSING, fmt::format("cannot open a file as the saved tasks had it (flags {:#o})", flags))
        .object(state.path)
        .error_number(errno)
        .remedy("put the file back where it was at the dump, with the permissions it had");
  return fd;
}

void RegularFile::plan(const State& state, RestoreFiles& files, Shared&) {
  if (files.inherited(inherit_key(state)) >= 0) return;
  if (state.external)
    throw Error(Reason::FILE_MISSING, "a file was left outside of the dump, and nothing is given in its place")
        .object(state.path)
        .remedy(fmt::format("give an open descriptor with --inherit-fd 'fd[N]:{}'", state.path));
  verify_path_file(state, files);
}

Fd RegularFile::create(const State& state, RestoreFiles& files, Shared&) {
  if (const int given = files.inherited(inherit_key(state)); given >= 0)
    return Fd(check(::fcntl(given, F_DUPFD_CLOEXEC, 3), "cannot duplicate an inherited descriptor"));
  const int flags = reopen_flags(state.flags);
  Fd fd = files.remaps.take(state.id);
  if (!fd) fd = open_path_file(state, files, flags);
  if (state.pos != 0 && ::lseek(fd.get(), static_cast<off_t>(state.pos), SEEK_SET) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot set the position of a file to {}", state.pos))
        .object(state.path)
        .error_number(errno);
  return fd;
}

void RegularFile::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what_of(state));
}

}  // namespace stasis

// BPF maps: an array and hash tables with what is in them, one that is frozen, descriptions that may only read or
// write, and one map in two processes.
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kEntries = 3000, kInArray = 7 };
struct value {
  uint64_t number;
  char text[20];
};
static int array, table, frozen, reader, writer;

static long bpf(int command, union bpf_attr* attr) {
  return syscall(SYS_bpf, command, attr, sizeof *attr);
}

static int create(uint32_t type, uint32_t value_bytes, uint32_t entries, uint32_t flags, const char* name) {
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_type = type;
  attr.key_size = sizeof(uint32_t);
  attr.value_size = value_bytes;
  attr.max_entries = entries;
  attr.map_flags = flags;
  snprintf(attr.map_name, sizeof attr.map_name, "%s", name);
  const int fd = (int)bpf(BPF_MAP_CREATE, &attr);
  if (fd < 0 && (errno == EPERM || errno == ENOSYS)) subject_skip("BPF maps for this user");
  if (fd < 0) die("cannot make a map");
  return fd;
}

static bool update(int fd, uint32_t key, const void* value) {
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_fd = (uint32_t)fd;
  attr.key = (uintptr_t)&key;
  attr.value = (uintptr_t)value;
  return bpf(BPF_MAP_UPDATE_ELEM, &attr) == 0;
}

static bool look_up(int fd, uint32_t key, void* value) {
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_fd = (uint32_t)fd;
  attr.key = (uintptr_t)&key;
  attr.value = (uintptr_t)value;
  return bpf(BPF_MAP_LOOKUP_ELEM, &attr) == 0;
}

static struct bpf_map_info info_of(int fd) {
  struct bpf_map_info info;
  memset(&info, 0, sizeof info);
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.info.bpf_fd = (uint32_t)fd;
  attr.info.info_len = sizeof info;
  attr.info.info = (uintptr_t)&info;
  CHECK(bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0, "fd %d is no map", fd);
  return info;
}

static int open_again(uint32_t id, uint32_t flags) {
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_id = id;
  attr.open_flags = flags;
  return (int)bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

static struct value value_of(uint32_t key) {
  struct value value;
  memset(&value, 0, sizeof value);
  value.number = key * 0x9e3779b97f4a7c15u;
  snprintf(value.text, sizeof value.text, "entry %u", key);
  return value;
}

static void check(void) {
  struct value value, wanted;
  for (uint32_t i = 0; i < kEntries; i += 2) {
    wanted = value_of(i);
    CHECK(look_up(table, i, &value) && memcmp(&value, &wanted, sizeof value) == 0, "entry %u of the table", i);
    CHECK(!look_up(table, i + 1, &value), "entry %u is new", i + 1);
  }
  uint32_t number;
  for (uint32_t i = 0; i < kInArray; i++)
    CHECK(look_up(array, i, &number) && number == i * 11, "entry %u of the array is %u", i, number);
  CHECK(look_up(frozen, 1, &number) && number == 4711, "the frozen map holds %u", number);
  CHECK(!update(frozen, 1, &number) && errno == EPERM, "the frozen map can be changed");
  const struct bpf_map_info info = info_of(table);
  CHECK(info.type == BPF_MAP_TYPE_HASH && info.key_size == 4 && info.value_size == sizeof value &&
            info.max_entries == kEntries && info.map_flags == BPF_F_NO_PREALLOC && strcmp(info.name, "a_table") == 0,
        "the table is another one (%s)", info.name);
  CHECK(info_of(reader).id == info.id && info_of(writer).id == info.id, "descriptions lead to different maps");
  wanted = value_of(2);
  CHECK(!update(reader, 2, &wanted) && errno == EPERM, "the reading description writes");
  CHECK(!look_up(writer, 2, &value) && errno == EPERM, "the writing description reads");
  // What one writes the other reads, and it is as before.
  struct value other = value_of(99);
  CHECK(update(writer, 2, &other) && look_up(reader, 2, &value) && memcmp(&value, &other, sizeof value) == 0,
        "a new value is not seen");
  CHECK(update(writer, 2, &wanted), "the old value cannot be put back");
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  array = create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), kInArray, 0, "an_array");
  table = create(BPF_MAP_TYPE_HASH, sizeof(struct value), kEntries, BPF_F_NO_PREALLOC, "a_table");
  frozen = create(BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), 2, 0, "");
  for (uint32_t i = 0; i < kInArray; i++) REQUIRE(update(array, i, &(uint32_t){i * 11}));
  for (uint32_t i = 0; i < kEntries; i += 2) {
    const struct value value = value_of(i);
    REQUIRE(update(table, i, &value));
  }
  REQUIRE(update(frozen, 1, &(uint32_t){4711}));
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_fd = (uint32_t)frozen;
  REQUIRE(bpf(BPF_MAP_FREEZE, &attr) == 0);
  reader = open_again(info_of(table).id, BPF_F_RDONLY);
  writer = open_again(info_of(table).id, BPF_F_WRONLY);
  REQUIRE(reader >= 0 && writer >= 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(table);
    table = dup(reader);
    while (subject_next()) {
      struct value value, wanted = value_of(4);
      CHECK(look_up(table, 4, &value) && memcmp(&value, &wanted, sizeof value) == 0, "the child sees another map");
      CHECK(info_of(table).max_entries == kEntries, "the child has another map");
      subject_part("child");
    }
    _exit(subject_status());
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    check();
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}

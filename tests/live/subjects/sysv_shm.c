// System V shared memory of the host: several segments, attached in all the ways there are, by two processes.
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kSize = 3 * kPageBytes + 123, kPages = 4, kMode = 0640 };

struct segment {
  int id;
  key_t key;
  int attached;  // how many mappings of it the two processes have
};
static struct segment keyed, doomed, single;
static char* whole;     // keyed, writable
static char* readonly;  // keyed, attached a second time
static char* pieces;    // doomed: page 0 unmapped, page 1 unreadable, pages 2 and 3 writable
static char* moved;     // doomed: page 2 of another attachment
static char* longer;    // doomed: from page 3 on, and beyond the end

static struct shmid_ds status_of(int id) {
  struct shmid_ds now = {0};
  CHECK(shmctl(id, IPC_STAT, &now) == 0, "segment %d cannot be looked at", id);
  return now;
}

static void check_segment(const struct segment* s, size_t size, unsigned mode) {
  struct shmid_ds now = status_of(s->id);
  CHECK(now.shm_segsz == size, "segment %d has %zu bytes", s->id, now.shm_segsz);
  CHECK(now.shm_perm.__key == s->key, "segment %d has the key %#x", s->id, (unsigned)now.shm_perm.__key);
  CHECK(now.shm_perm.mode == mode, "segment %d has the mode %#o", s->id, now.shm_perm.mode);
  CHECK(now.shm_perm.uid == 4711 && now.shm_perm.gid == 4712, "segment %d is of %u:%u", s->id, now.shm_perm.uid,
        now.shm_perm.gid);
  CHECK(now.shm_perm.cuid == geteuid() && now.shm_perm.cgid == getegid(), "segment %d was made by %u:%u", s->id,
        now.shm_perm.cuid, now.shm_perm.cgid);
  CHECK((int)now.shm_nattch == s->attached, "segment %d is attached %d times, not %d", s->id, (int)now.shm_nattch,
        s->attached);
}

static char* attach(int id, int flags) {
  char* at = shmat(id, NULL, flags);
  REQUIRE(at != (void*)-1);
  return at;
}

static struct segment make(key_t key, size_t size, int flags) {
  struct segment s = {.id = shmget(key, size, IPC_CREAT | IPC_EXCL | kMode | flags), .key = key};
  if (s.id < 0 && errno == ENOSYS) subject_skip("System V shared memory");
  REQUIRE(s.id >= 0);
  struct shmid_ds owner = {.shm_perm = {.uid = 4711, .gid = 4712, .mode = kMode}};
  REQUIRE(shmctl(s.id, IPC_SET, &owner) == 0);
  return s;
}

static void set_up(void) {
  keyed = make(0x5a000000 + getpid(), kSize, 0);
  whole = attach(keyed.id, 0);
  for (int i = 0; i < 3; i++) fill_page(whole + i * kPageBytes, 100 + i);
  memset(whole + 3 * kPageBytes, 'x', 123);
  readonly = attach(keyed.id, SHM_RDONLY);

  doomed = make(IPC_PRIVATE, kPages * kPageBytes, 0);
  pieces = attach(doomed.id, 0);
  for (int i = 0; i < kPages; i++)
    if (i != 1) fill_page(pieces + i * kPageBytes, 200 + i);
  REQUIRE(munmap(pieces, kPageBytes) == 0);
  // The hole is used by something else.
  REQUIRE(mmap(pieces, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
          pieces);
  fill_page(pieces, 300);
  REQUIRE(mprotect(pieces + kPageBytes, kPageBytes, PROT_NONE) == 0);
  char* other = attach(doomed.id, 0);
  moved = mmap(NULL, 4 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(mremap(other + 2 * kPageBytes, kPageBytes, kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, moved + kPageBytes) ==
          moved + kPageBytes);
  REQUIRE(munmap(other, 2 * kPageBytes) == 0);
  char* room = mmap(NULL, 4 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  longer = mremap(other + 3 * kPageBytes, kPageBytes, 2 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, room);
  REQUIRE(longer == room);
  REQUIRE(shmctl(doomed.id, IPC_RMID, NULL) == 0);

  single = make(IPC_PRIVATE, 7, 0);
  char* byte = attach(single.id, SHM_EXEC);
  memcpy(byte, "single", 7);
  REQUIRE(shmctl(single.id, SHM_LOCK, NULL) == 0);
}

// What both processes see.
static void check_memory(void) {
  for (int i = 0; i < 3; i++) {
    CHECK(page_holds(whole + i * kPageBytes, 100 + i), "page %d of the segment with a key is another one", i);
    CHECK(page_holds(readonly + i * kPageBytes, 100 + i), "page %d of the second attachment is another one", i);
  }
  CHECK(readonly[3 * kPageBytes + 122] == 'x' && readonly[3 * kPageBytes + 123] == 0, "the last page is another one");
  errno = 0;
  CHECK(mprotect(readonly, kPageBytes, PROT_READ | PROT_WRITE) != 0 && errno == EACCES,
        "what was attached for reading can be made writable");
  CHECK(page_holds(pieces, 300), "the hole of an attachment holds something else");
  CHECK(page_holds(pieces + 2 * kPageBytes, 202) && page_holds(pieces + 3 * kPageBytes, 203), "pages are other ones");
  CHECK(page_holds(moved + kPageBytes, 202), "the page that was moved is another one");
  CHECK(page_holds(longer, 203), "the page that was moved to grow is another one");
  CHECK(mprotect(pieces + kPageBytes, kPageBytes, PROT_READ) == 0 && page_is_zero(pieces + kPageBytes) &&
            mprotect(pieces + kPageBytes, kPageBytes, PROT_NONE) == 0,
        "the page without access holds something");
}

// Each sees what the other writes.
static void write_tag(int part, uint32_t value) {
  memcpy(whole + 3 * kPageBytes + 8 * part, &value, sizeof value);
}
static uint32_t read_tag(int part) {
  uint32_t value;
  memcpy(&value, readonly + 3 * kPageBytes + 8 * part, sizeof value);
  return value;
}

static void child(void) {
  while (subject_next()) {
    check_memory();
    write_tag(1, (uint32_t)subject_generation);
    CHECK(WAIT_UNTIL(read_tag(0) == (uint32_t)subject_generation), "the child does not see what its parent writes");
    if (subject_last) {
      CHECK(shmdt(whole) == 0 && shmdt(readonly) == 0, "a segment cannot be detached");
      // All that is left of this attachment.
      CHECK(shmdt(pieces) == 0, "the pieces cannot be detached");
      errno = 0;
      CHECK(msync(pieces + 2 * kPageBytes, 2 * kPageBytes, MS_ASYNC) != 0 && errno == ENOMEM,
            "detaching leaves some of the pieces");
      CHECK(status_of(doomed.id).shm_nattch == 6, "segment %d is attached by others", doomed.id);
    }
    subject_part("child");
  }
  _exit(subject_status());
}

static void finish(void) {
  CHECK(shmdt(whole) == 0 && shmdt(readonly) == 0, "a segment cannot be detached");
  CHECK(shmctl(keyed.id, IPC_RMID, NULL) == 0 && shmctl(single.id, IPC_RMID, NULL) == 0, "segments cannot be removed");
  int again = shmget(keyed.key, 1, IPC_CREAT | IPC_EXCL | 0600);
  CHECK(again >= 0 && shmctl(again, IPC_RMID, NULL) == 0, "the key cannot be used again");
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  set_up();
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) child();
  keyed.attached = 4;
  doomed.attached = 8;  // two pieces, one that was moved, one that was moved to grow, in two processes
  single.attached = 2;
  char text[64];
  snprintf(text, sizeof text, "%d %d %d", keyed.id, doomed.id, single.id);
  subject_write_file("segments", text);
  for (subject_ready(); subject_next(); subject_verdict()) {
    if (!subject_last) {
      check_segment(&keyed, kSize, kMode);
      check_segment(&doomed, kPages * kPageBytes, kMode | SHM_DEST);
      check_segment(&single, 7, kMode | SHM_LOCKED);
    }
    check_memory();
    write_tag(0, (uint32_t)subject_generation);
    CHECK(WAIT_UNTIL(read_tag(1) == (uint32_t)subject_generation), "the parent does not see what its child writes");
    subject_collect("child");
    subject_join(pid);
    if (subject_last) finish();
  }
  return subject_status();
}

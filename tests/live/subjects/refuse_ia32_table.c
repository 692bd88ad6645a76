// A 32-bit program with a descriptor table of its own (modify_ldt).
#include <asm/ldt.h>
#include <sys/syscall.h>

#include "subject.h"

#if !defined(__i386__)
int main(void) {
  subject_skip("a compiler and libraries for 32-bit programs");
}
#else

int main(int argc, char** argv) {
  subject_start(argc, argv);
  static int value = 99;
  struct user_desc d = {
      .entry_number = 3, .base_addr = (unsigned)(uintptr_t)&value, .limit = 3, .seg_32bit = 1, .useable = 1};
  if (syscall(SYS_modify_ldt, 1, &d, sizeof d) != 0) subject_skip("modify_ldt");
  for (subject_ready(); subject_next(); subject_verdict()) {
    int seen = 0;
    __asm__ volatile("movl %%fs, %%ecx; movl %1, %%fs; movl %%fs:0, %0; movl %%ecx, %%fs"
                     : "=&r"(seen)
                     : "r"(3 << 3 | 7)
                     : "ecx");
    CHECK(seen == value, "its segment holds %d", seen);
  }
  return subject_status();
}
#endif

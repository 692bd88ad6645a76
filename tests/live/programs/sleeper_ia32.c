// A 32-bit program, without any library: it writes a dot into the descriptor 1 and sleeps, for ever.
struct span {
  int seconds, nanoseconds;
};

static int call(int number, int first, const void* second, int third) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
  return result;
}

__attribute__((noreturn)) void _start(void) {
  enum { kWrite = 4, kNanosleep = 162 };
  const struct span wait = {0, 20000000};
  for (;;) {
    call(kWrite, 1, ".", 1);
    call(kNanosleep, (int)&wait, 0, 0);
  }
}

// Checkpointed while it executes a handler on its alternate signal stack; leaving the handler must work.
#include <signal.h>

#include "subject.h"

static char alternate[128 * 1024];
static volatile bool left;

static bool on_alternate(const void* address) {
  return (const char*)address >= alternate && (const char*)address < alternate + sizeof alternate;
}

static void on_signal(int number) {
  volatile int local = number;
  for (subject_ready(); subject_next(); subject_verdict()) {
    stack_t now;
    CHECK(on_alternate((const void*)&local) && local == SIGUSR1, "not on the alternate stack");
    CHECK(sigaltstack(NULL, &now) == 0 && now.ss_flags == SS_ONSTACK && now.ss_sp == alternate &&
              now.ss_size == sizeof alternate,
          "sigaltstack says %#x", (unsigned)now.ss_flags);
  }
}
static void on_second(int number) {
  volatile int local = number;
  left = on_alternate((const void*)&local);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  struct sigaction first = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  struct sigaction second = {.sa_handler = on_second, .sa_flags = SA_ONSTACK};
  REQUIRE(sigaltstack(&stack, NULL) == 0 && sigaction(SIGUSR1, &first, NULL) == 0 &&
          sigaction(SIGUSR2, &second, NULL) == 0);
  raise(SIGUSR1);
  stack_t now;
  if (sigaltstack(NULL, &now) != 0 || now.ss_flags != 0) return 1;
  raise(SIGUSR2);
  return left ? subject_status() : 1;
}

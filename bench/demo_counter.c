// The program that `./dev demo` freezes: it counts aloud, ten numbers a second, and holds a random secret that
// exists nowhere but in its memory. It ends by itself after a minute, whatever became of its starter.
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int main(void) {
  uint32_t secret;
  if (getrandom(&secret, sizeof secret, 0) != (ssize_t)sizeof secret) return 1;
  for (int n = 1; n <= 600; n++) {
    printf("pid %d, secret %08x, number %d\n", getpid(), secret, n);
    fflush(stdout);
    const struct timespec tenth = {.tv_nsec = 100 * 1000 * 1000};
    nanosleep(&tenth, NULL);
  }
  return 0;
}

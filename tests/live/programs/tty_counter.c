// Prints a rising number, one line every 100 ms, on its terminal. Ends with status 17 on SIGUSR1, and after N lines
// with status 0 when N is given.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void on_signal(int number) {
  _exit(number == SIGUSR1 ? 17 : 1);
}

int main(int argc, char** argv) {
  long limit = argc > 1 ? atol(argv[1]) : 0;
  signal(SIGUSR1, on_signal);
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (long count = 1; limit == 0 || count <= limit; count++) {
    printf("count %ld\n", count);
    struct timespec nap = {0, 100000000};
    nanosleep(&nap, NULL);
  }
  return 0;
}

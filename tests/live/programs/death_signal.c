// Ends when its parent ends: `death_signal FILE` asks for a signal at the parent's end, then writes its pid into FILE.
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 2 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return 2;
  FILE* file = fopen(argv[1], "w");
  if (file == NULL || fprintf(file, "%d\n", getpid()) < 0 || fclose(file) != 0) return 3;
  for (;;) pause();
}

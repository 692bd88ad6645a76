// The smallest program: a number in memory that only ever goes up by one, and a line in a file for each.
#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char local_text[32] = "a string on the stack";
  long count = 0;
  long last_checked = 0;
  for (subject_ready();;) {
    count++;
    char line[32];
    snprintf(line, sizeof line, "%ld\n", count);
    subject_write_file("count", line);
    sleep_ms(kPollMs);
    if (!subject_asked()) continue;
    char text[32];
    CHECK(subject_read_file(subject_path("count"), text, sizeof text) > 0, "the count file is gone");
    CHECK(atol(text) == count, "the file holds %s, memory %ld", text, count);
    CHECK(count > last_checked, "the counter went back to %ld", count);
    CHECK(strcmp(local_text, "a string on the stack") == 0, "the stack lost its text");
    last_checked = count;
    subject_verdict();
    if (subject_last) return subject_status();
  }
}

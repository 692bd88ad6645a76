// A POSIX message queue with a message, and one whose arrival is to be told: it looks like a file named "/...".
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char name[64];
  snprintf(name, sizeof name, "/stasis-subject-%d", (int)getpid());
  struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 16};
  mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes);
  if (queue == (mqd_t)-1 && errno == ENOSYS) subject_skip("POSIX message queues");
  REQUIRE(queue != (mqd_t)-1 && mq_unlink(name) == 0 && mq_send(queue, "hello", 5, 3) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[16];
    unsigned priority = 0;
    CHECK(mq_receive(queue, text, sizeof text, &priority) == 5 && priority == 3 && memcmp(text, "hello", 5) == 0,
          "the message");
    CHECK(mq_receive(queue, text, sizeof text, NULL) == -1 && errno == EAGAIN, "there is another message");
    REQUIRE(mq_send(queue, "hello", 5, 3) == 0);
  }
  return subject_status();
}

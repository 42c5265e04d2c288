// Preloaded into a program: does something in front of its Nth event, a call that opens, writes,
// fsyncs, renames, links or removes a file with a text in its path.
//
//   EVENT_PATH    that text
//   EVENT_LOG     file that gets a line for each event: its name and path
//   EVENT_NUMBER  N, from 1 on
//   EVENT_ACTION  fail (the call does nothing, as on a full disk), hang (this thread, for good), or
//                 kill: SIGKILL to the process whose number is in the file EVENT_VICTIM, or to this
//                 one where there is no such variable
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Whether the call fails.
static bool act(void) {
  const char* action = getenv("EVENT_ACTION");
  if (action == NULL) return false;
  if (strcmp(action, "fail") == 0) {
    errno = ENOSPC;
    return true;
  }
  if (strcmp(action, "hang") == 0)
    for (;;) pause();
  pid_t victim = getpid();
  const char* of = getenv("EVENT_VICTIM");
  FILE* file = of == NULL ? NULL : fopen(of, "r");
  if (file != NULL && fscanf(file, "%d", &victim) != 1) victim = getpid();
  kill(victim, SIGKILL);
  return false;
}

static bool event(const char* name, const char* path) {
  static int count = 0;
  const char* text = getenv("EVENT_PATH");
  if (text == NULL || path == NULL || strstr(path, text) == NULL) return false;
  ++count;
  const char* log = getenv("EVENT_LOG");
  FILE* file = log == NULL ? NULL : fopen(log, "a");
  if (file != NULL) {
    fprintf(file, "%s %s\n", name, path);
    fclose(file);
  }
  const char* number = getenv("EVENT_NUMBER");
  return number != NULL && atoi(number) == count && act();
}

static bool event_of(const char* name, int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return false;
  path[length] = '\0';
  return event(name, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
  va_end(more);
  if ((flags & O_ACCMODE) != O_RDONLY && event("open", path)) return -1;
  return REAL(open)(path, flags, mode);
}
ssize_t write(int descriptor, const void* data, size_t bytes) {
  if (event_of("write", descriptor)) return -1;
  return REAL(write)(descriptor, data, bytes);
}
ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
  if (event_of("write", descriptor)) return -1;
  return REAL(pwrite)(descriptor, data, bytes, offset);
}
int fsync(int descriptor) {
  if (event_of("fsync", descriptor)) return -1;
  return REAL(fsync)(descriptor);
}
int rename(const char* from, const char* to) {
  if (event("rename", from)) return -1;
  return REAL(rename)(from, to);
}
int link(const char* from, const char* to) {
  if (event("link", to)) return -1;
  return REAL(link)(from, to);
}
int unlink(const char* path) {
  if (event("remove", path)) return -1;
  return REAL(unlink)(path);
}
int remove(const char* path) {
  if (event("remove", path)) return -1;
  return REAL(remove)(path);
}

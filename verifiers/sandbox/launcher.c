/* Starts a compiled program under the limits of its slot: what `jail.limit`, `become` and `lock` do for Python programs.
 *
 * A forked Python process would do, at a millisecond more per test: copying the zygote's page tables. This one is
 * started without a copy. Usage: launcher RULESET_FD FILTER_FD FAILED_FD PLACES USER CPU_S AS FSIZE NOFILE
 * STACK THREADS PROGRAM, PLACES being the offsets in the filter where the process's own id belongs; USER and THREADS are -1
 * for none. If a step fails it writes a byte to FAILED_FD: then nothing of the program has run. */
#define _GNU_SOURCE
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

enum { MAX_FILTER = 65536, CLOEXEC = 4 };

static int failed_fd;

static void need(int is_fine) {
  if (is_fine) return;
  if (write(failed_fd, "x", 1) < 0) _exit(2);
  _exit(1);
}

static void limit(int kind, const char *text) {
  struct rlimit now;
  rlim_t value = strtoull(text, 0, 10);
  need(getrlimit(kind, &now) == 0);
  if (now.rlim_max != RLIM_INFINITY && value > now.rlim_max) value = now.rlim_max;
  now.rlim_cur = now.rlim_max = value;
  need(setrlimit(kind, &now) == 0);
}

int main(int argc, char **argv) {
  static char filter[MAX_FILTER];
  if (argc != 13) return 2;
  int ruleset = atoi(argv[1]), filter_fd = atoi(argv[2]);
  failed_fd = atoi(argv[3]);
  ssize_t size = pread(filter_fd, filter, sizeof filter, 0);
  need(size > 0);
  uint32_t pid = getpid();
  for (char *place = strtok(argv[4], ","); place; place = strtok(0, ",")) memcpy(filter + atoi(place), &pid, 4);

  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
  limit(RLIMIT_CPU, argv[6]);
  limit(RLIMIT_AS, argv[7]);
  limit(RLIMIT_FSIZE, argv[8]);
  limit(RLIMIT_NOFILE, argv[9]);
  limit(RLIMIT_STACK, argv[10]);
  if (atol(argv[11]) >= 0) limit(RLIMIT_NPROC, argv[11]);
  limit(RLIMIT_CORE, "0");
  limit(RLIMIT_MEMLOCK, "0");
  limit(RLIMIT_MSGQUEUE, "0");

  long user = atol(argv[5]);
  if (user >= 0) {
    need(setgroups(0, 0) == 0);
    need(setresgid(user, user, user) == 0);
    need(setresuid(user, user, user) == 0);
  } else {
    uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
    prctl(PR_SET_SECUREBITS, 0x2f, 0, 0, 0);
    syscall(SYS_capset, header, none);
  }
  need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0); /* ends with its slot */
  need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  need(syscall(446, ruleset, 0) == 0); /* landlock_restrict_self */
  struct sock_fprog program = {.len = size / 8, .filter = (struct sock_filter *)filter};
  syscall(436, 3, ~0U, CLOEXEC); /* close_range, when the program starts */
  need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
  char *arguments[] = {"main", 0}, *environment[] = {"LANG=C.UTF-8", 0};
  execve(argv[12], arguments, environment);
  need(0);
}

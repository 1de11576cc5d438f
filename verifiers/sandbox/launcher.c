/* Starts a compiled program under the limits of its slot: what `jail.limit`, `become` and `Lock` do for Python programs.
 *
 * A forked Python process would do, at a millisecond more per test: copying the zygote's page tables. This one is started
 * without a copy, and without a C library, whose start and end would cost more than all that is done here. Usage: launcher
 * RULESET_FD FILTER_FD FAILED_FD PLACES USER CPU_S AS FSIZE NOFILE STACK THREADS PROGRAM, PLACES being the offsets in the
 * filter where the process's own id belongs; USER and THREADS are -1 for none. If a step fails it writes a byte to
 * FAILED_FD: then nothing of the program has run. */
#include <linux/filter.h>
#include <linux/resource.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MAX_FILTER = 65536, CLOEXEC = 4, KILL = 9, DIGIT = '0' };

/* Of the kernel's tables, which headers of older C libraries lack. */
enum { CLOSE_RANGE = 436, LANDLOCK_RESTRICT_SELF = 446 };

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %rbp, %rbp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall launch\n");

static long call(long number, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tb launch\n");

static long call(long number, long a, long b, long c, long d, long e) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
#else
#error "no system calls for this architecture; known: x86-64, aarch64"
#endif

static long failed_fd;
static char filter[MAX_FILTER];

static void need(int is_fine) {
  if (is_fine) return;
  call(SYS_write, failed_fd, (long)"x", 1, 0, 0);
  for (;;) call(SYS_exit_group, 1, 0, 0, 0, 0);
}

/* Reads a decimal number, -1 included; *text is left behind it. */
static long number(const char **text) {
  long value = 0;
  if (**text == '-') return -1;
  for (; **text >= DIGIT && **text <= '9'; ++*text) value = 10 * value + (**text - DIGIT);
  return value;
}

static long argument(char **argv, int index) {
  const char *text = argv[index];
  return number(&text);
}

static void limit(int kind, long value) {
  uint64_t now[2], wanted[2]; /* soft, hard */
  need(call(SYS_prlimit64, 0, kind, 0, (long)now, 0) == 0);
  wanted[0] = wanted[1] = (uint64_t)value < now[1] ? (uint64_t)value : now[1];
  need(call(SYS_prlimit64, 0, kind, (long)wanted, 0, 0) == 0);
}

static void set_limits(char **argv) {
  limit(RLIMIT_CPU, argument(argv, 6));
  limit(RLIMIT_AS, argument(argv, 7));
  limit(RLIMIT_FSIZE, argument(argv, 8));
  limit(RLIMIT_NOFILE, argument(argv, 9));
  limit(RLIMIT_STACK, argument(argv, 10));
  if (argument(argv, 11) >= 0) limit(RLIMIT_NPROC, argument(argv, 11));
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_MEMLOCK, 0);
  limit(RLIMIT_MSGQUEUE, 0);
}

static void become(long user) {
  if (user >= 0) {
    need(call(SYS_setresgid, user, user, user, 0, 0) == 0);
    need(call(SYS_setresuid, user, user, user, 0, 0) == 0);
    return;
  }
  uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
  call(SYS_prctl, PR_SET_SECUREBITS, 0x2f, 0, 0, 0); /* fails where there was nothing to drop */
  call(SYS_capset, (long)header, (long)none, 0, 0, 0);
}

static void lock(long ruleset, long filter_fd, const char *places) {
  long size = call(SYS_pread64, filter_fd, (long)filter, sizeof filter, 0, 0);
  need(size > 0 && size < (long)sizeof filter);
  uint32_t own = call(SYS_getpid, 0, 0, 0, 0, 0);
  for (const char *text = places; *text; text += *text == ',') {
    long place = number(&text);
    need(place >= 0 && place + 4 <= size);
    *(uint32_t *)(filter + place) = own;
  }
  need(call(SYS_prctl, PR_SET_PDEATHSIG, KILL, 0, 0, 0) == 0); /* ends with its slot */
  need(call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  need(call(LANDLOCK_RESTRICT_SELF, ruleset, 0, 0, 0, 0) == 0);
  struct sock_fprog program = {.len = size / 8, .filter = (struct sock_filter *)filter};
  call(CLOSE_RANGE, 3, ~0U, CLOEXEC, 0, 0); /* when the program starts */
  need(call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&program, 0, 0) == 0);
}

__attribute__((noreturn, used)) void launch(long *stack) {
  char **argv = (char **)(stack + 1), *arguments[] = {"main", 0}, *environment[] = {"LANG=C.UTF-8", 0};
  if (*stack != 13) call(SYS_exit_group, 2, 0, 0, 0, 0);
  failed_fd = argument(argv, 3);
  set_limits(argv);
  become(argument(argv, 5));
  lock(argument(argv, 1), argument(argv, 2), argv[4]);
  call(SYS_execve, (long)argv[12], (long)arguments, (long)environment, 0, 0);
  need(0);
  __builtin_unreachable();
}

"""Seccomp filters: which system calls a judged program may make, as BPF programs put together by hand.

An allow list; everything else fails with EPERM. A call made in another architecture's way (32 bit, x32) ends the
process: its numbers mean other calls. clone3 answers ENOSYS, so that the C library falls back to clone, whose flags can
be looked at. No process can be made, only threads: limits of one process are then limits of the program, and nothing
survives it. Sockets: a local pair that nobody else can join, nothing more. Knows the standard library only.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from typing import Final

from verifiers.sandbox.kernel import ANY_NAMESPACE, CLONE_THREAD, PR_GET_NAME, PR_SET_NAME, PR_SET_VMA

# linux/bpf_common.h, linux/seccomp.h, linux/audit.h
_LOAD: Final = 0x20  # word at an absolute offset
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_EQUAL: Final = 0x35
_JUMP_SET: Final = 0x45
_RETURN: Final = 0x06
_MAX_JUMP: Final = 255  # of a conditional one
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL: Final = 0x80000000
_OFFSET_NUMBER: Final = 0
_OFFSET_ARCHITECTURE: Final = 4
_OFFSET_ARGUMENTS: Final = 16
_X32_BIT: Final = 0x40000000
_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_OWN_PID: Final = 0xFEEDC0DE  # stands for the process's own id until the filter is installed

_AF_UNIX: Final = 1
_SIGKILL: Final = 9
_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451

# name: (x86-64, aarch64); None where an architecture lacks the call. From arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h.
_NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    "access": (21, None), "alarm": (37, None), "arch_prctl": (158, None), "brk": (12, 214), "chdir": (80, 49),
    "chmod": (90, None), "clock_getres": (229, 114), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115),
    "clone": (56, 220), "clone3": (435, 435), "close": (3, 57), "close_range": (436, 436), "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22), "epoll_wait": (232, None), "eventfd2": (290, 19), "execve": (59, 221), "exit": (60, 93),
    "exit_group": (231, 94), "faccessat": (269, 48), "faccessat2": (439, 439), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fcntl": (72, 25), "fdatasync": (75, 83), "flock": (73, 32), "fork": (57, None),
    "fstat": (5, 80), "fsync": (74, 82), "ftruncate": (77, 46), "futex": (202, 98), "get_robust_list": (274, 100),
    "getcpu": (309, 168), "getcwd": (79, 17), "getdents64": (217, 61), "getegid": (108, 177), "geteuid": (107, 175),
    "getgid": (104, 176), "getgroups": (115, 158), "getitimer": (36, 102), "getpgid": (121, 155),
    "getpgrp": (111, None),
    "getpid": (39, 172), "getppid": (110, 173), "getpriority": (140, 141), "getrandom": (318, 278),
    "getresgid": (120, 150), "getresuid": (118, 148), "getrlimit": (97, 163), "getrusage": (98, 165),
    "getsid": (124, 156), "getsockopt": (55, 209), "gettid": (186, 178), "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "ioctl": (16, 29), "kill": (62, 129), "lseek": (8, 62), "lstat": (6, None), "madvise": (28, 233),
    "membarrier": (324, 283), "mkdir": (83, None), "mkdirat": (258, 34), "mmap": (9, 222), "mprotect": (10, 226),
    "mremap": (25, 216), "msync": (26, 227), "munmap": (11, 215), "nanosleep": (35, 101), "newfstatat": (262, 79),
    "open": (2, None), "openat": (257, 56), "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None),
    "ppoll": (271, 73), "prctl": (157, 167), "pread64": (17, 67), "preadv": (295, 69), "prlimit64": (302, 261),
    "pselect6": (270, 72), "pwrite64": (18, 68), "pwritev": (296, 70), "read": (0, 63), "readlink": (89, None),
    "readlinkat": (267, 78), "readv": (19, 65), "recvfrom": (45, 207), "recvmsg": (47, 212), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "restart_syscall": (219, 128), "rmdir": (84, None),
    "rseq": (334, 293), "rt_sigaction": (13, 134), "rt_sigpending": (127, 136), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "sched_yield": (24, 124),
    "select": (23, None), "sendfile": (40, 71), "sendto": (44, 206), "set_robust_list": (273, 99),
    "set_tid_address": (218, 96), "setitimer": (38, 103), "setrlimit": (160, 164), "shutdown": (48, 210),
    "sigaltstack": (131, 132), "socketpair": (53, 199), "stat": (4, None), "statx": (332, 291), "sysinfo": (99, 179),
    "tgkill": (234, 131), "time": (201, None), "times": (100, 153), "truncate": (76, 45), "umask": (95, 166),
    "uname": (63, 160), "unlink": (87, None), "unlinkat": (263, 35), "vfork": (58, None), "wait4": (61, 260),
    "waitid": (247, 95), "write": (1, 64), "writev": (20, 66),
}  # fmt: skip

_LOOKED_AT: Final = frozenset(  # allowed with some arguments only
    {"clone", "clone3", "ioctl", "kill", "prctl", "prlimit64", "sendto", "socketpair", "tgkill"}
)
_FOR_COMPILERS: Final = frozenset({"chmod", "fchmod", "fchmodat", "fork", "vfork"})
_FOR_PROGRAMS: Final = frozenset(_NUMBERS) - _LOOKED_AT - _FOR_COMPILERS - {"execve"}

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, value


def _load_argument(index: int, *, high: bool = False) -> _Instruction:
    return (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8 * index + (4 if high else 0))  # both architectures are little-endian


def _return(value: int) -> _Instruction:
    return (_RETURN, 0, 0, value)


_DENY: Final = _return(_ERRNO | errno.EPERM)


def _when_argument_is(index: int, values: Iterable[int]) -> list[_Instruction]:
    """Allow when the low word of an argument is one of the values; the kernel itself takes these as 32-bit numbers."""
    wanted = list(values)
    jumps = [(_JUMP_EQUAL, len(wanted) - i, 0, value) for i, value in enumerate(wanted)]
    return [_load_argument(index), *jumps, _DENY, _return(_ALLOW)]


def _when_own_signal(index: int) -> list[_Instruction]:
    """Allow signals to the process itself, but for SIGKILL: a process that dies of it was killed from outside."""
    return [
        _load_argument(0),
        (_JUMP_EQUAL, 0, 2, _OWN_PID),
        _load_argument(index),
        (_JUMP_EQUAL, 0, 1, _SIGKILL),
        _DENY,
        _return(_ALLOW),
    ]


def _when_argument_is_null(index: int) -> list[_Instruction]:
    return [
        _load_argument(index),
        (_JUMP_EQUAL, 0, 2, 0),
        _load_argument(index, high=True),
        (_JUMP_EQUAL, 1, 0, 0),
        _DENY,
        _return(_ALLOW),
    ]


def _when_threads_only() -> list[_Instruction]:
    return [
        _load_argument(0),
        (_JUMP_SET, 2, 0, ANY_NAMESPACE),
        (_JUMP_SET, 0, 1, CLONE_THREAD),
        _return(_ALLOW),
        _DENY,
    ]


def _when_no_namespace() -> list[_Instruction]:
    return [_load_argument(0), (_JUMP_SET, 0, 1, ANY_NAMESPACE), _DENY, _return(_ALLOW)]


def _rules(*, may_execute: bool, may_fork: bool) -> dict[str, list[_Instruction]]:
    """Return, for each call that is not simply refused, what is done once its number is recognised."""
    plain = _FOR_PROGRAMS | (_FOR_COMPILERS if may_fork else frozenset()) | ({"execve"} if may_execute else frozenset())
    return {
        **{name: [_return(_ALLOW)] for name in plain},
        "clone": _when_no_namespace() if may_fork else _when_threads_only(),
        "clone3": [_return(_ERRNO | errno.ENOSYS)],
        "ioctl": _when_argument_is(1, (_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)),
        "kill": _when_own_signal(1),
        "tgkill": _when_own_signal(2),
        "prctl": _when_argument_is(0, (PR_SET_NAME, PR_GET_NAME, PR_SET_VMA)),
        "prlimit64": _when_argument_is(0, (0,)),
        "sendto": _when_argument_is_null(4),
        "socketpair": _when_argument_is(0, (_AF_UNIX,)),
    }


_ALLOWED, _DENIED = "allowed", "denied"  # labels of the two returns that most calls share
_Target = str | int
_Bodies = list[tuple[int, list[_Instruction]]]


def _search(bodies: _Bodies, steps: list[list[_Target]], rest: list[list[_Instruction]]) -> str:
    """Put a binary search over call numbers behind ``steps``; return the label of where it begins.

    ``bodies`` are (first number, what is done), up to the next one's first number; what is more than a return goes to
    ``rest``. The kernel tries a new filter on every number there is: line by line that took 0.4 ms a process
    (measured).
    """
    if len(bodies) == 1:
        body = bodies[0][1]
        if body == [_return(_ALLOW)]:
            return _ALLOWED
        if body == [_DENY]:
            return _DENIED
        if body not in rest:
            rest.append(body)
        return f"body {rest.index(body)}"
    middle = len(bodies) // 2
    place = len(steps)
    steps.append([])
    below = _search(bodies[:middle], steps, rest)
    above = _search(bodies[middle:], steps, rest)
    steps[place] = [_JUMP_GREATER_EQUAL, above, below, bodies[middle][0]]
    return f"step {place}"


def _assemble(*, may_execute: bool, may_fork: bool) -> list[_Instruction]:
    machine = platform.machine()
    column = list(_AUDIT).index(machine)
    bodies: _Bodies = [(0, [_DENY])]
    rules = _rules(may_execute=may_execute, may_fork=may_fork)
    numbered = [(_NUMBERS[name][column], body) for name, body in rules.items()]
    for number, body in sorted((number, body) for number, body in numbered if number is not None):
        if bodies[-1][0] == number:
            bodies.pop()
        if not bodies or bodies[-1][1] != body:
            bodies.append((number, body))
        bodies.append((number + 1, [_DENY]))
    head: list[_Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _AUDIT[machine]),
        _return(_KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        _return(_KILL),
    ]
    steps: list[list[_Target]] = []
    rest: list[list[_Instruction]] = []
    _search(bodies, steps, rest)
    return [*head, *_resolved(steps, rest)]


def _resolved(steps: list[list[_Target]], rest: list[list[_Instruction]]) -> list[_Instruction]:
    """Return the search, the longer bodies and the two returns, with labels as distances."""
    places = {f"step {i}": i for i in range(len(steps))}
    tail: list[_Instruction] = []
    for number, body in enumerate(rest):
        places[f"body {number}"] = len(steps) + len(tail)
        tail += body
    places[_ALLOWED] = len(steps) + len(tail)
    places[_DENIED] = places[_ALLOWED] + 1
    found: list[_Instruction] = []
    for place, (code, above, below, first) in enumerate(steps):
        jumps = [places[str(target)] - place - 1 for target in (above, below)]
        assert max(jumps) <= _MAX_JUMP, "the filter is too long for its jumps"
        found.append((int(code), jumps[0], jumps[1], int(first)))
    return [*found, *tail, _return(_ALLOW), _DENY]


class Filter:
    """A filter for one kind of program; ``places`` are the offsets at which a process's own id is to be put.

    Three kinds are used: Python programs (neither execute nor fork), compiled ones (execute: they are started that
    way), compilers (both).
    """

    def __init__(self, *, may_execute: bool = False, may_fork: bool = False) -> None:
        if platform.machine() not in _AUDIT:
            raise OSError(f"no system call numbers for {platform.machine()}; known: {', '.join(_AUDIT)}")
        packed = [struct.pack("=HBBI", *step) for step in _assemble(may_execute=may_execute, may_fork=may_fork)]
        self.program = b"".join(packed)
        mark = struct.pack("=I", _OWN_PID)
        self.places = [8 * i + 4 for i, step in enumerate(packed) if step[4:] == mark]

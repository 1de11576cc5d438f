"""The surroundings of judged programs: namespaces and a small root (tier A), or what is possible without (B, C).

Made once per slot; each program's process then adds its own layers (``enter``). Tier A: user, pid, mount, network, ipc
and uts namespaces, a read-only root of interpreter and libraries, a scratch folder of limited size. B: root without
namespaces (as in a default container): a user id of its own. C: none of both: the caller's own user. Landlock, the
seccomp filter, limits and ``no_new_privs`` are in all of them. Without these two a slot does not start, unless its
caller allows tier D: limits and a watch, no walls. Knows the standard library only.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from verifiers.sandbox import kernel

WORK: Final = "/sandbox"  # rules are about this folder, which stays when the file system in it is renewed
SCRATCH: Final = f"{WORK}/run"
BUILD: Final = "/sandbox-build"
HEADERS: Final = "/sandbox-headers"
SCRATCH_OPTIONS: Final = "size=64m,nr_inodes=4096,mode=0777"  # bytes and files of one run (note on the sandbox)
BUILD_OPTIONS: Final = "size=512m,nr_inodes=256,mode=0755"  # compiler output; the binary of 4.2 stays in it
DEVICES: Final = ("null", "zero", "full", "random", "urandom")
SYSTEM_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libexec", "/usr/bin", "/usr/include",
                         "/usr/local/lib", "/usr/local/include", "/usr/share/zoneinfo")  # fmt: skip
LIBRARIES: Final = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/local/lib")
COMPILER: Final = (HEADERS, "/bin", "/usr/bin", "/usr/libexec", "/usr/include", "/usr/local/include")
SMALL_FILES: Final = ("/etc/ld.so.cache",)
FIRST_USER: Final = 1_900_000_000  # user ids far above those that anybody has; four per slot, by its process id
USERS_PER_SLOT: Final = 4
MAX_SLOT_PROCESS: Final = 1 << 22  # kernel's bound on process ids
FENCE_MB: Final = 1_024  # address space above the memory limit: reserved is not used (note on the sandbox)
BINARY_FENCE_MB: Final = 8_192  # the same for compiled programs, whose threads reserve as much stack as may be used
MAX_OPEN_FILES: Final = 64
MAX_THREADS: Final = 64  # of a program: it has one core (guess)
MAX_STACK_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """What a slot has: its tier, the users of programs and of tests, and what of the file system is there."""

    tier: str
    program_user: int | None  # None: the caller's own, nothing can be changed
    test_user: int | None
    has_proc: bool
    why_not: str = ""  # what kept it from a higher tier

    @property
    def has_own_users(self) -> bool:
        """Whether limits by user count programs alone."""
        return self.tier in ("A", "B") or self.program_user is not None

    @property
    def has_scratch(self) -> bool:
        """Whether programs have a folder to write in."""
        return self.tier == "A"


def standard_library() -> str:
    """Return the folder of the running interpreter's standard library."""
    return sysconfig.get_path("stdlib")


def build(wanted: str, headers: str) -> Jail:
    """Put this process into the highest tier that works, but none above ``wanted``.

    ``headers`` is a folder that compilers may read, or empty. In tier A the caller stays outside as a watcher and never
    returns: a child continues inside.

    Raises:
        OSError: If not even tier C is possible; says what is missing.
    """
    if wanted == "D":
        return without_walls("tier D was asked for")
    if not kernel.landlock_abi():
        raise OSError("Landlock is not available (Linux 5.13 and later have it, if it is in the boot parameter lsm=)")
    if not kernel.has_seccomp():
        raise OSError("seccomp filters are not available (CONFIG_SECCOMP_FILTER)")
    why_not = "" if wanted == "A" else f"tier {wanted} was asked for"
    if wanted == "A":
        try:
            return _enter_namespaces(headers)
        except OSError as error:
            why_not = f"no namespaces: {error.strerror or error}"
    if wanted in ("A", "B") and os.geteuid() == 0 and _can_change_user():
        first = _first_user()
        return Jail(tier="B", program_user=first + 1, test_user=first + 2, has_proc=_sees_proc(), why_not=why_not)
    if wanted in ("A", "B"):
        why_not += "; user ids cannot be changed" if os.geteuid() == 0 else "; not root"
    return Jail(tier="C", program_user=None, test_user=None, has_proc=_sees_proc(), why_not=why_not)


def without_walls(why_not: str) -> Jail:
    """Return tier D: a user of its own where that is possible; nothing keeps a program from files and the network."""
    own = os.geteuid() == 0 and _can_change_user()
    users = (_first_user() + 1, _first_user() + 2) if own else (None, None)
    return Jail(tier="D", program_user=users[0], test_user=users[1], has_proc=_sees_proc(), why_not=why_not)


def _sees_proc() -> bool:
    return os.path.exists(f"/proc/{os.getpid()}/statm")


def _first_user() -> int:
    """Return the first of this slot's user ids: those of no other slot on this machine, where there are enough."""
    with open("/proc/self/uid_map") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    wanted = FIRST_USER + USERS_PER_SLOT * (os.getpid() % (1 << 22))
    if any(inside <= wanted and wanted + USERS_PER_SLOT <= inside + count for inside, _, count in ranges):
        return wanted
    inside, _, count = max(ranges, key=lambda item: item[2])
    slots = max((count - 1_000) // USERS_PER_SLOT // 2, 1)  # the upper half of what there is
    return inside + count - USERS_PER_SLOT * (1 + os.getpid() % slots)


def _can_change_user() -> bool:
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(*[_first_user() + 1] * 3)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


# --- tier A ----------------------------------------------------------------------------------------------------------


def _enter_namespaces(headers: str) -> Jail:
    """Continue in a child that is the first process of new namespaces; this process watches it and ends with it."""
    is_root = os.geteuid() == 0
    first = _first_user()
    _try_namespaces(is_root, first, headers)  # in a child: half a jail cannot be undone
    sources = _unshare(is_root, first, headers)
    parent = os.getpid()
    inner = os.fork()
    if inner:
        _watch(inner)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (0, parent):
        os._exit(0)
    has_proc = _build_root(sources)
    users = (1, 2) if is_root else (None, None)
    return Jail(tier="A", program_user=users[0], test_user=users[1], has_proc=has_proc)


def _sources(headers: str) -> dict[str, int]:
    """Return descriptors of the folders that the new root shows, by their path; links are kept as links."""
    wanted = [*SYSTEM_FOLDERS, *SMALL_FILES, standard_library(), "/bin", "/lib", "/lib64", "/lib32"]
    wanted += [f"/dev/{name}" for name in DEVICES]
    found = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW) for path in wanted if os.path.lexists(path)}
    with suppress(OSError):  # a convenience: without it C++ compiles more slowly
        found[HEADERS] = os.open(headers, os.O_PATH | os.O_NOFOLLOW)
    return found


def _try_namespaces(is_root: bool, first: int, headers: str) -> None:
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            number = status if status > 0 else 1
            raise OSError(number, os.strerror(number))
        return
    try:
        sources = _unshare(is_root, first, headers)
        inner = os.fork()
        if inner == 0:
            _build_root(sources)
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
    except OSError as error:
        os._exit(min(error.errno or 1, 255))


def _unshare(is_root: bool, first: int, headers: str) -> dict[str, int]:
    """Leave the caller's namespaces; return the sources of the new root.

    Root's jail is mapped to users that exist nowhere else; others map themselves. Sources must be opened inside the new
    mount namespace and before root's rights to them are gone.
    """
    if not is_root:
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.NAMESPACES | kernel.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        return _sources(headers)
    ready, told = os.pipe(), os.pipe()
    mine = os.getpid()
    helper = os.fork()  # only who is outside may map several users
    if helper == 0:
        os.close(ready[1])  # else it would wait for itself where the other end is given up
        _map_users(mine, first, ready[0], told[1])
    os.close(told[1])
    try:
        kernel.unshare(kernel.NAMESPACES | kernel.CLONE_NEWUSER)
        sources = _sources(headers)
        os.write(ready[1], b"x")
    except OSError:
        for fd in (*ready, told[0]):
            os.close(fd)
        os.waitpid(helper, 0)
        raise
    answer = os.read(told[0], 1)
    for fd in (*ready, told[0]):
        os.close(fd)
    os.waitpid(helper, 0)
    if answer != b"y":
        raise PermissionError(1, "user ids cannot be mapped")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return sources


def _map_users(process: int, first: int, ready: int, told: int) -> None:
    if not os.read(ready, 1):  # the namespaces could not be had
        os._exit(1)
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process}/{name}").write_text(f"0 {first} {USERS_PER_SLOT}")
    except OSError:
        os._exit(1)
    os.write(told, b"y")
    os._exit(0)


def _watch(inner: int) -> None:
    """End when the inner process does, or with it when whoever started this slot is gone; never returns."""
    started_by = os.getppid()
    pidfd = os.pidfd_open(inner)
    os.closerange(0, pidfd)  # the line to the caller above all: only the inner process may hold it open
    os.closerange(pidfd + 1, 1 << 16)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while not poll.poll(500):
        if os.getppid() != started_by:
            os.kill(inner, signal.SIGKILL)  # its namespace, and all in it, ends with it
    os.waitpid(inner, 0)
    os._exit(0)


def _build_root(sources: dict[str, int]) -> bool:
    """Make a root of interpreter, libraries and a scratch folder, and move into it; return whether it has /proc."""
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    root = "/tmp" if os.path.isdir("/tmp") else "/mnt"
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=512,mode=0755")
    os.chdir(root)
    for path, fd in sources.items():
        _show(path, fd)
    for name in ("proc", WORK[1:], SCRATCH[1:], BUILD[1:]):
        os.mkdir(name, 0o755)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        os.symlink(f"/proc/self/fd/{number}", f"dev/{name}")
    if not os.path.lexists("tmp"):  # the interpreter may lie there
        os.symlink(SCRATCH, "tmp")
    has_proc = _mount_proc()
    kernel.pivot_root_here()
    kernel.make_read_only("/", recursive=False)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags | kernel.MS_NOEXEC, SCRATCH_OPTIONS)
    kernel.mount("tmpfs", BUILD, "tmpfs", flags, BUILD_OPTIONS)
    for fd in sources.values():
        os.close(fd)
    return has_proc


def _show(path: str, fd: int) -> None:
    """Bind what the descriptor stands for at the same path below the working folder, read-only."""
    place = path[1:]
    os.makedirs(os.path.dirname(place) or ".", 0o755, exist_ok=True)
    mode = os.fstat(fd).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink("", dir_fd=fd), place)
        return
    if stat.S_ISDIR(mode):
        os.makedirs(place, 0o755, exist_ok=True)
    else:
        os.close(os.open(place, os.O_CREAT, 0o644))
    kernel.mount(f"/proc/self/fd/{fd}", place, flags=kernel.MS_BIND | kernel.MS_REC)
    if not path.startswith("/dev/"):
        kernel.make_read_only(place, recursive=True)


def _mount_proc() -> bool:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for options in ("hidepid=2,subset=pid", "hidepid=2"):
        with suppress(OSError):
            kernel.mount("proc", "proc", "proc", flags, options)
            return True
    return False


def renew_scratch() -> None:
    """Throw away what a program left in its folder, by a fresh file system: no tree can be too deep for that."""
    if os.listdir(SCRATCH):
        kernel.unmount(SCRATCH)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, SCRATCH_OPTIONS)
        os.chdir(SCRATCH)  # the next program's working folder is this one, not the one that is gone


# --- in each program's process ---------------------------------------------------------------------------------------


def python_rules(jail: Jail) -> list[tuple[str, int]]:
    """Return what a Python program may read and write."""
    rules = [(path, kernel.READ) for path in (*LIBRARIES, *SMALL_FILES, standard_library(), "/usr/share/zoneinfo")]
    rules += [(f"/dev/{name}", kernel.READ) for name in DEVICES] + [("/dev/null", kernel.WRITE_FILE)]
    if jail.has_scratch:
        rules.append((WORK, kernel.READ | kernel.WRITE))
    if jail.has_proc and jail.tier == "A":
        rules.append(("/proc", kernel.READ))
    return rules


def binary_rules(jail: Jail, folder: str) -> list[tuple[str, int]]:
    """Return what a compiled program may: start from its folder, load libraries, use the scratch folder."""
    allowed = kernel.READ | kernel.EXECUTE
    return [*python_rules(jail), (folder, allowed), *((path, allowed) for path in LIBRARIES)]


def compiler_rules(jail: Jail, folder: str) -> list[tuple[str, int]]:
    """Return what a compiler may: read headers and libraries, run its parts, write into one folder."""
    allowed = kernel.READ | kernel.EXECUTE
    rules = [(path, allowed) for path in (*LIBRARIES, *COMPILER)]
    return [*rules, *python_rules(jail), (folder, allowed | kernel.WRITE)]


def limit_all() -> None:
    """Set the limits that are the same for every program; the slot itself lives with them too."""
    for kind, value in (
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_STACK, MAX_STACK_BYTES),
    ):
        _limit(kind, value)


def limit(*, cpu_s: int, memory_mb: int, file_mb: int, is_own_user: bool, is_watched: bool) -> None:
    """Set the hard limits of a program: fences behind what is watched from outside.

    CPU time in whole seconds; memory as address space, well above the limit that is watched. Threads are counted by
    user: only where programs have one of their own.
    """
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_AS, (memory_mb + FENCE_MB) << 20)
    _limit(resource.RLIMIT_FSIZE, file_mb << 20)
    if not is_watched:  # then the kernel's count of writable memory has to do, reserved or not
        _limit(resource.RLIMIT_DATA, memory_mb << 20)
    if is_own_user:
        _limit(resource.RLIMIT_NPROC, MAX_THREADS)


def _limit(kind: int, value: int) -> None:
    try:
        resource.setrlimit(kind, (value, value))
    except ValueError:  # the caller lives under a lower one
        most = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most, most))


def become(user: int | None) -> None:
    """Take on a program's user, for good; the slot can look at it, and it at itself, as at any process."""
    if user is None:
        with suppress(OSError):  # nothing to drop where nothing was had
            kernel.drop_capabilities()
    else:
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)  # from 0 to another: all capabilities go
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # a slot is not; else /dev/stdin would not be its own, nor its memory seen
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with its slot; a change of user would undo it


def close_others(keep: Sequence[int]) -> None:
    """Close every descriptor but 0, 1, 2 and these."""
    start = 3
    for fd in sorted({fd for fd in keep if fd >= 3}):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 16)


assert sys.platform == "linux", f"the sandbox needs Linux, this is {sys.platform}"

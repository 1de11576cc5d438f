"""Linux system calls that Python has no name for, as functions that raise ``OSError``.

Bottom of the sandbox: used by the processes of a slot, which know the standard library only. Numbers are those of the
kernel's own tables; Landlock's rights are cut to what the running kernel knows (``landlock_abi``). Decides nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# linux/sched.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWTIME: Final = 0x00000080
CLONE_THREAD: Final = 0x00010000
NAMESPACES: Final = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
ANY_NAMESPACE: Final = NAMESPACES | CLONE_NEWUSER | CLONE_NEWTIME

# sys/mount.h, linux/mount.h
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
_MOUNT_ATTR: Final = struct.Struct("=QQQQ")  # set, clear, propagation, userns_fd
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_GET_NAME: Final = 16
PR_SET_SECCOMP: Final = 22
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_THP_DISABLE: Final = 41
PR_SET_VMA: Final = 0x53564D41
_SECBITS: Final = 0x2F  # no root privileges, no fix-up on setuid, both locked; ambient raise refused
_SECCOMP_MODE_FILTER: Final = 2

_ARCHITECTURES: Final = {"x86_64": 0, "aarch64": 1}
# name: number on x86-64, number on aarch64 (None: the call does not exist there)
_OWN_CALLS: Final[dict[str, tuple[int, int]]] = {
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}

# linux/landlock.h
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
READ: Final = 1 << 2 | 1 << 3  # files and folders
EXECUTE: Final = 1 << 0
WRITE: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14  # write, remove, make folders and files, truncate
WRITE_FILE: Final = 1 << 1
MAKE_SYMLINK: Final = 1 << 12
_RULES_FS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_RULES_NET: Final = 3  # bind and connect, TCP; since ABI 4
_SCOPES: Final = 3  # abstract unix sockets and signals stay inside; since ABI 6


def _check(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _number(name: str) -> int:
    which = _ARCHITECTURES.get(platform.machine())
    if which is None:
        raise OSError(f"{name}: no system call numbers for {platform.machine()}; known: {', '.join(_ARCHITECTURES)}")
    return _OWN_CALLS[name][which]


def _own_call(name: str, *args: Any) -> int:
    return _check(_libc.syscall(ctypes.c_long(_number(name)), *args), name)


def prctl(option: int, value: int = 0) -> int:
    """Set an attribute of this process."""
    return _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def unshare(flags: int) -> None:
    """Move this process (its next children, for processes) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or bind a folder to a second place."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def unmount(target: str) -> None:
    """Take a mount away at once, busy or not."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def make_read_only(path: str, *, recursive: bool) -> None:
    """Make a mount read-only, without set-uid programs and devices; other flags that it has stay (Linux 5.12)."""
    attributes = _MOUNT_ATTR.pack(MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _own_call("mount_setattr", _AT_FDCWD, path.encode(), flags, attributes, ctypes.c_size_t(len(attributes)))


def pivot_root_here() -> None:
    """Make the working folder, a mount, the root, and drop the old one."""
    _own_call("pivot_root", b".", b".")
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up all capabilities, for what is executed later too."""
    prctl(PR_SET_SECUREBITS, _SECBITS)
    header = struct.pack("=II", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _own_call("capset", header, bytes(24))


def landlock_abi() -> int:
    """Return the version of Landlock that the kernel offers; 0 without it."""
    try:
        return _own_call("landlock_create_ruleset", None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def has_seccomp() -> bool:
    """Return whether processes may put a filter on themselves: the kernel reads it only if it could."""
    try:
        prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


def landlock_ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Return the descriptor of a set of rules that allows (path, rights) and nothing else; a missing path is left out.

    Network rules and scopes are in it as far as the kernel knows them.

    Raises:
        OSError: If the kernel has no Landlock.
    """
    abi = landlock_abi()
    if not abi:
        raise OSError("Landlock is not there: the kernel lacks it, or a filter refuses it")
    handled = _RULES_FS[min(abi, max(_RULES_FS))]
    attributes = struct.pack("=Q", handled)
    if abi >= 4:
        attributes += struct.pack("=Q", _RULES_NET)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _own_call("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), 0)
    for path, rights in rules:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            rights &= EXECUTE | WRITE_FILE | 1 << 2 | 1 << 14
        rule = struct.pack("=Qi", rights & handled, place)
        _own_call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
        os.close(place)
    return ruleset


class Lock:
    """The last layers of a process, prepared before it is forked: no new privileges, Landlock, the seccomp filter.

    ``places`` are the offsets in the filter at which the process's own id belongs.
    """

    def __init__(self, ruleset: int, program: bytes, places: Sequence[int]) -> None:
        self.ruleset = ruleset
        self._buffer = ctypes.create_string_buffer(program, len(program))
        address = ctypes.addressof(self._buffer)
        self._header = struct.pack("@HP", len(program) // 8, address)
        self._places = [ctypes.c_uint32.from_address(address + place) for place in places]
        self._restrict = ctypes.c_long(_number("landlock_restrict_self"))

    def shut(self, pid: int) -> None:
        """Hold this process, whose id is ``pid``, and its children to rules and filter, for good."""
        for place in self._places:
            place.value = pid
        if (
            _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            or _libc.syscall(self._restrict, self.ruleset, 0)
            or _libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._header, 0, 0)
        ):
            _check(-1, "no_new_privs, Landlock or seccomp")

"""The filter of system calls, walked as the kernel walks it: what is allowed, refused, or ends the process."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from verifiers.sandbox import filters, kernel

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE = 0x50000 | errno.EPERM
X86 = 0xC000003E
OWN = 4_711
NUMBERS = {name: pair[0] for name, pair in filters._NUMBERS.items() if pair[0] is not None}

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")


def walk(own: filters.Filter, number: int, *args: int, architecture: int = X86) -> int:
    """Return what a filter says to a call, as the kernel would compute it."""
    program = bytearray(own.program)
    for place in own.places:
        program[place : place + 4] = struct.pack("=I", OWN)
    data = struct.pack("<IIQ6Q", number, architecture, 0, *args, *[0] * (6 - len(args)))
    steps = [struct.unpack("=HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    place = value = 0
    while True:
        code, if_true, if_false, operand = steps[place]
        if code == 0x06:
            return operand
        if code == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
            place += 1
            continue
        is_true = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
        place += 1 + (if_true if is_true else if_false)


@pytest.fixture(scope="module")
def python() -> filters.Filter:
    return filters.Filter()


def test_every_number_is_allowed_by_name_or_refused(python: filters.Filter) -> None:
    plain = {number for name, number in NUMBERS.items() if name in filters._FOR_PROGRAMS}
    looked_at = {NUMBERS[name] for name in filters._LOOKED_AT}
    for number in range(1_000):
        said = walk(python, number, 1, 1, 1, 1, 1)
        if number in plain:
            assert said == ALLOW
        elif number not in looked_at:
            assert said == REFUSE


def test_other_architectures_and_x32_end_the_process(python: filters.Filter) -> None:
    assert walk(python, 0, architecture=0x40000003) == KILL
    assert walk(python, 0x40000000) == KILL
    assert walk(python, 0xFFFFFFFF) == KILL


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("clone", (kernel.CLONE_THREAD | 0xF00,), ALLOW),
        ("clone", (17,), REFUSE),
        ("clone", (kernel.CLONE_THREAD | kernel.CLONE_NEWUSER,), REFUSE),
        ("clone3", (), 0x50000 | errno.ENOSYS),
        ("kill", (OWN, 11), ALLOW),
        ("kill", (OWN, 9), REFUSE),
        ("kill", (1, 15), REFUSE),
        ("kill", (0xFFFFFFFF, 15), REFUSE),
        ("tgkill", (OWN, 3, 6), ALLOW),
        ("tgkill", (OWN, 3, 9), REFUSE),
        ("tgkill", (2, 2, 6), REFUSE),
        ("ioctl", (1, 0x5401), ALLOW),
        ("ioctl", (1, 0x5412), REFUSE),
        ("prctl", (kernel.PR_SET_NAME,), ALLOW),
        ("prctl", (kernel.PR_SET_DUMPABLE,), REFUSE),
        ("prlimit64", (0,), ALLOW),
        ("prlimit64", (1,), REFUSE),
        ("sendto", (3, 4, 5, 0, 0), ALLOW),
        ("sendto", (3, 4, 5, 0, 1 << 40), REFUSE),
        ("sendto", (3, 4, 5, 0, 1), REFUSE),
        ("socketpair", (1,), ALLOW),
        ("socketpair", (2,), REFUSE),
        ("execve", (), REFUSE),
        ("fork", (), REFUSE),
        ("vfork", (), REFUSE),
        ("chmod", (), REFUSE),
    ],
)
def test_what_a_python_program_may_depends_on_the_arguments(
    name: str, args: tuple[int, ...], said: int, python: filters.Filter
) -> None:
    assert walk(python, NUMBERS[name], *args) == said


def test_programs_are_started_by_execve_and_compilers_may_fork_but_not_into_namespaces() -> None:
    binary, compiler = filters.Filter(may_execute=True), filters.Filter(may_execute=True, may_fork=True)
    assert walk(binary, NUMBERS["execve"]) == ALLOW
    assert walk(binary, NUMBERS["vfork"]) == REFUSE
    assert walk(binary, NUMBERS["clone"], 17) == REFUSE
    for name in ("execve", "fork", "vfork", "chmod"):
        assert walk(compiler, NUMBERS[name]) == ALLOW
    assert walk(compiler, NUMBERS["clone"], 17) == ALLOW
    assert walk(compiler, NUMBERS["clone"], kernel.CLONE_NEWPID) == REFUSE


# socket, connect, bind, ptrace, mount, bpf, io_uring_setup, userfaultfd, unshare, setns, keyctl, memfd_create, shmget,
# process_vm_readv, pidfd_open, setuid, capset, personality, perf_event_open, kexec_load, init_module, landlock rules
FORBIDDEN = (41, 42, 49, 101, 165, 321, 425, 323, 272, 308, 250, 319, 29, 310, 434, 105, 126, 135, 298, 246, 175, 445)


@pytest.mark.parametrize("number", FORBIDDEN)
def test_what_nobody_may(number: int) -> None:
    for kind in ({}, {"may_execute": True}, {"may_execute": True, "may_fork": True}):
        assert walk(filters.Filter(**kind), number) == REFUSE

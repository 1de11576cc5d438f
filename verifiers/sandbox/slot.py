"""One slot of the sandbox: the process that starts judged programs and has them watched, one request at a time.

Started by ``verifiers.sandbox.slots`` with an empty environment, and by exec, so that nothing of the caller is in its
memory. It builds the jail, says which tier it got, and serves requests on descriptor 0: a JSON message with the
descriptors that the program's process gets. Invariants: contents of those descriptors (sources, inputs, answers) are
never read here, so that nothing of one program is in the memory that the next is forked from; when a request is
answered, no process that it started is alive and the scratch folder is empty; what cannot be made so ends the slot.
Knows the standard library only.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from verifiers.sandbox import filters, jail, kernel, programs, proxies
from verifiers.sandbox.watch import Bounds, Child, watch

# Loaded before any program comes: what programs import most. More would make every fork slower (0.05 ms per MB).
PRELOADED: Final = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq",
    "io", "itertools", "math", "operator", "queue", "random", "re", "string", "threading", "traceback", "typing",
)  # fmt: skip
PROGRAM_ENVIRONMENT: Final = {"HOME": jail.SCRATCH, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "TMPDIR": jail.SCRATCH,
                              "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip
MAX_MESSAGE_BYTES: Final = 65_536
MAX_FDS: Final = 8


@dataclass(slots=True)
class Slot:
    """The jail with what is prepared once for all programs."""

    jail: jail.Jail
    folder: str  # of binaries
    library_fd: int | None
    caller: int  # its process; 0 inside a namespace, where a watcher outside looks after it
    _locks: dict[str, kernel.Lock] = field(default_factory=dict)
    _filters: dict[str, filters.Filter] = field(default_factory=dict)
    _binary_filter: int | None = None
    # A byte in this pipe: a layer failed, and nothing of the program has run.
    _failed: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))

    def prepare(self) -> None:
        """Make rules and filters, which all processes share; tier D has none."""
        build = os.path.join(self.folder, "new")
        os.makedirs(build, 0o755, exist_ok=True)
        if self.jail.tier == "D":
            return
        rules = {
            "python": jail.python_rules(self.jail),
            "binary": jail.binary_rules(self.jail, self.folder),
            "compiler": jail.compiler_rules(self.jail, self.folder),
        }
        self._filters = {
            "python": filters.Filter(),
            "binary": filters.Filter(may_execute=True),
            "compiler": filters.Filter(may_execute=True, may_fork=True),
        }
        for kind, own in self._filters.items():
            self._locks[kind] = kernel.Lock(kernel.landlock_ruleset(rules[kind]), own.program, own.places)

    # --- requests ----------------------------------------------------------------------------------------------------

    def script(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Run a Python program: descriptors are its source, standard input, output and errors."""
        source, *streams = fds
        bounds = _bounds(request)

        def body() -> NoReturn:
            programs.run_as_script(source)

        child = self._fork(body, "python", bounds, streams, [source])
        return self._report([child], watch([child], bounds, caller=self.caller))

    def calls(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Call a function of a Python program: descriptors are source, arguments, answers, output and errors."""
        source, calls, answers, *streams = fds
        bounds = _bounds(request)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

        def body() -> NoReturn:
            programs.answer_calls(str(request["entry"]), source, calls, answers)

        child = self._fork(body, "python", bounds, [nothing, *streams], [source, calls, answers])
        os.close(nothing)
        over = watch([child], bounds, caller=self.caller, progress=lambda: os.fstat(answers).st_size)
        return self._report([child], over)

    def tests(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Run tests in one process against a program in another: source, tests, verdict, output and errors."""
        source, tests, verdict, *streams = fds
        bounds = _bounds(request)
        entry = str(request["entry"])
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        to_tests, from_program = os.pipe()
        to_program, from_tests = os.pipe()

        def program() -> NoReturn:
            proxies.serve(entry, source, to_program, from_program)

        def test() -> NoReturn:
            proxies.run_tests(entry, tests, verdict, to_tests, from_tests)

        first = self._fork(program, "python", bounds, [nothing, *streams], [source, to_program, from_program])
        second = self._fork(
            test, "python", bounds, [nothing] * 3, [tests, verdict, to_tests, from_tests], user=self.jail.test_user
        )
        for fd in (nothing, to_tests, from_program, to_program, from_tests):
            os.close(fd)
        return self._report([first, second], watch([first, second], bounds, caller=self.caller, enough=second))

    def fork(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Fork and reap an empty process some times: what a run cannot be cheaper than. For the benchmark."""
        started = time.perf_counter()
        for _ in range(int(request["count"])):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.wait4(pid, 0)
        return {"seconds": time.perf_counter() - started}

    def install(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Put a binary where programs are started from: its descriptor, and the name it gets."""
        place = os.path.join(self.folder, os.path.basename(str(request["name"])))
        with suppress(FileNotFoundError):
            os.unlink(place)
        target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o555)
        _copy(fds[0], target)
        os.close(target)
        return {}

    def binary(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Run the installed program: descriptors are standard input, output and errors."""
        bounds = _bounds(request)
        if self.jail.tier == "D":
            return self._binary_without_walls(bounds, fds)
        if self._binary_filter is None:
            self._binary_filter = os.memfd_create("filter", 0)
            os.write(self._binary_filter, self._filters["binary"].program)
        memory = bounds.memory_mb << 20
        places = ",".join(map(str, self._filters["binary"].places))
        inherited = (10, 11, 12)  # away from 0 to 2, which become the program's streams
        arguments = [
            "launcher", *map(str, inherited), places or "0",
            str(-1 if self.jail.program_user is None else self.jail.program_user), str(bounds.hard_cpu_s),
            str(memory + (jail.BINARY_FENCE_MB << 20)), str(bounds.file_mb << 20), str(jail.MAX_OPEN_FILES),
            str(min(max(memory, 64 << 20), jail.MAX_STACK_BYTES)),
            str(jail.MAX_THREADS if self.jail.has_own_users else -1), os.path.join(self.folder, "program"),
        ]  # fmt: skip
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
        actions += [
            (os.POSIX_SPAWN_DUP2, self._locks["binary"].ruleset, inherited[0]),
            (os.POSIX_SPAWN_DUP2, self._binary_filter, inherited[1]),
            (os.POSIX_SPAWN_DUP2, self._failed[1], inherited[2]),
        ]
        launcher = os.path.join(self.folder, "launcher")
        usual = (signal.SIGPIPE, signal.SIGXFSZ)  # which Python ignores
        pid = os.posix_spawn(launcher, arguments, {}, file_actions=actions, setsigdef=usual)
        child = Child(pid=pid, pidfd=os.pidfd_open(pid))
        return self._report([child], watch([child], bounds, caller=self.caller))

    def _binary_without_walls(self, bounds: Bounds, fds: Sequence[int]) -> dict[str, Any]:
        program = os.path.join(self.folder, "program")

        def body() -> NoReturn:
            os.execve(program, [program], PROGRAM_ENVIRONMENT)

        child = self._fork(body, "binary", bounds, fds, [])
        return self._report([child], watch([child], bounds, caller=self.caller))

    def compile(self, request: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Run a compiler: descriptors are the source, the place for the binary, and its messages."""
        source, binary, messages = fds
        bounds = _bounds(request)
        folder = os.path.join(self.folder, "new")
        if self.jail.program_user is not None:
            os.chown(folder, self.jail.program_user, self.jail.program_user)
        output = os.path.join(folder, "program")
        command = [*map(str, request["command"]), "-o", output, "-"]
        environment = {**PROGRAM_ENVIRONMENT, "TMPDIR": folder}

        def body() -> NoReturn:
            os.chdir(folder)
            os.execve(command[0], command, environment)

        nothing = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        child = self._fork(body, "compiler", bounds, [source, nothing, messages], [])
        os.close(nothing)
        report = self._report([child], watch([child], bounds, caller=self.caller))
        if report["exits"][0] == 0:
            made = os.open(output, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            _copy(made, binary)
            os.close(made)
        shutil.rmtree(folder)
        os.mkdir(folder, 0o755)
        return report

    # --- processes ---------------------------------------------------------------------------------------------------

    def _fork(
        self,
        body: Callable[[], NoReturn],
        kind: str,
        bounds: Bounds,
        streams: Sequence[int],
        keep: Sequence[int],
        user: int | None = None,
    ) -> Child:
        pid = os.fork()
        if pid:
            return Child(pid=pid, pidfd=os.pidfd_open(pid))
        try:
            self._lock_up(kind, bounds, streams, keep, self.jail.program_user if user is None else user)
        except BaseException:  # noqa: BLE001 nothing of the program may run
            os.write(self._failed[1], b"x")
            os._exit(1)
        try:
            body()
        finally:
            os._exit(1)

    def _lock_up(
        self, kind: str, bounds: Bounds, streams: Sequence[int], keep: Sequence[int], user: int | None
    ) -> None:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        lock = self._locks.get(kind)  # None in tier D
        library = [] if self.library_fd is None else [self.library_fd]
        jail.close_others([*keep, *([] if lock is None else [lock.ruleset]), self._failed[1], *library])
        if kind == "compiler":
            os.setpgid(0, 0)  # its processes end together
        jail.limit(
            cpu_s=bounds.hard_cpu_s,
            memory_mb=bounds.memory_mb,
            file_mb=bounds.file_mb,
            is_own_user=self.jail.has_own_users,
            is_watched=self.jail.has_proc,
        )
        jail.become(user)
        if lock is None:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        else:
            lock.shut(os.getpid())
            os.close(lock.ruleset)
        os.close(self._failed[1])

    def _report(self, children: Sequence[Child], over: str | None) -> dict[str, Any]:
        self._sweep()
        with suppress(BlockingIOError):
            if os.read(self._failed[0], 1):
                raise RuntimeError("a layer of the jail could not be put on: nothing of the program has run")
        return {
            "over": over,
            "exits": [0 if one.was_stopped else os.waitstatus_to_exitcode(one.status or 0) for one in children],
            "cpu_s": max(child.cpu_s for child in children),
            "peak_mb": max(child.peak_mb for child in children),
        }

    def _sweep(self) -> None:
        """Make sure that nothing is left of a program, or end the slot."""
        for _ in range(200):
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    for pid in [-1] if self.jail.tier == "A" else _children():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    time.sleep(0.005)
            except ChildProcessError:
                break
        else:
            raise RuntimeError("processes of a program cannot be ended")
        if self.jail.has_scratch:
            jail.renew_scratch()


def _children() -> list[int]:
    """Return this process's children: orphans of a program's or a compiler's among them, since it is a subreaper."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # no /proc, or a kernel without this file
        return []


def _copy(source: int, target: int) -> None:
    """Copy a whole file without looking at it."""
    size, offset = os.fstat(source).st_size, 0
    while offset < size:
        offset += os.sendfile(target, source, offset, size - offset)


def _bounds(request: dict[str, Any]) -> Bounds:
    names = ("cpu_s", "wall_s", "memory_mb", "file_mb")
    return Bounds(**{name: request[name] for name in names}, calls=int(request.get("calls", 1)))


def _library_fd(box: jail.Jail) -> int | None:
    """Return a way into the standard library for users who cannot reach it by its path, as below root's home."""
    if box.program_user is None or box.tier == "A":
        return None
    child = os.fork()
    if child == 0:
        jail.become(box.program_user)
        os._exit(0 if os.access(os.path.join(jail.standard_library(), "os.py"), os.R_OK) else 1)
    if os.waitpid(child, 0)[1] == 0:
        return None
    fd = os.open(jail.standard_library(), os.O_PATH | os.O_DIRECTORY)
    sys.path[:] = [f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd}/lib-dynload"]
    sys.path_importer_cache.clear()
    return fd


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, MAX_FDS)
    if not message:
        return None
    request = json.loads(message)
    assert isinstance(request, dict)
    return request, fds


def main() -> None:
    """Serve requests until the caller closes its end."""
    wanted, lowest, folder, headers = sys.argv[1:5]
    for name in PRELOADED:
        __import__(name)
    control = socket.socket(fileno=os.dup(0))
    os.set_inheritable(control.fileno(), False)
    with suppress(OSError):  # root only: a look at a program that takes memory must not wait for its turn
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        box = jail.build(wanted, headers)
    except OSError as error:
        if lowest != "D":
            control.send(json.dumps({"why_not": str(error)}).encode())
            return
        box = jail.without_walls(str(error))
    slot = Slot(box, jail.BUILD if box.tier == "A" else folder, _library_fd(box), os.getppid())
    try:
        slot.prepare()
        if os.sched_getscheduler(0) == os.SCHED_RR:  # what it starts is as usual
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        if box.tier != "A":
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # what a compiler leaves comes here
        kernel.prctl(kernel.PR_SET_THP_DISABLE, 1)  # huge pages come faster than anybody can look
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # nobody who runs as its user may look into it
        os.environ.clear()
        os.environ.update(PROGRAM_ENVIRONMENT)
        if box.has_scratch:
            os.chdir(jail.SCRATCH)
        else:
            os.chdir("/")
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        jail.limit_all()
        with suppress(PermissionError):
            os.setgroups([])
        programs.prepare()
        gc.collect()
        gc.freeze()
        control.send(json.dumps({"tier": box.tier, "why_not": box.why_not, "pid": os.getpid()}).encode())
        while (received := _receive(control)) is not None:
            request, fds = received
            answer = getattr(slot, str(request["kind"]))(request, fds)
            for fd in fds:
                os.close(fd)
            control.send(json.dumps(answer).encode())
    except BaseException:  # noqa: BLE001 last words for whoever asks; the slot is over
        with suppress(OSError):
            control.send(json.dumps({"broken": traceback.format_exc()[-2_000:]}).encode())
    finally:
        if box.tier != "A":
            shutil.rmtree(folder, ignore_errors=True)  # the caller may be gone without having done it

"""Persistent worker processes that can be killed: where sympy and reasoning-gym look at what a model wrote.

Sits under ``math`` and ``logic``. One zygote process per task (``pool_worker``) loads its library once and forks
workers in milliseconds. Invariants: one task per worker at a time; a task over its deadline costs its worker's life,
never the caller's; nothing outlives the caller, not even its ``kill -9``; the caller gets no signal, no alarm, no
thread of ours; JSON bytes cross the pipe, never pickles. Every way a task can end is one of four values, never an
exception. Does not judge: what ``TimedOut`` or ``Died`` mean for a verdict is the caller's matter.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from verifiers.limits import (
    MAX_MESSAGE_BYTES,
    MAX_TASKS_PER_WORKER,
    STARVATION_FACTOR,
    TASK_DEADLINE_S,
    WORKER_MEMORY_MB,
    ZYGOTE_REPLY_S,
    ZYGOTE_START_S,
)

VERSION: Final = "1"

TASK_NAMES: Final = ("math_verify", "reasoning_gym", "compare", "probe")  # the registry itself lives in the worker
KILLED_BY_CPU_LIMIT: Final = f"killed by signal {int(signal.SIGXCPU)}"  # as the zygote words it
CPU_CLOCK_S: Final = 0.02  # the kernel counts a process's time in steps of 10 ms
PASSED_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")  # what Python itself may need; no secrets


@dataclass(frozen=True, slots=True)
class Done:
    """The task's answer, a JSON value, and the milliseconds it took, pipe included."""

    value: Any
    ms: float


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The task used up its deadline and the worker was killed."""

    ms: float


@dataclass(frozen=True, slots=True)
class TooBig:
    """The task ran into the memory limit, or its message into the byte limit; ``detail`` says which."""

    detail: str


@dataclass(frozen=True, slots=True)
class Died:
    """Our failure or a library's: the worker, or what starts workers, ended, or this machine was too busy to run it.

    ``detail`` holds the last words.
    """

    detail: str


Result = Done | TimedOut | TooBig | Died


class _Gone(Exception):
    """The process at the other end of a socket is gone, or broke the protocol; the text says how."""


class _Late(Exception):
    """No answer within the time given."""


class _Channel:
    """One end of a socket pair with a deadline on every read: length-prefixed JSON, bounded in size."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def send(self, body: bytes, fds: tuple[int, ...] = (), *, give_up_at: float) -> None:
        message = len(body).to_bytes(4, "big") + body
        try:
            self.socket.settimeout(max(give_up_at - time.monotonic(), 0.001))
            if fds:
                sent = socket.send_fds(self.socket, [message], fds)
                assert sent == len(message), "control messages fit the socket buffer"
            else:
                self.socket.sendall(message)
        except TimeoutError as error:
            raise _Late from error
        except OSError as error:
            raise _Gone(f"cannot write: {error}") from error

    def receive(self, *, give_up_at: float) -> Any:
        length = int.from_bytes(self._exactly(4, give_up_at), "big")
        if length > MAX_MESSAGE_BYTES:
            raise _Gone(f"it sent {length} bytes, allowed are {MAX_MESSAGE_BYTES}")
        return json.loads(self._exactly(length, give_up_at))

    def _exactly(self, count: int, give_up_at: float) -> bytes:
        buffer = bytearray()
        while len(buffer) < count:
            try:
                self.socket.settimeout(max(give_up_at - time.monotonic(), 0.001))
                chunk = self.socket.recv(min(count - len(buffer), 1 << 16))
            except TimeoutError as error:
                raise _Late from error
            except OSError as error:
                raise _Gone(f"cannot read: {error}") from error
            if not chunk:
                raise _Gone("it closed its socket")
            buffer += chunk
        return bytes(buffer)

    def has_something(self, within_s: float = 0.0) -> bool:
        """Return whether a read would not block, now or soon: for an idle worker that means it is gone."""
        poll = select.poll()  # select() cannot take descriptors above 1,023, and Ray processes have them
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(within_s * 1_000))

    def close(self) -> None:
        self.socket.close()


class _Zygote:
    """The process that forks and kills the workers of one task. Requests are one at a time."""

    def __init__(self, task: str) -> None:
        ours, theirs = socket.socketpair()
        self.task, self.channel = task, _Channel(ours)
        self._lock = threading.Lock()
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
            "PYTHONHASHSEED": "0",  # the same order of sets, so the same path through sympy, in every worker
            "OMP_NUM_THREADS": "1",  # a forked process must not inherit half of a thread pool
            "OPENBLAS_NUM_THREADS": "1",
            **{key: os.environ[key] for key in PASSED_ENVIRONMENT if key in os.environ},
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "verifiers.pool_worker", task, str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the caller
            )
        try:
            hello = self.channel.receive(give_up_at=time.monotonic() + ZYGOTE_START_S)
        except (_Gone, _Late) as error:
            self.close()
            reason = "did not start in time" if isinstance(error, _Late) else f"ended at start: {error}"
            raise _Gone(f"zygote of {task} {reason}") from error
        if "failed" in hello:
            self.close()
            raise _Gone(f"zygote of {task} cannot load its library: {hello['failed']}")

    def request(self, body: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
        with self._lock:
            give_up_at = time.monotonic() + ZYGOTE_REPLY_S
            try:
                self.channel.send(json.dumps(body).encode("ascii"), fds, give_up_at=give_up_at)
                return self.channel.receive(give_up_at=give_up_at)
            except BaseException:  # its late answer would meet the next request: from now on it counts as dead
                self.channel.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Kill the zygote; its workers die with it (PR_SET_PDEATHSIG), and their sockets are closed by us."""
        self.channel.close()
        self._process.kill()
        self._process.wait()


class _Worker:
    """One forked process, its socket, and how many tasks it has done."""

    def __init__(self, zygote: _Zygote, memory_mb: int, deadline_s: float) -> None:
        ours, theirs = socket.socketpair()
        self.zygote, self.channel, self.num_tasks = zygote, _Channel(ours), 0
        self.cpu_s = 0.0  # used up to its last answer
        with theirs:
            request = {"op": "fork", "memory_mb": memory_mb, "deadline_s": deadline_s}
            try:
                self.pid = int(zygote.request(request, (theirs.fileno(),))["pid"])
            except (_Gone, _Late):
                ours.close()
                raise

    def task_cpu_s(self) -> float | None:
        """Return the CPU seconds of the task under way, None where the system does not tell."""
        try:  # not reaped before we ask for it, so the id is still its own
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") - self.cpu_s

    def end(self) -> str:
        """Kill the worker with its process group and return how it had ended."""
        self.channel.close()
        try:
            return str(self.zygote.request({"op": "kill", "pid": self.pid})["ended"])
        except (_Gone, _Late):
            return "its zygote is gone too"  # then PR_SET_PDEATHSIG has killed it


class Pool:
    """Worker processes for the tasks in ``TASK_NAMES``; at most ``num_workers`` tasks run at once, others wait.

    ``deadline_s`` is CPU time of the task, so that a busy machine changes no verdict; where the system does not tell
    CPU times it is wall time. A task that waits for ``STARVATION_FACTOR`` times as long has ``Died``. ``memory_mb`` is
    on top of the loaded libraries. Use it from any thread; from asyncio through ``to_thread``. A context manager;
    ``close`` is final.

    Raises:
        ValueError: If a bound is not positive.
    """

    def __init__(
        self,
        num_workers: int = 2,
        deadline_s: float = TASK_DEADLINE_S,
        memory_mb: int = WORKER_MEMORY_MB,
        max_tasks_per_worker: int = MAX_TASKS_PER_WORKER,
    ) -> None:
        for name, value in (
            ("num_workers", num_workers),
            ("deadline_s", deadline_s),
            ("memory_mb", memory_mb),
            ("max_tasks_per_worker", max_tasks_per_worker),
        ):
            if value <= 0:
                raise ValueError(f"{name}={value} must be > 0")
        self.num_workers, self.deadline_s, self.memory_mb = num_workers, deadline_s, memory_mb
        self.max_tasks_per_worker = max_tasks_per_worker
        self._slots = threading.BoundedSemaphore(num_workers)
        self._lock = threading.Lock()  # guards the three below; never held while a process is waited for
        self._idle: dict[str, list[_Worker]] = {name: [] for name in TASK_NAMES}
        self._busy: set[_Worker] = set()
        self._is_closed = False
        self._zygotes: dict[str, _Zygote] = {}
        self._zygote_locks = {name: threading.Lock() for name in TASK_NAMES}
        self._owner_pid = os.getpid()
        _pools.add(self)

    def call(self, task: str, payload: Any) -> Result:
        """Return how the task ended on this payload, a JSON value.

        Raises:
            ValueError: If there is no such task, or the pool is closed or belongs to another process.
        """
        if task not in self._idle:
            raise ValueError(f"task={task!r} must be one of {', '.join(TASK_NAMES)}")
        if self._owner_pid != os.getpid():
            raise ValueError(f"this pool belongs to process {self._owner_pid}, not to its fork {os.getpid()}")
        body = json.dumps(payload).encode("ascii")  # escapes keep lone surrogates intact
        if len(body) > MAX_MESSAGE_BYTES:
            return TooBig(f"payload of {len(body)} bytes, allowed are {MAX_MESSAGE_BYTES}")
        with self._slots:
            if self._is_closed:
                raise ValueError("the pool is closed")
            try:
                worker = self._take(task)
            except (_Gone, _Late, OSError) as error:  # OSError: no descriptors or processes left on this machine
                return Died(f"no worker for {task}: {error or 'its zygote does not answer'}")
            return self._run(task, worker, body)

    def _run(self, task: str, worker: _Worker, body: bytes) -> Result:
        start = time.monotonic()
        give_up_at = start + self.deadline_s * STARVATION_FACTOR
        is_reusable = False
        try:
            worker.channel.send(body, give_up_at=give_up_at)
            if self._wait(worker, give_up_at):
                self._retire(worker)
                return TimedOut(_ms_since(start))
            reply = worker.channel.receive(give_up_at=give_up_at)
            worker.num_tasks += 1
            worker.cpu_s = reply.get("cpu_s", 0.0)
            is_reusable = "value" in reply and worker.num_tasks < self.max_tasks_per_worker
        except _Late:
            self._retire(worker)
            return Died(f"worker {worker.pid} of {task}: {_ms_since(start):.0f} ms without its share of CPU time")
        except _Gone as error:
            ended = self._retire(worker)
            if ended == KILLED_BY_CPU_LIMIT:  # its own limit was faster than we were
                return TimedOut(_ms_since(start))
            return Died(f"worker {worker.pid} of {task}: {error}; {ended}")
        except BaseException:  # KeyboardInterrupt in the caller: the worker's answer would meet the next task
            self._retire(worker)
            raise
        if is_reusable:
            self._give_back(task, worker)
        else:
            self._retire(worker)
        match reply:
            case {"value": value}:
                return Done(value, _ms_since(start))
            case {"too_big": str(detail)}:
                return TooBig(detail)
            case {"died": str(detail)}:
                return Died(f"worker {worker.pid} of {task}: {detail}")
            case _:
                raise AssertionError(f"a worker answered {reply!r}")

    def _wait(self, worker: _Worker, give_up_at: float) -> bool:
        """Wait until the worker answers or ends, or return True if it used up its CPU time. Raises _Late."""
        patience_s = self.deadline_s
        while not worker.channel.has_something(patience_s):
            used_s = worker.task_cpu_s()
            patience_s = 0.0 if used_s is None else self.deadline_s - used_s
            if patience_s <= CPU_CLOCK_S:
                return True
            if time.monotonic() > give_up_at:
                raise _Late
        return False

    def _take(self, task: str) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle[task].pop() if self._idle[task] else None
                if worker is not None:
                    self._busy.add(worker)
            if worker is None:
                return self._fork(task)
            if not worker.channel.has_something():
                return worker
            self._retire(worker)  # it died while idle

    def _fork(self, task: str) -> _Worker:
        """Return a new worker; a zygote that turns out to be dead is replaced once."""
        zygote = self._zygote(task)
        try:
            worker = _Worker(zygote, self.memory_mb, self.deadline_s)
        except (_Gone, _Late):
            worker = _Worker(self._zygote(task, instead_of=zygote), self.memory_mb, self.deadline_s)
        with self._lock:
            self._busy.add(worker)
        return worker

    def _zygote(self, task: str, instead_of: _Zygote | None = None) -> _Zygote:
        with self._zygote_locks[task]:
            zygote = self._zygotes.get(task)
            if zygote is not None and zygote is instead_of:
                zygote.close()
                zygote = None
            if zygote is None:
                self._zygotes.pop(task, None)
                if self._is_closed:
                    raise _Gone("the pool was closed meanwhile")
                zygote = self._zygotes[task] = _Zygote(task)
            return zygote

    def _give_back(self, task: str, worker: _Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._is_closed:
                self._idle[task].append(worker)
                return
        worker.end()

    def _retire(self, worker: _Worker) -> str:
        ended = worker.end()
        with self._lock:
            self._busy.discard(worker)
        return ended

    def pids(self) -> list[int]:
        """Return the ids of all processes of this pool, zygotes first: for tests and diagnosis."""
        with self._lock:
            workers = [*self._busy, *(worker for idle in self._idle.values() for worker in idle)]
        return [zygote.pid for zygote in self._zygotes.values()] + [worker.pid for worker in workers]

    def close(self) -> None:
        """Kill all processes of the pool and wait until they are gone; a task under way ends as ``Died``."""
        if self._owner_pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
        for task, lock in self._zygote_locks.items():
            with lock:
                self._close_task(task)

    def _close_task(self, task: str) -> None:
        with self._lock:
            idle, self._idle[task] = self._idle[task], []
            busy = [worker for worker in self._busy if worker.zygote.task == task]
        for worker in idle:
            worker.end()
        zygote = self._zygotes.pop(task, None)
        if zygote is not None:
            for worker in busy:  # its caller sees the end of the socket, and closes it
                with suppress(_Gone, _Late):
                    zygote.request({"op": "kill", "pid": worker.pid})
            zygote.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _abandon(self) -> None:
        """In a fork of the caller: let go of the sockets without a word, the processes are the caller's."""
        for zygote in self._zygotes.values():
            zygote.channel.close()
        for worker in (*self._busy, *(worker for idle in self._idle.values() for worker in idle)):
            worker.channel.close()


def _ms_since(start: float) -> float:
    return (time.monotonic() - start) * 1_000


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_default: Pool | None = None
_default_lock = threading.Lock()


def default_num_workers() -> int:
    """Return how many workers ``default_pool`` has: one per usable core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def default_pool() -> Pool:
    """Return the pool of this process, made at the first call; a fork of the process gets one of its own."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Pool(num_workers=default_num_workers())
        return _default


def close_default_pool() -> None:
    """Close the pool of this process, if there is one; the next ``default_pool()`` makes a new one."""
    global _default
    with _default_lock:
        pool, _default = _default, None
    if pool is not None:
        pool.close()


def _after_fork_in_child() -> None:
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()
    for pool in list(_pools):
        pool._abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(close_default_pool)

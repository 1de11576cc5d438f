"""Watching judged programs from outside: what they use, which limit they break, and their end.

Between ``slot``, which starts them, and the kernel, whose own limits stand behind as fences. Invariants: when ``watch``
returns, every process that it was given is over and reaped; a limit that was broken between two looks is seen at the
end. Knows the standard library only.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from verifiers.sandbox import jail

LONGEST_PAUSE_S: Final = 0.005  # between two looks at a program: they cost 0.5 % of its time (measured)
SHORTEST_PAUSE_S: Final = 0.001
FASTEST_GROWTH: Final = (
    4 << 30
)  # bytes per second that a program can touch at most: sets the next look (measured 2 to 4)
PAGE_BYTES: Final = resource.getpagesize()


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that is watched, and how it ended."""

    pid: int
    pidfd: int
    status: int | None = None  # of wait4
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    was_stopped: bool = False  # by us, since nothing more was wanted of it

    def ended(self) -> bool:
        """Reap it if it is over; return whether it is."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                self.cpu_s = usage.ru_utime + usage.ru_stime
                self.peak_mb = max(self.peak_mb, usage.ru_maxrss / 1024)
                os.close(self.pidfd)
        return self.status is not None

    def used_cpu_s(self) -> float:
        """Return the CPU time used so far, of all its threads."""
        if self.status is not None:
            return self.cpu_s
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # the kernel's MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED
        except OSError:  # it ended this moment
            return 0.0

    def look(self) -> tuple[int, int]:
        """Return the bytes that it has in memory now and its threads; 0 and 0 where that cannot be seen."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # from the third field on: a name may hold anything
            return int(fields[21]) * PAGE_BYTES, int(fields[17])
        except (OSError, IndexError):
            return 0, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may use, watched from outside; each of several ``calls`` may use as much time."""

    cpu_s: float
    wall_s: float
    memory_mb: int
    file_mb: int
    calls: int = 1

    @property
    def hard_cpu_s(self) -> int:
        """The kernel's own fence behind the watch, whole seconds."""
        return int(self.cpu_s * self.calls) + 2


def watch(
    children: Sequence[Child],
    bounds: Bounds,
    *,
    caller: int,
    progress: Callable[[], int] | None = None,
    enough: Child | None = None,
) -> str | None:
    """Wait until all have ended, or ``enough`` has; return the limit that was broken, after killing them, or None.

    ``caller`` is the process that waits for an answer: where it is not this one's parent any more, they are killed too.
    With several calls the time limits hold for each of them: they start anew whenever ``progress`` grows.
    """
    poll = select.poll()
    for child in children:
        poll.register(child.pidfd, select.POLLIN)
    started = begun = time.monotonic()
    cpu_before = [0.0] * len(children)
    seen = 0
    over: str | None = None
    pause = min(LONGEST_PAUSE_S, bounds.cpu_s, bounds.wall_s)
    while True:
        for fd, _ in poll.poll(max(pause, SHORTEST_PAUSE_S) * 1_000):
            poll.unregister(fd)
        if all([child.ended() for child in children]) or (enough is not None and enough.ended()):
            break
        if os.getppid() != caller:  # it is gone: nobody waits for an answer
            over = "caller"
            break
        now = time.monotonic()
        used = [child.used_cpu_s() for child in children]
        if progress is not None and (size := progress()) > seen and now - started < bounds.wall_s * bounds.calls:
            seen, begun, cpu_before = size, now, used
        cpu = max(after - before for after, before in zip(used, cpu_before, strict=True))
        room, threads = _room(children, bounds)
        if cpu > bounds.cpu_s or now - begun > bounds.wall_s:
            over = "cpu" if cpu > bounds.cpu_s else "wall"
        elif room < 0:
            over = "memory"
        elif threads > jail.MAX_THREADS:
            over = "threads"
        if over:
            break
        pause = min(bounds.cpu_s - cpu, bounds.wall_s - (now - begun), room / FASTEST_GROWTH, LONGEST_PAUSE_S)
    for child in children:
        child.was_stopped = over is None and not child.ended()
        while not child.ended():
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            select.select([child.pidfd], [], [], 0.5)
    if over is None and any(child.cpu_s > bounds.cpu_s * bounds.calls for child in children):
        over = "cpu"
    if over is None and any(child.peak_mb > bounds.memory_mb for child in children):
        over = "memory"  # it came and went between two looks
    return over


def _room(children: Sequence[Child], bounds: Bounds) -> tuple[int, int]:
    """Return the bytes that each child may still take at the least, and the threads of the one that has most."""
    room, most = bounds.memory_mb << 20, 0
    for child in children:
        if child.status is None:
            taken, threads = child.look()
            child.peak_mb = max(child.peak_mb, taken / (1 << 20))
            room, most = min(room, (bounds.memory_mb << 20) - taken), max(most, threads)
    return room, most

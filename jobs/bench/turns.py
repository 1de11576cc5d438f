"""Several process trees on one machine in turns: one works for a moment while the others are stopped.

What is to be compared shares good moments and bad ones of a machine that others use too, which rates of whole minutes
do not. Time of a tree is that of its turns alone (`Tree.at`). Trees are stopped by SIGSTOP, so what waits for a clock
(a sync that is due every second) comes a little early, by the turns; whoever compares such waits lets a tree run alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jobs.bench.hostile import below

TURN_S: Final = 2.0
LOOK_S: Final = 0.1  # between two looks whether a process has ended, or begun
ENGINE_TITLE: Final = "VLLM::"  # how vLLM names its processes: the core, and on a CPU its worker


@dataclass(slots=True)
class Tree:
    """A process and all below it, with its turns so far: when each began and ended, in Unix microseconds."""

    process: subprocess.Popen[bytes]
    has_begun: Callable[[], bool]  # whether it has loaded, and works or is about to
    watch: Watch
    turns: list[tuple[int, int]] = field(default_factory=list)
    _continued_us: int = field(default_factory=lambda: time.time_ns() // 1000)

    def stop(self) -> None:
        """End its turn; what it starts meanwhile is stopped, too."""
        stopped: set[int] = set()
        while new := {self.process.pid, *below(self.process.pid)} - stopped:
            _send(new, signal.SIGSTOP)
            stopped |= new
        self.turns.append((self._continued_us, time.time_ns() // 1000))

    def go_on(self) -> None:
        """Begin its next turn."""
        self._continued_us = time.time_ns() // 1000
        _send([*below(self.process.pid), self.process.pid], signal.SIGCONT)

    def has_ended(self) -> bool:
        """Return whether its first process has, and with it the turn."""
        if self.process.poll() is None:
            return False
        self.turns.append((self._continued_us, time.time_ns() // 1000))
        return True

    def at(self, moment_us: int) -> int:
        """Return how long it had worked at a moment, in microseconds: the same while it is stopped."""
        place = bisect_right(self.turns, (moment_us, 0))
        before = sum(end - begin for begin, end in self.turns[: max(0, place - 1)])
        if place == 0:
            return 0
        begin, end = self.turns[place - 1]
        return before + min(moment_us, end) - begin

    def kill(self) -> None:
        """Kill all of it that is left."""
        if self.process.poll() is None:
            _send([self.process.pid, *below(self.process.pid)], signal.SIGKILL)
            self.process.wait()


def take_turns(starts: Sequence[Callable[[], Tree]], limit_s: float) -> list[Tree]:
    """Start the trees one by one, each until it has begun, then let them work in turns until each has ended.

    Raises:
        TimeoutError: If one has not within the limit, of its own time.
    """
    trees: list[Tree] = []
    try:
        for start in starts:
            trees.append(start())
            _load(trees[-1], limit_s)
        living = [tree for tree in trees if tree.process.returncode is None]
        while living:
            for tree in list(living):
                tree.watch.look()  # while nobody works
                tree.go_on()
                if _wait(tree, TURN_S):
                    living.remove(tree)
                else:
                    tree.stop()
                if tree.at(tree.turns[-1][1]) > limit_s * 1e6:
                    raise TimeoutError(f"process {tree.process.pid} has not ended in {limit_s:g} s")
    finally:
        for tree in trees:
            tree.kill()
    return trees


def run_alone(start: Callable[[], Tree], limit_s: float) -> Tree:
    """Start one tree, and return once it has ended; it is never stopped.

    Raises:
        TimeoutError: If it has not within the limit.
    """
    tree = start()
    try:
        deadline = time.monotonic() + limit_s
        while not _wait(tree, TURN_S):
            tree.watch.look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {tree.process.pid} has not ended in {limit_s:g} s")
    finally:
        tree.kill()
    return tree


def _load(tree: Tree, limit_s: float) -> None:
    """Return once a tree has begun, and is stopped, or has ended.

    Raises:
        TimeoutError: If neither is so within the limit.
    """
    deadline = time.monotonic() + limit_s
    while not _wait(tree, LOOK_S):
        tree.watch.look()
        if tree.has_begun():
            tree.stop()
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {tree.process.pid} has not begun in {limit_s:g} s")


def _wait(tree: Tree, seconds: float) -> bool:
    """Return after so long, or once the tree has ended: then true."""
    deadline = time.monotonic() + seconds
    while not (has_ended := tree.has_ended()) and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left))
    return has_ended


def _send(pids: Sequence[int] | set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Watch:
    """Binds the processes of a tree to their cores, and notes what CPU time those outside of the engine use."""

    def __init__(self, pid: int, engine_cores: Sequence[int], other_cores: Sequence[int]) -> None:
        self._pid, self._engine_cores, self._other_cores = pid, engine_cores, other_cores
        self._looks: list[tuple[int, Mapping[int, float]]] = []  # (Unix microseconds, CPU seconds by process)
        self._engines: set[int] = set()  # ever seen: a process gets its title some time after its start
        self._titles: dict[int, str] = {}  # of the others, as they were last seen

    def look(self) -> None:
        """Bind what is new, and note the time of all."""
        pids = [self._pid, *below(self._pid)]
        self._titles |= {pid: title for pid in pids if (title := _command_line(pid))}
        engines = {pid for pid in pids if ENGINE_TITLE in self._titles.get(pid, "")}
        self._engines |= engines
        used: dict[int, float] = {}
        for pid in pids:
            with suppress(OSError, IndexError):
                if engines:
                    _bind(pid, self._engine_cores if pid in engines else self._other_cores)
                if pid not in engines:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self._looks.append((time.time_ns() // 1000, used))

    def seconds_since(self, begun_us: int) -> dict[str, float]:
        """Return the CPU seconds that were used after a moment, by the command lines of processes."""
        before: dict[int, float] = {}
        last: dict[int, float] = {}
        for at_us, used in self._looks:
            last |= used
            if at_us <= begun_us:
                before |= used
        found: dict[str, float] = {}
        for pid, seconds in last.items():
            if pid not in self._engines:
                title = self._titles.get(pid, "")
                found[title] = found.get(title, 0.0) + seconds - before.get(pid, 0.0)
        return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it ended this moment
        return ""


def _bind(pid: int, cores: Sequence[int]) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            if os.sched_getaffinity(int(thread)) != set(cores):
                os.sched_setaffinity(int(thread), cores)

"""A minder: a process that outlives its owner by a moment, and kills what the owner has started and left behind.

vLLM's engine core and its workers are processes of their own, and hold the GPU. They end by themselves when the actor
that started them does, unless they hang in a call, or are frozen: then the GPU is taken when the next incarnation wants
it (ray-project/ray#54364). No thread of theirs can see to that, so somebody else does. The minder is nobody's child, so
that whoever kills the owner's children, as Ray does, leaves it alone. Runs as a script, without this package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

POLL_S = 0.5  # between two looks at what the owner has started

Process = tuple[int, str]  # id and start time: ids are given again


@cache
def mind() -> None:
    """Have all processes that this one starts from now on killed once it is gone, however it ends."""
    script = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    subprocess.run(script, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


def started_at(pid: int) -> str | None:
    """Return when a process was started, in ticks since boot; None if it is gone, or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def family_of(pid: int) -> set[Process]:
    """Return the living descendants of a process, without this one: the minder itself is one for a moment."""
    found: set[Process] = set()
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return found
    for child in {int(word) for words in lists for word in words.split()} - {os.getpid()}:
        if (begun := started_at(child)) is not None:
            found |= {(child, begun), *family_of(child)}
    return found


def kill_left(family: set[Process]) -> None:
    """Kill those that still live, and what they have started since."""
    for pid, begun in family.union(*(family_of(pid) for pid, _ in family)):
        if started_at(pid) == begun:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def main(owner: int) -> None:
    """Watch the owner until it is gone, then kill what is left of its family."""
    begun = started_at(owner)
    if os.fork():  # the owner waits for this one, and the other is nobody's child
        return
    family: set[Process] = set()
    while begun is not None and started_at(owner) == begun:
        family = {one for one in family if started_at(one[0]) == one[1]} | family_of(owner)
        time.sleep(POLL_S)
    kill_left(family)


if __name__ == "__main__":
    main(int(sys.argv[1]))

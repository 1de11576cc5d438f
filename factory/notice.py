"""The notice that an engine's process is to end: SIGTERM, as a scheduler sends it before it takes a node away.

Ray leaves SIGTERM of an actor to a handler that runs in the main thread alone, and in an actor like ours that thread
never comes to it: a process that gets the signal goes on until it is killed. Python's own handlers need that thread,
too; those of ``faulthandler`` do not: they write to a file from wherever the signal arrives. What is written does not
matter, that something is does.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from threading import Thread


def on_termination(act: Callable[[], None]) -> None:
    """Have ``act`` called at the first SIGTERM, in a thread of its own; to be called once in a process, anywhere."""
    heard, said = os.pipe()
    os.set_blocking(said, False)  # a handler must never wait
    faulthandler.register(signal.SIGTERM, file=said, all_threads=False, chain=False)
    Thread(target=_wait, args=(heard, act), name="termination", daemon=True).start()


def _wait(heard: int, act: Callable[[], None]) -> None:
    os.read(heard, 1)
    act()

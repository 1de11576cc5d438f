"""What a command does on SIGTERM: the notice of a scheduler that takes a node or a job away, or of ``ray job stop``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Notice:
    """Whether SIGTERM came: an interrupt does not say by which signal, and Ray makes its own of one that it sees."""

    has_come: bool = False


@contextmanager
def termination_interrupts() -> Iterator[Notice]:
    """Have SIGTERM raise ``KeyboardInterrupt``, as Ctrl-C does; outside the main thread nothing is changed."""
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def interrupt(*_: Any) -> None:
        notice.has_come = True
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, former)

"""A guard inside vLLM's own processes: when the actor that started them is gone, they end.

Registered as a vLLM plugin, which every engine core and worker process loads. vLLM itself leaves an engine core behind
when its parent is killed with -9 (ray-project/ray#54364). Does nothing in processes that no engine of ours started.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

OWNER_VARIABLE: Final = "DISTILLATION_FACTORY_ENGINE_OWNER"  # process id of the actor; inherited by all that it starts
POLL_S: Final = 0.5


def end_with_parent() -> None:
    """Start the guard in a child of an engine actor; called by vLLM in each of its processes."""
    owner = os.environ.get(OWNER_VARIABLE)
    if owner is None or int(owner) == os.getpid():
        return
    # A thread and not PR_SET_PDEATHSIG: that one fires when the starting *thread* ends, and actors start from a pool.
    threading.Thread(target=_watch, args=(os.getppid(),), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)

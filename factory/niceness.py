"""How much of a busy CPU a role gets: the teacher's processes before those that judge.

Ray starts its workers with niceness 15 (`RAY_worker_niceness`), so that whatever else runs on a node comes before the
engine, whose loop feeds a GPU. A local Ray of ours starts them with 0. Plain code, for Linux.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

TEACHER: Final = 0  # engines, and the coordinator, for whose answers they wait
VERIFIER: Final = 10  # sympy and programs take what engines leave
BEHIND: Final = 4  # steps that verifiers stay behind whatever Ray gave to all
LAST: Final = 19


def verifier_niceness() -> int:
    """Return that of a verifier: behind the other roles also where these may not leave the niceness that Ray gave."""
    return min(LAST, max(VERIFIER, os.nice(0) + BEHIND))


def set_niceness(value: int) -> bool:
    """Give all threads of this process that niceness, and what they start from now on; False if it is not allowed.

    To be less nice takes a privilege (CAP_SYS_NICE) that containers often lack.
    """
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it ended this moment
            try:
                os.setpriority(os.PRIO_PROCESS, int(thread), value)
            except PermissionError:
                return False
    return True

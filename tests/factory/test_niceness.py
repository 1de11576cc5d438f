"""Engines come before what judges, and both as far as the system lets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, subprocess, sys, threading, time
from factory.niceness import VERIFIER, set_niceness
started = threading.Event()
threading.Thread(target=lambda: (started.set(), time.sleep(60)), daemon=True).start()
started.wait()
was_allowed = set_niceness(VERIFIER)
threads = [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")]
child = int(subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"], capture_output=True).stdout)
os.setuid(65534) if os.getuid() == 0 else None
print(json.dumps([was_allowed, threads, child, set_niceness(0), os.nice(0)]))
"""
BEHIND = """
import os, sys
from factory.niceness import set_niceness, verifier_niceness
os.nice(int(sys.argv[1]))
os.setuid(65534) if os.getuid() == 0 else None
set_niceness(verifier_niceness())
print(os.nice(0))
"""


def test_all_threads_and_children_get_it_and_what_is_not_allowed_is_left() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    was_allowed, threads, child, was_raised, now = json.loads(said)
    assert was_allowed
    assert set(threads) == {10}
    assert len(threads) >= 2
    assert child == 10
    assert (was_raised, now) == (False, 10)


@pytest.mark.parametrize(("given", "becomes"), [(0, 10), (5, 10), (6, 10), (7, 11), (15, 19), (19, 19)])
def test_a_verifier_stays_behind_what_ray_gave_to_all_without_any_privilege(given: int, becomes: int) -> None:
    mine = os.nice(0)
    if given < mine:
        pytest.skip(f"this process has a niceness of {mine} itself")
    command = [sys.executable, "-c", BEHIND, str(given - mine)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(said) == becomes

"""Whatever an engine's process has started is gone a moment after it, whichever way it went."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factory.minder import started_at
from jobs.bench.drill import is_alive, wait_until
from tests.runs import children_of

OWNER = """
import subprocess, sys
from factory.minder import mind
mind()
mind()
child = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('ready', flush=True); time.sleep(600)"
subprocess.run([sys.executable, "-c", child])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_started_is_killed_even_if_it_is_frozen(number: signal.Signals) -> None:
    other = subprocess.Popen(["sleep", "600"])
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    family: set[int] = set()
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        wait_until(lambda: len(children_of(owner.pid)) >= 2, 20, "a child and a grandchild")
        family = children_of(owner.pid)
        (minder,) = _minders(owner.pid)
        wait_until(lambda: (Path("/proc") / str(minder) / "stat").exists(), 5, "the minder")
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        before = _num_sleeps(minder)  # one of them it may be in, the look before the next is whole
        wait_until(lambda: _num_sleeps(minder) >= before + 2, 60, "the minder has looked at them")
        assert owner.poll() is None
        owner.send_signal(number)
        owner.wait()
        wait_until(lambda: not any(map(is_alive, family)), 10, f"{family} outlive their owner")
        wait_until(lambda: not is_alive(minder), 10, "the minder outlives them")
        assert is_alive(other.pid)
    finally:
        for process in (owner, other):
            process.kill()
            process.wait()
        for pid in filter(is_alive, family):
            os.kill(pid, signal.SIGKILL)


def _num_sleeps(pid: int) -> int:
    """Return how often a process has waited: a minder does so after each look."""
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def _minders(owner: int) -> list[int]:
    wanted = f"minder.py\0{owner}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line.endswith(wanted):
                found.append(int(entry.name))
    return found


def test_a_process_that_is_gone_has_no_start() -> None:
    child = subprocess.Popen(["sleep", "600"])
    begun = started_at(child.pid)
    assert begun is not None
    assert begun == started_at(child.pid)
    child.kill()
    wait_until(lambda: started_at(child.pid) is None, 5, "a zombie counts as gone")
    child.wait()
    assert started_at(child.pid) is None

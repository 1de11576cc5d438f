"""Launching: what trains ends with the command that started it, and holds its folder until then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factory.store import RunLock
from schemas.errors import RunLockedError

ROOT = Path(__file__).parents[3]
# A launcher that takes its time to end, as accelerate's does while it ends its workers.
SLOW = """
import os, pathlib, signal, sys, time
def stop(*_):
    while not pathlib.Path(sys.argv[1] + ".may-end").exists():
        time.sleep(0.02)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} ")
time.sleep(60)
"""
COMMAND = f"""
import pathlib, sys
from factory.store import RunLock
from jobs.students.launching import run
out = pathlib.Path(sys.argv[1])
with RunLock(out) as lock:
    run([sys.executable, "-c", {SLOW!r}, str(out / "ready")], [lock.fileno()])
"""


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _is_free(out: Path) -> bool:
    try:
        with RunLock(out):
            return True
    except RunLockedError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_trains_ends_with_its_command_and_its_folder_is_locked_until_then(how: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = subprocess.Popen([sys.executable, "-c", COMMAND, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (said := _read(out / "ready")).endswith(" ") and time.monotonic() < deadline:
        time.sleep(0.02)
    child, may_end = int(said), out / "ready.may-end"
    os.kill(command.pid, how)
    if how == signal.SIGKILL:
        command.wait(60)
        assert not _is_free(out)
        may_end.touch()
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(0.5)
        may_end.touch()
        assert command.wait(60) != 0
        assert not Path(f"/proc/{child}").exists()
    while not _is_free(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _is_free(out)

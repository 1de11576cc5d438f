"""Fault points: a process dies at the step that was asked for, once, and not without being told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from factory import faults
from factory.storage import write_atomically
from schemas.errors import ConfigError

WRITE = (
    "import sys\nfrom pathlib import Path\nfrom factory import faults\nfrom factory.storage import write_atomically\n"
    "faults.begin(faults.Role(sys.argv[1]))\n"
    "for number in range(3): write_atomically(Path(sys.argv[2]) / f'file-{number}', b'whole')\n"
)


def write_three(folder: Path, role: str, armed: Path) -> int:
    """Write three files in a child process of that role; return its exit code."""
    command = [sys.executable, "-c", WRITE, role, str(folder)]
    return subprocess.run(command, env={**os.environ, faults.VARIABLE: str(armed)}, check=False).returncode


@pytest.mark.parametrize(
    ("point", "is_there"),
    [("file_written", False), ("file_synced", False), ("file_renamed", True), ("file_folder_synced", True)],
)
def test_a_process_dies_right_after_the_step_the_nth_time_and_the_next_one_does_not(
    tmp_path: Path, point: str, is_there: bool
) -> None:
    folder, armed = tmp_path / "files", tmp_path / "armed"
    folder.mkdir()
    armed.mkdir()
    file = faults.arm(armed, f"committer.{point}", nth=2)
    assert write_three(folder, "driver", armed) == 0, "another role was told to die"
    for path in folder.iterdir():
        path.unlink()
    assert write_three(folder, "committer", armed) == -signal.SIGKILL
    assert faults.hit_file(file).exists()
    assert (folder / "file-0").read_bytes() == b"whole"
    assert (folder / "file-1").exists() == is_there
    assert not (folder / "file-2").exists()
    assert write_three(folder, "committer", armed) == 0, "it died twice"


@pytest.mark.parametrize("name", ["committer.file_renamd", "committer.segment_created", "coordinator.file_renamed"])
def test_a_point_that_there_is_not_is_refused_with_those_there_are(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"committer\.segment_deleted"):
        faults.arm(tmp_path, name)
    (tmp_path / name).write_text("1")
    monkeypatch.setenv(faults.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=rf"{name}: arms no known point; .*committer\.segment_deleted"):
        faults.begin(faults.Role.DRIVER)
    monkeypatch.setenv(faults.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        faults.begin(faults.Role.DRIVER)


def test_without_the_variable_nothing_is_armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    faults.arm(tmp_path, "driver.file_renamed")
    faults.begin(faults.Role.DRIVER)
    write_atomically(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"

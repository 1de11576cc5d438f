"""Model folders on nodes: copied once, whole, the right one, or an error that names node, path and what to do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from factory.staging import ready_teacher, stage
from factory.teachers import hash_model_folder
from schemas.config import VllmTeacher
from schemas.errors import NodeError

DYING = """
import os, signal, sys, threading, time
from pathlib import Path
def die():  # in the copying process, so that it is seen in time
    while not list(Path(sys.argv[2]).glob(".*.tmp")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=die, daemon=True).start()
"""
COPYING = """
import sys
from pathlib import Path
from factory.staging import stage
copy = stage(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
print(copy.stat().st_ino)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model folder, one file of which is a link, as in a cache of the Hub."""
    folder = tmp_path / "shared" / "teacher"
    (folder / "extra").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "blob").write_bytes(os.urandom(5 << 20))
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    (folder / "extra" / "notes.md").write_text("notes")
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_of_one_node_copy_once_and_the_copy_outlives_the_original(model: Path, tmp_path: Path) -> None:
    disk, revision = tmp_path / "disk", hash_model_folder(model)
    arguments = [sys.executable, "-c", COPYING, str(model), str(disk), revision]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({child.communicate(timeout=60)[0] for child in children}) == 1, "copied more than once"
    assert all(child.returncode == 0 for child in children)
    copy = stage(model, disk, revision)
    assert copy.parent == disk
    assert _files(copy) == _files(model)
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    shutil.rmtree(model)
    assert stage(model, disk, revision) == copy  # a later start, with the shared storage away


def test_a_killed_or_damaged_copy_is_made_anew(model: Path, tmp_path: Path) -> None:
    disk, revision = tmp_path / "disk", hash_model_folder(model)
    with (tmp_path / "blob").open("ab") as file:
        file.truncate(2 << 30)  # time to be killed in
    large = hash_model_folder(model)
    child = subprocess.run([sys.executable, "-c", DYING + COPYING, str(model), str(disk), large], check=False)
    assert child.returncode == -signal.SIGKILL
    with (tmp_path / "blob").open("ab") as file:
        file.truncate(5 << 20)
    assert not (disk / f"teacher-{large}").exists()
    copy = stage(model, disk, revision)
    (copy / "model.safetensors").write_bytes(b"short")
    assert _files(stage(model, disk, revision)) == _files(model)


def test_a_disk_without_room_names_node_folder_needed_and_free_bytes(model: Path, tmp_path: Path) -> None:
    with (model / "huge.bin").open("wb") as file:
        file.truncate(8 << 40)  # a hole: needs no room here
    with pytest.raises(NodeError) as raised:
        stage(model, tmp_path / "disk", hash_model_folder(model))
    needed = sum(len(body) for name, body in _files(model / "extra").items()) + (8 << 40) + (5 << 20) + 2
    words = (f"node {socket.gethostname()}", str(tmp_path / "disk"), f"needs {needed:,}", "bytes free")
    assert all(word in str(raised.value) for word in words)
    assert [path.suffix for path in (tmp_path / "disk").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_written_is_told_of(model: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("a file")
    with pytest.raises(NodeError, match="cannot be copied"):
        stage(model, tmp_path / "disk", hash_model_folder(model))


def test_a_node_without_the_model_or_with_another_says_what_to_do(model: Path, tmp_path: Path) -> None:
    revision = hash_model_folder(model)
    teacher = VllmTeacher(kind="vllm", model=str(model))
    assert ready_teacher(teacher, revision) == teacher
    with pytest.raises(NodeError, match="holds another model there") as raised:
        ready_teacher(teacher, "0" * 16)
    assert revision in str(raised.value)
    gone = teacher.model_copy(update={"model": str(tmp_path / "nowhere")})
    for here in (gone, gone.model_copy(update={"stage_to": str(tmp_path / "disk")})):
        with pytest.raises(NodeError, match="put it on storage that all nodes share") as raised:
            ready_teacher(here, revision)
        assert socket.gethostname() in str(raised.value)
        assert str(tmp_path / "nowhere") in str(raised.value)
    staged = ready_teacher(teacher.model_copy(update={"stage_to": str(tmp_path / "disk")}), revision)
    assert isinstance(staged, VllmTeacher)
    assert hash_model_folder(Path(staged.model)) == revision

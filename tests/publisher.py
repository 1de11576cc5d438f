"""Publishing processes that start fast, for tests that kill many of them.

``python -m tests.publisher`` imports the command once and forks a process for each line that it is given: what runs,
and what is killed, is the real command in a process of its own. One at a time. And what tests and drills ask of a
publication that was killed, or met a fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import factory.card
from factory.storage import write_atomically
from jobs.bench.drill import wait_until
from tests.hub import HubServer

REPO = "org/data"


class Done(NamedTuple):
    """How a process ended. ``code`` is negative where a signal ended it."""

    code: int
    out: str
    err: str


class Publisher:
    """The process that forks. Its environment is that of all: where the Hub is, is read at import.

    ``max_files`` in a commit, so that a few files are many, and come by a pull request.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, max_files: int = 80) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.publisher", str(folder), str(max_files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "HF_HOME": str(folder / "home")},
            cwd=Path(__file__).parent.parent,
            text=True,
        )

    def start(self, *arguments: str, token: str | None = None) -> int:
        """Start `factory publish` with these arguments; return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"arguments": arguments, "token": token}) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> Done:
        """Return how the process that was started last has ended."""
        code = int(self._line())
        return Done(code, (self._folder / "out").read_text(), (self._folder / "err").read_text())

    def run(self, *arguments: str, token: str | None = None) -> Done:
        """Start and wait."""
        self.start(*arguments, token=token)
        return self.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the forking process is gone"
        return line

    def stop(self) -> None:
        """End it; a process that it started has ended, or is killed by the test."""
        self._process.kill()
        self._process.wait()


@contextmanager
def publisher(folder: Path, environment: Mapping[str, str], *, max_files: int = 80) -> Iterator[Publisher]:
    """Yield a publisher for this Hub."""
    found = Publisher(folder, environment, max_files=max_files)
    try:
        yield found
    finally:
        found.stop()


def arguments(run: Path, *more: str) -> list[str]:
    """Return what publishes a run, its rows not being read back: two more processes for each publication."""
    return [str(run), "--repo", REPO, "--verify", "files", *more]


def require_one_version(hub: HubServer, run: Path, tag: str = "v1", commits: int = 1) -> None:
    """Assert that the repository holds the selection whole, in so many commits, and that nothing was sent in vain."""
    repo = hub.repo()
    assert repo is not None
    head = repo["refs"]["refs/heads/main"]
    tags = {ref: oid for ref, oid in repo["refs"].items() if ref.startswith("refs/tags/")}
    assert tags == {f"refs/tags/{tag}": head}
    assert len(history(repo)) == 1 + commits
    shards, tree = shards_of(run), tree_of(repo, head)
    assert shards.items() <= tree.items()
    others = {path for path in tree.keys() - shards.keys() if not path.startswith("figures/")}
    assert others == {"README.md", "manifest.json", "SHA256SUMS", ".gitattributes"}
    # Where all was stored and only the reply lost, huggingface_hub itself sends the same once more.
    lost = {record["sha256"] for record in hub.log() if record["fault"] == "lost" and "sha256" in record}
    in_vain = [record for record in hub.log() if record.get("was_held") and record["sha256"] not in lost]
    assert not in_vain, "a file was sent that the Hub held already"


def require_nothing_half_visible(hub: HubServer, run: Path) -> None:
    """Assert that whoever reads the branch or a tag gets all of the version's tables, or none."""
    repo = hub.repo()
    if repo is None:
        return
    shards = shards_of(run)
    for ref, oid in repo["refs"].items():
        found = shards.items() & tree_of(repo, oid).items()
        assert ref.startswith("refs/pr/") or found in (set(), set(shards.items())), ref
        assert not ref.startswith("refs/tags/") or found


def shards_of(run: Path) -> dict[str, str]:
    """Return the sha256 of every file that the selection's manifest names."""
    manifest = json.loads((run / "tables" / "default" / "manifest.json").read_text())
    return {shard["name"]: shard["sha256"] for shard in manifest["files"]}


def tree_of(repo: dict[str, Any], oid: str) -> dict[str, str]:
    """Return the sha256 of every file of a commit."""
    return {path: entry["sha256"] for path, entry in repo["commits"][oid]["tree"].items()}


def history(repo: dict[str, Any]) -> list[str]:
    """Return the commits of the branch, newest first."""
    oid, found = repo["refs"]["refs/heads/main"], []
    while oid is not None:
        found.append(oid)
        oid = repo["commits"][oid]["parent"]
    return found


def publish_killed_at(hub: HubServer, forker: Publisher, command: list[str], number: int, kind: str) -> bool:
    """Publish, and kill -9 the process when its request of that number arrives; return whether there was one."""
    hub.order({"at": number, "kind": kind})
    pid = forker.start(*command)
    wait_until(lambda: hub.is_held() or not lives(pid), 60, "the request to be held")
    is_held = hub.is_held()
    if is_held:
        os.kill(pid, signal.SIGKILL)
    done = forker.wait()
    assert done.code == (-signal.SIGKILL if is_held else 0), done.err
    hub.order()
    return is_held


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


FAULTS: dict[str, dict[str, Any]] = {
    "429": {
        "kind": "429",
        "headers": {"RateLimit": '"api";r=0;t=0', "RateLimit-Policy": '"fixed window";"api";q=9;w=9'},
    },
    "412": {"kind": "412"},
    "503": {"kind": "503"},
    "cut": {"kind": "cut"},
    "lost": {"kind": "lost"},
}


def _keep_cards(folder: Path) -> None:
    """Have a card made once for all processes: it is a function of what it is named by, and costs half a second."""
    make = factory.card.build_card

    def build_card(path: Path, selection: str, *, repo: str | None = None) -> factory.card.Card:
        manifest = (path / "tables" / selection / "manifest.json").read_bytes()
        kept = folder / f"card-{hashlib.sha256(manifest + repr(repo).encode()).hexdigest()}"
        if not kept.exists():
            card = make(path, selection, repo=repo)
            write_atomically(kept, pickle.dumps(card))
        found: factory.card.Card = pickle.loads(kept.read_bytes())
        return found

    factory.card.build_card = build_card


def _serve(folder: Path, max_files: int) -> None:
    # Imported before the fork: what the command would import.
    import matplotlib.backends.backend_agg
    import matplotlib.style

    import factory.publish
    import factory.publish_source
    from jobs import cli

    assert matplotlib.backends.backend_agg
    assert matplotlib.style
    assert factory.publish_source
    _keep_cards(folder)
    factory.publish.MAX_FILES_PER_COMMIT = max_files  # type: ignore[misc]
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if asked["token"] is not None:
                os.environ["HF_TOKEN"] = asked["token"]
            sys.argv = ["factory", "publish", *asked["arguments"]]
            try:
                cli.main()
            except SystemExit as ended:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code if isinstance(ended.code, int) else 0)
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))

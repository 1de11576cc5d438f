"""Publishing processes that start fast, for tests that kill many of them.

``python -m tests.publisher`` imports the command once and forks a process for each line that it is given: what runs, and
what is killed, is the real command in a process of its own. One at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """How a process ended. ``code`` is negative where a signal ended it."""

    code: int
    out: str
    err: str


class Publisher:
    """The process that forks. Its environment is that of all: where the Hub is, is read at import."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.publisher", str(folder)],
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
def publisher(folder: Path, environment: Mapping[str, str]) -> Iterator[Publisher]:
    """Yield a publisher for this Hub."""
    found = Publisher(folder, environment)
    try:
        yield found
    finally:
        found.stop()


def _serve(folder: Path) -> None:
    import factory.hubclient
    import factory.publish
    import factory.publish_source
    from jobs import cli

    assert factory.hubclient, "imported before the fork"
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
    _serve(Path(sys.argv[1]))

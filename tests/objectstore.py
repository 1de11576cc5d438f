"""A real S3 server on loopback, `moto`, in a process of its own; and what tests do with it.

``python -m tests.objectstore PORT`` serves. Requests are served one at a time: moto looks whether an object is there,
then writes it, and would let two conditional puts through between; a real store does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import free_port

BUCKET = "runs"


class S3Server:
    """The server of one test session, and the environment in which it is found."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        """Address that clients are given."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start with an empty bucket."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.objectstore", str(self.port)],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent,
            )
        deadline = time.monotonic() + 60
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
        while True:
            try:
                urllib.request.urlopen(request, timeout=10).close()
                return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, self._log.read_text()[-2000:]
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)

    def pause(self) -> None:
        """Answer nobody until ``go_on``: connections are taken, and nothing comes."""
        assert self._process is not None
        os.kill(self._process.pid, 19)

    def go_on(self) -> None:
        """Answer again."""
        assert self._process is not None
        os.kill(self._process.pid, 18)

    def stop(self) -> None:
        """End the server."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Yield a server; this process and its children find it in the environment."""
    server = S3Server(log)
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()
        for name in server.environment:
            del os.environ[name]
        os.environ.update(before)


def _serve(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def serve(environ: Any, start_response: Any) -> Any:
        with one_at_a_time:
            return application(environ, start_response)

    run_simple("127.0.0.1", port, serve, threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

"""A real S3 server on loopback, `moto`, in a process of its own; and what tests do with it.

``python -m tests.objectstore PORT`` serves. Requests are served one at a time: moto looks whether an object is there,
then writes it, and would let two conditional puts through between; a real store does not.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from factory import objects
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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have nobody answered: connections are taken, and nothing comes."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the server."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Yield a server; this process and its children find it in the environment."""
    server = S3Server(log)
    try:
        with environment(server.environment):
            yield server
    finally:
        server.stop()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment, and none other of AWS; connections are made anew."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    objects.forget_connections()
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)
        objects.forget_connections()


class Reply(NamedTuple):
    """What a server answers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {"ETag": '"e"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


Answer = Callable[[str, str, Mapping[str, str], bytes], Reply | None]  # None: the connection is closed


@contextmanager
def odd_s3_server(answer: Answer) -> Iterator[str]:
    """Yield the address of a server that answers each request (method, path, headers, body) by ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = answer(self.command, self.path, dict(self.headers.items()), body)
            self.close_connection = True
            if found is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(found.status)
            for name, value in {"Content-Length": str(len(found.body)), **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body if self.command != "HEAD" else b"")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def forwarded(server: S3Server, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
    """Return what the server answers to a request that another one got."""
    sent = {"Content-Type": "application/octet-stream", **headers}  # else urllib says that it is a form
    request = urllib.request.Request(f"{server.endpoint}{path}", body or None, sent, method=method)
    try:
        with urllib.request.urlopen(request) as reply:
            return Reply(reply.status, reply.read(), dict(reply.headers.items()))
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read(), dict(error.headers.items()))


def fault(status: int, code: str) -> Reply:
    """Return what S3 says of a request that it refuses."""
    return Reply(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so it is</Message></Error>".encode())


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

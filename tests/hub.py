"""A stand-in for the Hugging Face Hub on loopback, in a process of its own, with faults to order.

``python -m tests.hub PORT FOLDER`` serves; state lies in the folder and survives restarts. It is our reading of what
`huggingface_hub` and `datasets` ask for: a result against it is called "against a local stand-in". Blobs are given out
under another host name (localhost), as the Hub's are: a client drops headers of a redirect on the same host.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.hubanswers import ROUTES, WRITER, Hub, Refused, Reply, State
from tests.servers import free_port


class Faults:
    """What goes wrong, and when. Each fault strikes once, at the ``at``-th request, or the ``nth`` that it matches.

    429, 412, 503, 401, ...: the answer, nothing done. ``cut``: the connection ends in the middle of the request's body,
    or, where it has none, of the answer's. ``lost``: done, and no answer. ``hold``, ``hold_done``: nobody answers until
    released, before or after it was done; then the connection ends. ``pause``: held, then answered as if nothing was.
    """

    def __init__(self) -> None:
        self.ordered: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.held, self.released = threading.Event(), threading.Event()
        self.count = 0

    def order(self, faults: list[dict[str, Any]]) -> None:
        with self.lock:
            self.ordered, self.count = [{"seen": 0, **fault} for fault in faults], 0
            self.released.set()  # whoever is still held from before
            self.held, self.released = threading.Event(), threading.Event()

    def next(self, method: str, path: str) -> tuple[int, dict[str, Any] | None]:
        with self.lock:
            self.count += 1
            for fault in self.ordered:
                if fault.get("method", method) == method and re.search(fault.get("path", ""), path):
                    fault["seen"] += 1
                    if self.count == fault.get("at") or fault["seen"] == fault.get("nth"):
                        return self.count, fault
            return self.count, None


def make_handler(state: State, hub: Hub, faults: Faults) -> type[BaseHTTPRequestHandler]:
    log_lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

        def _answer(self) -> None:
            self._record: dict[str, Any] | None = None  # of the request, until it is in the log
            self._left: int | None = int(self.headers.get("Content-Length") or 0)
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self._left = None
            path, _, query = self.path.partition("?")
            if path.startswith("/-/"):
                self._send(self._control(path), None)
                return
            number, fault = faults.next(self.command, path)
            kind = None if fault is None else str(fault["kind"])
            record = self._record = {"n": number, "method": self.command, "path": path, "fault": kind}
            try:
                self._serve(path, query, fault, kind, record)
            finally:
                self._note()

        def _note(self) -> None:
            """Write the request into the log, before its client can know that it was answered."""
            record, self._record = self._record, None
            if record is not None:
                with log_lock, (state.folder / "requests.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")

        def _serve(self, path: str, query: str, fault: Any, kind: str | None, record: dict[str, Any]) -> None:
            if kind == "cut" and (self._left is None or self._left > 0):
                self.rfile.read1((self._left or 2) // 2)
                self._hang_up()
                return
            body = self._body()
            if kind in ("hold", "pause"):
                self._hold()
            if kind == "hold":
                self._hang_up()
                return
            if kind == "delay":
                time.sleep(fault["s"])
            if kind is not None and kind.isdigit():
                headers = {str(key): str(value) for key, value in fault.get("headers", {}).items()}
                reply = Reply({"error": f"{kind} to order"}, int(kind), headers)
            else:
                reply = self._call(path, query, body, record)
            record["status"] = reply.status
            if kind in ("lost", "hold_done"):
                if kind == "hold_done":
                    self._hold()
                self._hang_up()
                return
            self._send(reply, kind)

        def _call(self, path: str, query: str, body: bytes, record: dict[str, Any]) -> Reply:
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, name in ROUTES:
                match = re.fullmatch(pattern, path)
                if wanted == method and match is not None:
                    given = {key: value for key, value in match.groupdict().items() if value is not None}
                    if "rev" in given and name not in ("commit", "tag", "branch", "tree"):
                        given["rev"] = urllib.parse.unquote(given["rev"])
                    asked = dict(urllib.parse.parse_qsl(query))
                    headers = {key.lower(): value for key, value in self.headers.items()}
                    try:
                        with state.lock:
                            found: Reply = getattr(hub, name)(
                                **given, headers=headers, query=asked, body=body, note=record
                            )
                    except Refused as refused:
                        told = {"X-Error-Message": str(refused), "X-Error-Code": refused.code}
                        return Reply({"error": str(refused)}, refused.status, {k: v for k, v in told.items() if v})
                    return found
            return Reply({"error": "Not found"}, 404)

        def _body(self) -> bytes:
            if self._left is not None:
                return self.rfile.read(self._left)
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _hold(self) -> None:
            released = faults.released
            faults.held.set()
            released.wait(120)

        def _hang_up(self) -> None:
            self._note()
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, reply: Reply, kind: str | None) -> None:
            self._note()
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
            if kind == "cut":
                self.wfile.flush()
                self._hang_up()

        def _control(self, path: str) -> Reply:
            body = json.loads(self._body() or b"null")
            match path:
                case "/-/faults":
                    faults.order(body)
                case "/-/held":
                    return Reply({"held": faults.held.is_set()})
                case "/-/reset":
                    faults.order([])
                    state.reset()
                    (state.folder / "requests.jsonl").unlink(missing_ok=True)
            return Reply({})

        do_GET = do_HEAD = do_PUT = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: there is a log of requests."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where a client was killed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class HubServer:
    """What tests do with the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, token: str | None = WRITER) -> dict[str, str]:
        """Return what a publishing process needs to find the stand-in; Xet is off, a proxy is not asked."""
        found = {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return found | {"NO_PROXY": "127.0.0.1,localhost"} | ({"HF_TOKEN": token} if token else {})

    def start(self) -> None:
        """Start, with what the folder holds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.hub", str(self.port), str(self.folder)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parent.parent)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.control("held")
                return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the stand-in does not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def control(self, name: str, body: Any = None) -> Any:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.endpoint}/-/{name}", data=data, timeout=30) as reply:
            return json.load(reply)

    def order(self, *faults: Mapping[str, Any]) -> None:
        """Order these faults, in place of those before; requests are counted anew."""
        self.control("faults", list(faults))

    def is_held(self) -> bool:
        return bool(self.control("held")["held"])

    def post(self, path: str, data: bytes, token: str = WRITER) -> None:
        """Send a request as a client of somebody else would."""
        request = urllib.request.Request(self.endpoint + path, data, {"Authorization": f"Bearer {token}"})
        urllib.request.urlopen(request, timeout=30).close()

    def change(self, repo: Mapping[str, Any]) -> None:
        """Change a repository behind everybody's back."""
        path = self.folder / "repos" / f"{repo['id'].replace('/', '--')}.json"
        path.write_text(json.dumps(repo))

    def log(self) -> list[dict[str, Any]]:
        """Return every request since the last reset."""
        path = self.folder / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def repo(self, repo_id: str = "org/data") -> dict[str, Any] | None:
        """Return the state of a repository; None where there is none."""
        path = self.folder / "repos" / f"{repo_id.replace('/', '--')}.json"
        return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def hub_server(folder: Path) -> Iterator[HubServer]:
    server = HubServer(folder)
    try:
        yield server
    finally:
        server.stop()


def _serve(port: int, folder: Path) -> None:
    state = State(folder, port)
    _Server(("127.0.0.1", port), make_handler(state, Hub(state), Faults())).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))

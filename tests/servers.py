"""Real HTTP servers on loopback, for tests of the openai teacher: vLLM's own, and one that misbehaves to order."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.bench.drill import is_alive, wait_until
from schemas.config import EngineOptions
from tests.runs import children_of

KEY_VARIABLE = "FACTORY_TEST_TEACHER_KEY"
KEY = "the-right-key"


def free_port() -> int:
    """Return a port on which nothing listens, below those that the system gives to whoever asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def vllm_server(model: str, options: EngineOptions, *more: str) -> Iterator[str]:
    """Yield the base URL of a vLLM server for ``model`` under the name `demo`; its key is in ``KEY_VARIABLE``.

    Started as a module: the command `vllm` of the CPU build does not find its own version.
    """
    port = free_port()
    arguments = {
        "model": model,
        "served-model-name": "demo",
        "host": "127.0.0.1",
        "port": port,
        "max-model-len": options.max_model_len,
        "max-num-seqs": options.max_num_seqs,
        "max-num-batched-tokens": options.max_num_batched_tokens,
        "api-key": KEY,
        "generation-config": "vllm",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *more]
    command += [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    os.environ[KEY_VARIABLE] = KEY
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        children: set[int] = set()
        try:
            wait_until(lambda: server.poll() is not None or _answers(port), 300, "the vLLM server does not answer")
            assert server.poll() is None, log.read_text()[-3000:]
            children = children_of(server.pid)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.environ.pop(KEY_VARIABLE, None)
            server.send_signal(signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            for pid in filter(is_alive, children):
                os.kill(pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Exchange:
    """One request that a server got, and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        self._handler = handler
        self.body = body
        self.headers = handler.headers
        self.number = number  # of completions asked for so far, from 1
        self.at = time.monotonic()

    def status(self, status: int, text: str = "", **headers: str) -> None:
        """Answer with a status and a text."""
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Length", str(len(text.encode())))
        self._handler.end_headers()
        self._handler.wfile.write(text.encode())

    def begin(self) -> None:
        """Begin a stream of events."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream")
        self._handler.end_headers()

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def event(self, **choice: Any) -> None:
        """Send one event with one choice."""
        self.raw(b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n")

    def end(self, num_tokens: int, num_prompt_tokens: int = 5) -> None:
        """Send usage, and the end of the stream."""
        usage = {"completion_tokens": num_tokens, "prompt_tokens": num_prompt_tokens}
        self.raw(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n")

    def answer(self, text: str = "It is \\boxed{42}.", *, finish_reason: str = "stop") -> None:
        """Answer as a good server would, a word at a time."""
        self.begin()
        words = text.split(" ")
        for place, word in enumerate(words):
            self.event(delta={"content": word if place == 0 else f" {word}"}, finish_reason=None)
        self.event(delta={}, finish_reason=finish_reason)
        self.end(len(words))


@contextmanager
def odd_server(
    behave: Callable[[Exchange], None], *, models: object = ("odd",), status: int = 200
) -> Iterator[tuple[str, list[Exchange]]]:
    """Yield base URL and the exchanges so far of a server that answers each completion by ``behave``.

    ``models`` are the names that it lists, or the text that it gives in their place, with ``status``.
    """
    exchanges: list[Exchange] = []
    counting = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = {"data": [{"id": name} for name in models]} if isinstance(models, tuple) else None
            text = json.dumps(listed) if listed is not None else str(models)
            Exchange(self, {}, 0).status(status, text)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with counting:
                exchange = Exchange(self, body, len(exchanges) + 1)
                exchanges.append(exchange)
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has heard enough
                behave(exchange)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", exchanges
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

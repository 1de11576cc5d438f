"""The process behind ``verifiers.pool``: a zygote that loads one library and forks workers from it.

Run by ``python -m verifiers.pool_worker TASK CALLER_PID CONTROL_FD``, never imported by a caller. The zygote is
single-threaded and answers three requests on its control socket: ``fork`` (with the worker's socket attached), ``kill``
(the worker's process group, then reap it) and end of file. It is the one who reaps, so a kill can never hit a recycled
process id. Workers take JSON tasks from their socket, one at a time.

Invariant: an expected failure is a value; any other exception ends the worker with its traceback in the last message,
so that no bug of ours or of a library becomes a verdict. Tasks come from the closed list ``TASKS``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from verifiers.limits import MAX_MESSAGE_BYTES

HEADER: Final = struct.Struct("!I")  # length of the JSON bytes that follow
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
MAX_DETAIL_CHARS: Final = 2_000  # of a traceback: its last lines name the failure (guess)

Task = Callable[[Any], Any]


def load_math_verify() -> Task:
    """Return the task that compares two boxed answers; loads math-verify."""
    from verifiers import task_math_verify

    return task_math_verify.load()


def load_reasoning_gym() -> Task:
    """Return the task that runs a reviewed scorer; loads reasoning-gym."""
    from verifiers import task_reasoning_gym

    return task_reasoning_gym.load()


def load_compare() -> Task:
    """Return the task that compares chunks of answers."""
    from verifiers import task_compare

    return task_compare.load()


def load_probe() -> Task:
    """Return a task for tests of the pool itself: it misbehaves as told, and takes no code."""
    hoard: list[bytearray] = []

    def probe(payload: Any) -> Any:
        match payload:
            case ["echo", value]:
                return value
            case ["pid"]:
                return os.getpid()
            case ["loop"]:
                while True:
                    pass
            case ["big_power"]:  # one C call that no signal handler could interrupt
                return len(str(7 ** (10**9))) > 0
            case ["hog"]:
                while True:
                    hoard.append(bytearray(16 * 1_048_576))
            case ["raise"]:
                raise KeyError("probe")
            case ["exit", int(status)]:
                os._exit(status)
            case ["child"]:  # leaves a grandchild behind; returns its pid
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                return pid
            case ["write", str(path)]:
                Path(path).write_text("x" * 10, encoding="utf-8")
                return True
            case _:
                raise ValueError(f"unknown probe {payload!r}")

    return probe


TASKS: Final[dict[str, Callable[[], Task]]] = {
    "math_verify": load_math_verify,
    "reasoning_gym": load_reasoning_gym,
    "compare": load_compare,
    "probe": load_probe,
}


def send(channel: socket.socket, value: Any) -> None:
    """Write one JSON message."""
    body = json.dumps(value).encode("ascii")
    channel.sendall(HEADER.pack(len(body)) + body)


def receive(channel: socket.socket) -> Any:
    """Return the next JSON message.

    Raises:
        EOFError: If the other side is gone.
    """
    (length,) = HEADER.unpack(receive_exactly(channel, HEADER.size))
    assert length <= MAX_MESSAGE_BYTES, f"message of {length} bytes"
    return json.loads(receive_exactly(channel, length))


def receive_exactly(channel: socket.socket, count: int) -> bytes:
    """Return ``count`` bytes. Raises EOFError if the other side closes before."""
    chunks = []
    while count:
        chunk = channel.recv(min(count, 1 << 16))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def limit_process(memory_mb: int) -> None:
    """Limit the memory of this worker, and forbid files and core dumps: it only computes.

    The address space is bounded above what the libraries already take, because numpy alone maps several hundred MB.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # Python ignores SIGXFSZ: a write fails with EFBIG
    sys.dont_write_bytecode = True
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere than on Linux RLIMIT_AS means little
        mapped = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limit = mapped + memory_mb * 1_048_576
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_cpu(deadline_s: float) -> None:
    """Let the kernel end this process shortly after the deadline, should its caller be unable to."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + deadline_s) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def work(task: Task, channel: socket.socket, memory_mb: int, deadline_s: float) -> None:
    """Answer tasks until the caller closes the socket. Returns when the worker must end."""
    limit_process(memory_mb)
    while True:
        try:
            payload = receive(channel)
        except (EOFError, ConnectionError):
            return
        limit_cpu(deadline_s)
        try:
            value = task(payload)
            send(channel, {"value": value, "cpu_s": time.process_time()})
        except MemoryError:  # RLIMIT_AS is ours: what the task asked for does not fit
            send(channel, {"too_big": "memory limit"})
            return
        except BaseException:  # noqa: BLE001 -- reported and fatal: see the module's invariant
            send(channel, {"died": traceback.format_exc()[-MAX_DETAIL_CHARS:]})
            return


def become_worker(task: Task, channel: socket.socket, request: dict[str, Any], zygote_pid: int) -> None:
    """Turn this freshly forked process into a worker; never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == zygote_pid:  # else the zygote died before the line above
            work(task, channel, request["memory_mb"], request["deadline_s"])
        status = 0
    except (BrokenPipeError, ConnectionError):
        status = 0  # the caller left while we answered
    finally:
        os._exit(status)


def kill(pid: int, living: set[int]) -> str:
    """Kill a worker and whatever it started, reap it, and return how it had ended."""
    if pid not in living:
        return "killed before"
    living.discard(pid)
    try:
        os.killpg(pid, signal.SIGKILL)  # not reaped yet: the id is still its own
    except (ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)  # it had no time to make its group
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"


def serve(task: Task, control: socket.socket, caller_pid: int) -> None:
    """Fork and kill workers as asked until the caller closes the control socket or dies."""
    zygote_pid = os.getpid()
    living: set[int] = set()  # forked and not yet reaped: only such an id is sure to be a worker's
    while os.getppid() == caller_pid:
        # A forked child of the caller may hold the socket open: end of file alone would not tell that it died.
        if not select.select([control], [], [], 0.5)[0]:
            continue
        data, fds, _, _ = socket.recv_fds(control, HEADER.size, 1)
        if not data:
            return
        data += receive_exactly(control, HEADER.size - len(data)) if len(data) < HEADER.size else b""
        request = json.loads(receive_exactly(control, HEADER.unpack(data)[0]))
        if request["op"] == "kill":
            send(control, {"ended": kill(request["pid"], living)})
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            become_worker(task, socket.socket(fileno=fds[0]), request, zygote_pid)
        os.close(fds[0])
        living.add(pid)
        send(control, {"pid": pid})


def main() -> None:
    """Load the library named on the command line, say so, and serve."""
    name, caller_pid, control_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    logging.disable(logging.CRITICAL)  # libraries warn about every odd answer
    try:
        task = TASKS[name]()
    except Exception:  # noqa: BLE001 -- told to the caller, who reports the pool as broken
        send(control, {"failed": traceback.format_exc()[-MAX_DETAIL_CHARS:]})
        return
    gc.collect()
    gc.freeze()  # workers share these pages until they write to them
    send(control, {"ready": True})
    try:
        serve(task, control, caller_pid)
    except (EOFError, ConnectionError):
        return  # the caller is gone; workers follow by PR_SET_PDEATHSIG and end of file


if __name__ == "__main__":
    main()

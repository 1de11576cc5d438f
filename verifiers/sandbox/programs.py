"""What runs inside a judged process: a Python program reading standard input, or one whose functions are called.

Every function here is the end of its process: it never returns to the zygote. The model's code shares this process and
may patch all of it; nothing here knows an expected value, and what it writes is an answer, not a verdict. How it ended
is told by the exit status. Knows the standard library only.
"""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import io
import json
import os
import sys
import threading
import types
from typing import Any, Final, NoReturn

from verifiers.sandbox import wire

EXIT_COMPILE_ERROR: Final = 201  # the source is no Python; a program that exits so by itself fails either way
EXIT_MEMORY: Final = 202  # it ended with a MemoryError
EXIT_RAISED: Final = 1  # as of Python itself
BUFFER_BYTES: Final = 65_536  # of a stream: fewer calls for big inputs than with the default of 8,192 (guess)
THREAD_STACK_BYTES: Final = 8 << 20  # as usual; else it is the stack limit, a gigabyte here
MAX_STDERR_CHARS: Final = 10_000  # of one traceback (guess)
# What LeetCode's own judge has in scope, for programs in its form; nobody else gets names for nothing.
_PRELUDE: Final = """
from typing import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from bisect import *
from math import *
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string
"""


def prepare() -> None:
    """Make what every program finds, once, before the forks: an empty ``__main__``, streams over descriptors 0 to 2.

    None of our modules can be imported any more. Each program has its own copy of all that, as it has of the process.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "verifiers"]:
        del sys.modules[name]
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    sys.argv = ["main.py"]
    escape = "surrogateescape"  # bytes that are no UTF-8 pass through, as in the interpreter's own UTF-8 mode
    sys.stdin = io.TextIOWrapper(open(0, "rb", BUFFER_BYTES, closefd=False), "utf-8", escape)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", BUFFER_BYTES, closefd=False), "utf-8", escape)  # noqa: SIM115
    errors = open(2, "wb", 0, closefd=False)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", write_through=True)
    sys.stdin.buffer.raw.name, sys.stdout.buffer.raw.name = "<stdin>", "<stdout>"
    sys.stdin.mode, sys.stdout.mode = "r", "w"  # type: ignore[misc]  # programs look at it to tell them apart
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    for name in ("exit", "quit"):  # what the site module adds, which is not loaded here
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    threading.stack_size(THREAD_STACK_BYTES)


def _main_module() -> types.ModuleType:
    return sys.modules["__main__"]


def run_as_script(source_fd: int) -> NoReturn:
    """Run the program as ``__main__`` and exit as the interpreter would."""
    _leave(_run(_main_module(), _read(source_fd), close=True))


def answer_calls(entry: str, source_fd: int, calls_fd: int, answers_fd: int) -> NoReturn:
    """Run the program, then call ``entry`` with each list of arguments; write one line for each answer.

    A line is ``{"v": value}``, or ``{"error": type name}`` after which nothing follows.
    """
    module = _main_module()
    source = _read(source_fd)
    code = _run(module, source, close=False, prelude=_PRELUDE if b"class Solution" in source else "")
    if code:
        _leave(code)
    calls = wire.loads(_read(calls_fd))
    answers = os.fdopen(answers_fd, "wb", 0)
    try:
        for arguments in calls:
            answers.write(_answer(module, entry, arguments).encode() + b"\n")
    except _Ended as ended:
        _leave(ended.code)
    _leave(0)


class _Ended(Exception):
    """A call did not return a value; ``code`` is the exit status that says so."""

    def __init__(self, code: int) -> None:
        self.code = code


def _answer(module: types.ModuleType, entry: str, arguments: list[Any]) -> str:
    try:
        value = find(module, entry)(*arguments)
        return f'{{"v": {wire.dumps(value)}}}'
    except wire.NotPlain as error:
        return json.dumps({"odd": str(error)[:200]})
    except BaseException as error:  # noqa: BLE001 whatever the program raises ends it, SystemExit too
        raise _Ended(_status(error) or EXIT_RAISED) from None


def find(module: types.ModuleType, entry: str) -> Any:
    """Return the function of that name, or the method of a fresh ``Solution``.

    Raises:
        NameError: If the program has neither.
    """
    holder = vars(module)
    if entry in holder:
        return holder[entry]
    if "Solution" in holder and hasattr(holder["Solution"], entry):
        return getattr(holder["Solution"](), entry)
    raise NameError(f"name {entry!r} is not defined")


def load_program(source_fd: int) -> types.ModuleType | int:
    """Return the program's module after a run of its source, or the exit status with which it failed."""
    module = _main_module()
    source = _read(source_fd)
    return _run(module, source, close=False, prelude=_PRELUDE if b"class Solution" in source else "") or module


def _read(fd: int) -> bytes:
    """Return the whole of a file and close it."""
    parts = []
    while part := os.read(fd, os.fstat(fd).st_size + 1):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def _run(module: types.ModuleType, source: bytes, *, close: bool, prelude: str = "") -> int:
    """Run a program's source in its module; return 0, or the exit status of its failure."""
    try:
        program = compile(source, "main.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _print_error(error)
        return EXIT_COMPILE_ERROR
    try:
        if prelude:
            exec(prelude, module.__dict__)
        exec(program, module.__dict__)
        if close and threading.active_count() > 1:
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    except BaseException as error:  # noqa: BLE001 how a program ends is an answer, not our failure
        return _status(error)
    return 0


def _status(error: BaseException) -> int:
    """Return the exit status that the interpreter gives for an exception, and print what it prints."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None:
            return 0
        if isinstance(code, int):
            return int.__and__(int(code), 0xFF)
        _say(str(code))
        return EXIT_RAISED
    if isinstance(error, MemoryError):
        return EXIT_MEMORY
    _print_error(error)
    return EXIT_RAISED


def _print_error(error: BaseException) -> None:
    import traceback

    try:
        _say("".join(traceback.format_exception(error, limit=20))[-MAX_STDERR_CHARS:])
    except BaseException:  # noqa: BLE001 its own __str__ may do anything; the status says enough
        return


def _say(text: str) -> None:
    os.write(2, text.encode("utf-8", "backslashreplace"))


def _leave(code: int) -> NoReturn:
    """Flush and end, without the milliseconds that taking the interpreter down costs."""
    try:
        atexit._run_exitfuncs()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 a full disk, a closed stream, a hostile object: no right output
        code = code or EXIT_RAISED
    os._exit(code)

"""Two judged processes that talk: the program in one, the tests in the other, and no expected value ever crosses.

The program's process serves requests (``serve``); the tests' process holds proxies of what the program defines and runs
the asserts on its own copies of the answers (``run_tests``). Invariants: the tests' process never asks the program a
question whose answer is the test (``==``, ``in``, arithmetic with the test's values happen on this side, on plain
values; an object of the program equals nothing but itself); success is written to a descriptor that only the tests'
process has. Functions that a test hands over may be called by the program, and nothing else of the tests' process can
be reached.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import operator
import os
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from verifiers.sandbox import programs, wire

MAX_LINE_BYTES: Final = 64 * 1_048_576  # of one message: more is no plain value any more (guess)
OWN_NAMES: Final = frozenset(  # modules that tests use without importing them: the program's copies may be patched
    {"bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "inspect"}
    | {"itertools", "json", "math", "operator", "random", "re", "statistics", "string", "sys", "time", "typing"}
)
_OPERATORS: Final = {
    "eq": operator.eq, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "add": operator.add,
    "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "floordiv": operator.floordiv,
    "mod": operator.mod, "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip


class Gone(Exception):
    """The process at the other end has ended."""


class Peer:
    """One end of the line. Objects that are no plain values stay where they are and travel as numbers.

    Own objects are numbered from 0 and sent as such; the other end's come back as -1 - number.
    """

    def __init__(self, reader: int, writer: int, answer: Callable[[Peer, str, list[Any]], Any]) -> None:
        self._reader = os.fdopen(reader, "rb")
        self._writer = os.fdopen(writer, "wb", 0)
        self._answer = answer
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}  # of own objects, by their identity
        self._stand_ins: dict[int, Any] = {}

    def export(self, value: Any) -> int:
        """Return the number under which an object is sent."""
        number = _number_of(value)
        if number is not None:
            return -1 - number
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # kept: its identity is its name from now on
        return self._numbers[id(value)]

    def resolve(self, number: int, is_class: bool) -> Any:
        """Return the own object, or a stand-in for the other end's: always the same one."""
        if number < 0:
            return self._objects[-1 - number]
        if number not in self._stand_ins:
            self._stand_ins[number] = _class_handle(self, number) if is_class else Handle(self, number)
        return self._stand_ins[number]

    def ask(self, what: str, *args: Any) -> Any:
        """Return the other end's answer, serving its questions meanwhile.

        Raises:
            Gone: If it has ended.
            Exception: What it says was raised, as the builtin exception of that name.
        """
        self._send(["ask", what, list(args)])
        return self.serve()

    def serve(self) -> Any:
        """Answer questions until an answer comes; return it, or raise what it says."""
        while True:
            kind, *body = self._receive()
            if kind == "ask":
                self._reply(*body)
            elif kind == "ok":
                return body[0]
            else:
                raise _exception(*body)

    def _reply(self, what: str, args: list[Any]) -> None:
        try:
            self._send(["ok", self._answer(self, what, args)])
        except wire.NotPlain as error:
            self._send(["raised", "ValueError", str(error)[:200]])
        except Exception as error:  # noqa: BLE001 the program's exception is the answer to the question
            self._send(["raised", type(error).__name__, _text_of(error)])

    def _send(self, message: list[Any]) -> None:
        line = wire.dumps(message, self.export).encode() + b"\n"
        try:
            while line:
                line = line[self._writer.write(line) or 0 :]
        except OSError as error:
            raise Gone from error

    def _receive(self) -> list[Any]:
        line = self._reader.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise Gone
        message = wire.loads(line, self.resolve)
        if not isinstance(message, list) or not message:
            raise Gone
        return message


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except Exception:  # noqa: BLE001 its own __str__ may do anything
        return ""


class FromProgram(Exception):
    """An exception of a class that only the program knows."""


def _exception(name: Any = "", text: Any = "", *_: Any) -> Exception:
    kind = getattr(builtins, str(name), None)
    error: Exception = FromProgram(f"{name}: {text}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        with suppress(TypeError):  # UnicodeDecodeError and the like want more
            error = kind(str(text))
    error.from_program = True  # type: ignore[attr-defined]
    return error


class Handle:
    """Stands for an object of the other process.

    What is asked there never holds a value of the tests: operators take two such objects or fail, and such an object
    equals no plain value.
    """

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self._peer, self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("item", self, key)

    def __len__(self) -> int:
        return int(self._peer.ask("len", self))

    def __bool__(self) -> bool:
        return bool(self._peer.ask("bool", self))

    def __str__(self) -> str:
        return str(self._peer.ask("str", self))

    def __repr__(self) -> str:
        return str(self._peer.ask("repr", self))

    def __hash__(self) -> int:
        return int(self._peer.ask("hash", self))

    def __iter__(self) -> Any:
        return self._peer.ask("iter", self)

    def __next__(self) -> Any:
        if found := self._peer.ask("next", self):
            return found[0]
        raise StopIteration

    def __contains__(self, item: object) -> bool:
        return any(item is own or item == own for own in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self._peer.ask("eq", self, other) is True
        content = self._peer.ask("plain", self)  # of a list with methods of its own, say; compared here
        return bool(content) and bool(content[0] == other)


def _operator(name: str) -> Callable[[Handle, object], Any]:
    def ask(self: Handle, other: object) -> Any:
        return self._peer.ask(name, self, other) if isinstance(other, Handle) else NotImplemented

    return ask


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor"):
    setattr(Handle, f"__{_name}__", _operator(_name))


class _ClassHandle(type):
    """A class of the other process: its instances there are instances of it here."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return _called(vars(cls)["_peer"], cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_abc"):
            raise AttributeError(name)
        return vars(cls)["_peer"].ask("get", cls, name)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Handle) and vars(cls)["_peer"].ask("isinstance", instance, cls) is True


def _class_handle(peer: Peer, number: int) -> Any:
    """Return a stand-in for a class; exceptions among them can be caught by nobody, and are ``FromProgram``."""
    return _ClassHandle("Remote", (), {"_peer": peer, "_number": number})


def _number_of(value: Any) -> int | None:
    """Return the other end's number of a stand-in; None for what is our own."""
    if type(value) is Handle:
        return int(value._number)
    return int(vars(value)["_number"]) if type(value) is _ClassHandle else None


def _called(peer: Peer, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, changed, same = peer.ask("call", function, list(args), kwargs)
    for place, content in changed:
        _replace(args[place], content)
    return value if same is None else args[same]


def _replace(argument: Any, content: Any) -> None:
    """Do to an argument what the program did to its copy."""
    if isinstance(argument, list) and isinstance(content, list):
        argument[:] = content
    elif (isinstance(argument, dict) and isinstance(content, dict)) or (
        isinstance(argument, set) and isinstance(content, set)
    ):
        argument.clear()
        argument.update(content)


_END: Final = object()

# --- in the program's process ----------------------------------------------------------------------------------------


def serve(entry: str, source_fd: int, reader: int, writer: int) -> NoReturn:
    """Run the program, then answer the tests until they end."""
    module = programs.load_program(source_fd)
    if isinstance(module, int):
        programs._leave(module)
    holder = module

    def answer(peer: Peer, what: str, args: list[Any]) -> Any:
        return _answer_tests(peer, holder, entry, what, args)

    try:
        Peer(reader, writer, answer).serve()
    except Gone:
        programs._leave(0)
    except BaseException as error:  # noqa: BLE001 whatever the program raises ends it, SystemExit too
        programs._leave(programs._status(error) or programs.EXIT_RAISED)
    programs._leave(0)


def _answer_tests(peer: Peer, module: types.ModuleType, entry: str, what: str, args: list[Any]) -> Any:
    match what, args:
        case "names", [names]:
            return {name: getattr(module, name) for name in names if name in vars(module)}
        case "entry", []:
            return programs.find(module, entry)
        case "call", [function, positional, named]:
            return _call(peer, function, positional, named)
        case "get", [holder, name]:
            return getattr(holder, name)
        case "set", [holder, name, value]:
            return setattr(holder, name, value)
        case "item", [holder, key]:
            return holder[key]
        case "len", [holder]:
            return len(holder)
        case "bool", [holder]:
            return bool(holder)
        case "str", [holder]:
            return str(holder)
        case "repr", [holder]:
            return repr(holder)
        case "iter", [holder]:
            return iter(holder)
        case "next", [iterator]:
            found = next(iterator, _END)
            return [] if found is _END else [found]
        case "plain", [holder]:
            return _content_of(holder)
        case "hash", [holder]:
            return hash(holder)
        case "isinstance", [instance, kind]:
            return isinstance(instance, kind)
        case name, [first, second] if name in _OPERATORS:
            return _OPERATORS[name](first, second)
        case _:
            raise ValueError(f"no such question: {what!r}")


def _call(peer: Peer, function: Any, positional: list[Any], named: dict[str, Any]) -> tuple[Any, list[Any], int | None]:
    """Return the value, (place, content) of the arguments that the call has changed, and which of them the value is."""
    before = [_frozen(peer, value) for value in positional]
    value = function(*positional, **named)
    changed = [
        [place, content]
        for place, content in enumerate(positional)
        if before[place] is not None and _frozen(peer, content) != before[place]
    ]
    same = [
        place for place, argument in enumerate(positional) if argument is value and _frozen(peer, value) is not None
    ]
    return (None, changed, same[0]) if same else (value, changed, None)


def _content_of(value: Any) -> list[Any]:
    """Return what a value of the program's own subclass of a plain type holds, in a list; an empty one for others."""
    kinds: tuple[Callable[[Any], Any], ...] = (list, tuple, dict, set, frozenset, int, float, str)
    return next(([kind(value)] for kind in kinds if isinstance(value, kind)), [])  # type: ignore[arg-type]


def _frozen(peer: Peer, value: Any) -> str | None:
    return wire.dumps(value, lambda item: id(item)) if isinstance(value, (list, dict, set)) else None


# --- in the tests' process -------------------------------------------------------------------------------------------


def run_tests(entry: str, tests_fd: int, verdict_fd: int, reader: int, writer: int) -> NoReturn:
    """Run each test source; write one line per test to ``verdict_fd``, the last being the first failure.

    A line is ``ok``, or why not: ``assert`` (a wrong value), ``raised`` (the program's own exception, or a value that
    the test cannot use), ``ended`` (the program is gone), ``bad_test`` (the test is no Python).
    """
    sources = json.loads(os.fdopen(tests_fd, "rb").read())
    peer = Peer(reader, writer, _answer_program)
    for source in sources:
        word = _run_test(peer, entry, source)
        os.write(verdict_fd, word.encode() + b"\n")
        if word != "ok":
            break
    os._exit(0)


def _answer_program(peer: Peer, what: str, args: list[Any]) -> Any:
    match what, args:
        case "call", [function, positional, named] if callable(function):
            return function(*positional, **named), [], None
        case _:
            raise PermissionError(f"tests answer no {what!r}")


def _run_test(peer: Peer, entry: str, source: str) -> str:
    try:
        tree = ast.parse(source)
        program = compile(tree, "test.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "bad_test"
    try:
        candidate = peer.ask("entry")
        scope: dict[str, Any] = {"__name__": "__test__", "__builtins__": builtins, "candidate": candidate}
        scope |= _outside_names(peer, entry, tree, candidate)
        exec(program, scope)
        if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
            scope["check"](candidate)
    except AssertionError as error:
        return "raised" if hasattr(error, "from_program") else "assert"
    except Gone:
        return "ended"
    except BaseException:  # noqa: BLE001 a value that the test cannot use is no right answer
        return "raised"
    return "ok"


def _outside_names(peer: Peer, entry: str, tree: ast.Module, candidate: Any) -> dict[str, Any]:
    """Return what the test uses and does not define: the program's names, and modules of our own."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    made = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    wanted = used - made - set(dir(builtins)) - {"candidate", entry}
    modules = {name: importlib.import_module(name) for name in wanted & OWN_NAMES}
    math = importlib.import_module("math")
    functions = {name: getattr(math, name) for name in wanted - OWN_NAMES if hasattr(math, name)}
    others = sorted(wanted - set(modules) - set(functions))
    theirs = peer.ask("names", others) if others else {}
    return {entry: candidate, **theirs, **functions, **modules}

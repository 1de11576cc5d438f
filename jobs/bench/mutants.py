"""HumanEval's own solutions, and each of them with one operator changed: what do its tests let through?

A changed solution may still be right. Whether it is, by the tests, plain Python says here, in the usual way: solution
and tests in one process, which is no place for programs that cheat. Knows no verdict.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, Final

from schemas.problem import Limits
from verifiers.sandbox import Sandbox

PLAIN_LIMITS: Final = Limits(cpu_time_s=3.0, wall_time_s=6.5, memory_mb=512)
CHANGES: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def is_humaneval(row: dict[str, Any]) -> bool:
    """Return whether a row is one of that data set's."""
    return {"prompt", "canonical_solution", "test", "entry_point"} <= row.keys()


def solution(row: dict[str, Any]) -> str:
    """Return the whole program: the prompt is its beginning."""
    return str(row["prompt"] + row["canonical_solution"])


def changed(source: str, entry: str) -> Iterator[tuple[str, str]]:
    """Yield each program that has one operator in ``entry`` exchanged, and what was done to which line."""
    tree = ast.parse(source)
    lines = source.splitlines()
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry)
    for node in ast.walk(function):
        holder: list[Any] = node.ops if isinstance(node, ast.Compare) else [getattr(node, "op", None)]
        for i, operator in enumerate(holder):
            other = CHANGES.get(type(operator))
            if other is None:
                continue
            _put(node, i, other())
            what = f"{type(operator).__name__} -> {other.__name__}: {lines[node.lineno - 1].strip()}"  # type: ignore[attr-defined]
            yield ast.unparse(tree), what
            _put(node, i, operator)


def _put(node: ast.AST, place: int, operator: ast.AST) -> None:
    if isinstance(node, ast.Compare):
        node.ops[place] = operator  # type: ignore[call-overload]
    else:
        node.op = operator  # type: ignore[attr-defined]


def passes_plainly(source: str, row: dict[str, Any], sandbox: Sandbox) -> bool:
    """Return whether the tests pass in the program's own process."""
    program = f"{source}\n{row['test']}\ncheck({row['entry_point']})\n"
    return sandbox.run_script(program.encode(), b"", PLAIN_LIMITS).ended_well

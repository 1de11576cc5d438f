"""Matrices, vectors and tuples as rows of terms: multiples, sums and products of them, and sums of unit vectors.

Part of ``compare``: reads terms and returns terms. What is too large to be multiplied out, is no matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from verifiers.limits import MAX_MATRIX_FACTORS, MAX_MATRIX_PRODUCTS
from verifiers.rationals import exact_or_none
from verifiers.terms import COLLECTIONS, Term, depth_of, has_op, number

BASIS: Final = {  # the unit vectors, as they are read
    Term("constant", (), "i"): 0,
    Term("symbol", (), "hat i"): 0,
    Term("symbol", (), "j"): 1,
    Term("symbol", (), "k"): 2,
}


def rows_of(term: Term) -> list[tuple[Term, ...]] | None:
    """Return the rows of a matrix, of a list of lists, or of a multiple of one."""
    match term.op:
        case "matrix" if term.value is None:
            return [row.args for row in term.args]
        case "group" if all(arg.op == "group" for arg in term.args) and len({len(arg.args) for arg in term.args}) == 1:
            return [arg.args for arg in term.args]
        case "neg":
            return _scaled(term.args[0], number(-1))
        case "add":
            return _summed([rows_of(arg) for arg in term.args])
        case "mul" if all(has_op(arg, "matrix") for arg in term.args):
            return _multiplied([rows_of(arg) for arg in term.args])
        case "mul" if len(term.args) == 2:
            for scalar, matrix in (term.args, term.args[::-1]):
                if not has_op(scalar, "matrix") and scalar.op not in COLLECTIONS:
                    return _scaled(matrix, scalar)
            return None
        case "div":
            return _scaled(term.args[0], Term("div", (number(1), term.args[1])))
        case _:
            return None


def _scaled(term: Term, factor: Term) -> list[tuple[Term, ...]] | None:
    rows = rows_of(term)
    return None if rows is None else [tuple(Term("mul", (factor, cell)) for cell in row) for row in rows]


def _summed(parts: Sequence[list[tuple[Term, ...]] | None]) -> list[tuple[Term, ...]] | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({tuple(len(row) for row in part) for part in known}) != 1:
        return None
    return [tuple(Term("add", cells) for cells in zip(*rows, strict=True)) for rows in zip(*known, strict=True)]


def _multiplied(parts: Sequence[list[tuple[Term, ...]] | None]) -> list[tuple[Term, ...]] | None:
    total = parts[0] if len(parts) <= MAX_MATRIX_FACTORS else None
    for part in parts[1:]:
        if total is None or part is None or len(total[0]) != len(part):
            return None
        columns = list(zip(*part, strict=True))
        cells = (cell for rows in (total, part) for row in rows for cell in row)
        if len(total) * len(columns) * len(part) > MAX_MATRIX_PRODUCTS or max(map(depth_of, cells)) > 12:
            return None
        total = [tuple(_dot(row, column) for column in columns) for row in total]
    return total


def _dot(row: Sequence[Term], column: Sequence[Term]) -> Term:
    """Return the sum of the products, as a number where it is one: else each factor doubles the term."""
    term = Term("add", tuple(Term("mul", pair) for pair in zip(row, column, strict=True)))
    value = exact_or_none(term)
    return term if value is None else number(Fraction(int(value.p), int(value.q)))


def vector_of(term: Term) -> tuple[Term, ...] | None:
    """Return the components of a column or row, or of a tuple."""
    if term.op in ("group", "items") and not any(arg.op in COLLECTIONS for arg in term.args):
        return term.args
    rows = rows_of(term)
    if rows is None:
        return None
    if len(rows) == 1:
        return rows[0]
    return tuple(row[0] for row in rows) if all(len(row) == 1 for row in rows) else None


def from_basis(term: Term, other: Term) -> Term:
    """Return i + 2j as the tuple (1, 2) beside a tuple or a column of two; as it is where it is no sum of those."""
    wanted = vector_of(other) if other.op in ("group", "matrix") and other.value in ("()", None) else None
    if wanted is None or not 2 <= len(wanted) <= 3 or term.op not in ("add", "neg", "mul", "symbol", "constant"):
        return term
    parts: list[list[Term]] = [[] for _ in wanted]
    for part in term.args if term.op == "add" else (term,):
        sign, part = (-1, part.args[0]) if part.op == "neg" else (1, part)
        factors = part.args if part.op == "mul" else (part,)
        places = [place for place, factor in enumerate(factors) if factor in BASIS]
        if len(places) != 1 or BASIS[factors[places[0]]] >= len(wanted):
            return term
        rest = [factor for place, factor in enumerate(factors) if place != places[0]]
        parts[BASIS[factors[places[0]]]].append(Term("mul", (number(sign), number(1), *rest)))
    return Term("group", tuple(Term("add", (number(0), *found)) for found in parts), "()")

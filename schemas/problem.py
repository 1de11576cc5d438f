"""Problems: what is asked, and what a right answer is compared with.

First record of the flow. Invariant: ``problem_id`` depends on the domain and the messages alone, never on the
reference, so that a repaired reference does not cost a token; ``reference_hash`` covers the reference.
Does no reading and no judging.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from schemas.carried import carried

ID_HEX_DIGITS: Final = 32  # 128 bits: a collision among 10 billion ids has a chance below 1e-18


class Domain(StrEnum):
    """What a problem is about; decides which checks apply to its traces."""

    MATH = "math"
    CODE = "code"
    STEM = "stem"
    LOGIC = "logic"
    WRITING = "writing"
    QA = "qa"
    TRANSLATION = "translation"
    CHAT = "chat"


Role = Literal["system", "user", "assistant"]
ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r} must be one of {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A final answer to compare with.

    ``kind`` names its type (integer, rational, text, ...) where the source knows it; None lets the verifier decide.
    ``precision`` is the accepted absolute error where the source states one; None means exact.
    """

    text: str
    kind: str | None = None
    precision: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The right letter of a multiple-choice question; ``options`` are the texts behind A, B, C, ..., in order."""

    letter: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.letter) != 1 or not "A" <= self.letter <= "Z":
            raise ValueError(f"letter={self.letter!r} must be one capital letter A to Z")
        if self.options and ord(self.letter) - ord("A") >= len(self.options):
            raise ValueError(f"letter={self.letter!r} has no option: there are {len(self.options)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """A program reads ``input`` and must print ``expected``."""

    input: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTest:
    """``entry(*args)`` must return ``expected``; both are JSON texts (``args`` a JSON list)."""

    entry: str
    args: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertTest:
    """Python source with one assert, or HumanEval's ``check(candidate)``, about the function ``entry``."""

    entry: str
    source: str


TestCase = StdinTest | FunctionTest | AssertTest
CompareMode = Literal["tokens", "lines", "exact", "float", "unordered_tokens", "livecodebench", "checker"]
COMPARE_MODES: Final[tuple[CompareMode, ...]] = (
    "tokens",
    "lines",
    "exact",
    "float",
    "unordered_tokens",
    "livecodebench",  # that benchmark's own rule, so that numbers can be compared
    "checker",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """How a program's output is compared; ``checker`` is Python source defining ``check(inp, out, exp) -> bool``."""

    mode: CompareMode = field(default="tokens", kw_only=False)
    abs_tol: float = 0.0
    rel_tol: float = 0.0
    checker: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in COMPARE_MODES:
            raise ValueError(f"mode={self.mode!r} must be one of {', '.join(COMPARE_MODES)}")
        if (self.mode == "checker") != (self.checker is not None):
            raise ValueError(f"mode={self.mode!r} with checker={'given' if self.checker else None}: give both or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run of a judged program may use."""

    cpu_time_s: float = 10.0
    wall_time_s: float = 20.0
    memory_mb: int = 512
    output_mb: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """Tests that a right program passes."""

    cases: tuple[TestCase, ...]
    compare: Compare = field(default_factory=Compare)
    limits: Limits = field(default_factory=Limits)
    language: str = "python"

    __test__ = False  # pytest must not collect a record


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A reviewed scoring function by ``name`` (``reasoning_gym/<family>``) with the JSON ``payload`` that it needs."""

    name: str
    payload: str


Reference = Answer | Choice | Tests | Scorer


_CANONICAL: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(value: object) -> str:
    """Return the hex digest of a JSON value: the one way ids and hashes are made here (sha256 of canonical JSON)."""
    text = _CANONICAL.encode(value)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_HEX_DIGITS]


def normalize_text(text: str) -> str:
    """Return the text in NFC with runs of whitespace as one space: what ``problem_id`` hashes."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def reference_to_json(reference: Reference) -> dict[str, Any]:
    """Return the reference as JSON values, with its type under ``type``; test cases carry theirs too."""
    body = asdict(reference)
    if isinstance(reference, Tests):
        body["cases"] = [{"type": type(case).__name__, **asdict(case)} for case in reference.cases]
    if isinstance(reference, Choice):
        body["options"] = list(reference.options)
    return {"type": type(reference).__name__, **body}


_CASE_TYPES: Final = {cls.__name__: cls for cls in (StdinTest, FunctionTest, AssertTest)}


def reference_from_json(body: dict[str, Any]) -> Reference:
    """Return the reference that ``reference_to_json`` wrote.

    Raises:
        ValueError: If the type or a field is unknown.
    """
    fields = dict(body)
    kind = fields.pop("type", None)
    try:
        match kind:
            case "Answer":
                return Answer(**fields)
            case "Choice":
                return Choice(**{**fields, "options": tuple(fields.get("options", ()))})
            case "Scorer":
                return Scorer(**fields)
            case "Tests":
                cases = tuple(
                    _CASE_TYPES[case["type"]](**{k: v for k, v in case.items() if k != "type"})
                    for case in fields["cases"]
                )
                return Tests(
                    cases=cases,
                    compare=Compare(**fields["compare"]),
                    limits=Limits(**fields["limits"]),
                    language=fields["language"],
                )
            case _:
                raise ValueError(f"reference type {kind!r} must be Answer, Choice, Tests or Scorer")
    except (TypeError, KeyError) as error:
        raise ValueError(f"reference of type {kind!r} has missing or unknown fields: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A task with its reference; ``language`` is that of the wanted response (BCP 47, such as ``en``).

    ``source_revision`` is what the row was read from: ``sha256:HEX`` of its file, a commit on the Hub, or a generator's
    version; null where that is not known.
    """

    domain: Domain
    messages: tuple[Message, ...]
    language: str = "en"
    source: str
    source_row_id: str
    source_revision: str | None = None
    license: str = "unknown"
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if not any(message.role == "user" and message.content.strip() for message in self.messages):
            raise ValueError("messages hold no user turn with text")

    @property
    def problem_id(self) -> str:
        """Hash of the domain and the NFC, whitespace-collapsed messages."""
        turns = [[message.role, normalize_text(message.content)] for message in self.messages]
        return digest(["problem", str(self.domain), turns])

    @property
    def reference_hash(self) -> str | None:
        """Hash of the reference; null without one."""
        return None if self.reference is None else digest(["reference", reference_to_json(self.reference)])

    @property
    def question(self) -> str:
        """Text of the last user turn: what checks compare a trace with."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")


class QuarantineReason(StrEnum):
    """Why a row of a source became no problem; closed list."""

    UNREADABLE_ROW = "unreadable_row"  # no JSON object, or bytes that are no text
    MISSING_COLUMN = "missing_column"  # the row lacks a mapped column
    BAD_VALUE = "bad_value"  # a value of the wrong type, or empty
    UNSUPPORTED_REFERENCE = "unsupported_reference"  # no verifier can judge it
    UNRENDERABLE = "unrenderable"  # the prompt's template, or the teacher's chat template, refuses its turns
    DUPLICATE = "duplicate"  # the same problem with the same reference came before
    CONFLICTING_REFERENCES = "conflicting_references"  # the same problem with another reference: both are kept aside
    CONTAMINATED = "contaminated"  # an item of a protected benchmark, or a copy of one with small edits
    NEAR_DUPLICATE = "near_duplicate"  # nearly the words, the numbers and the reference of a problem that is kept
    UNPARSED_REFERENCE = "unparsed_reference"  # nothing can be compared with it: every verdict would be bad_reference
    MISSING_FIGURE = "missing_figure"  # speaks of a figure that is not there
    NO_FINAL_ANSWER = "no_final_answer"  # asks for a proof, or its reference says that there is no answer
    SEVERAL_QUESTIONS = "several_questions"  # parts that each ask, for one reference
    TRUNCATED_STATEMENT = "truncated_statement"  # stops inside a sentence or a formula


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a problem was kept aside for: an item of a benchmark, or a problem that stands for it."""

    of: str  # the benchmark and its version; `problems` for another problem of the job
    item: str  # the item's id; the other problem's id
    rule: str  # by which it was found (factory/decontaminate.py, `Rule`); `jaccard` for another problem
    share: float  # of the item that was found; the similarity to the other problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A row that became no problem; ``row`` counts from 1 (JSONL: the line); ``raw`` is cut to 2,000 characters."""

    source: str
    row: int
    reason: QuarantineReason
    detail: str
    raw: str
    problem_id: str | None = None
    evidence: Evidence | None = None


@carried
@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Exactly what the teacher is given for one problem."""

    problem_id: str
    text: str
    sha256: str
    token_ids: tuple[int, ...]

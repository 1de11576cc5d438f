"""Guards: what a student would learn is what the table says, and nothing else, or nothing is started.

Each looks at encoded rows, exactly as training takes them, and says in words what is wrong; names are those that
messages and ARCHITECTURE.md use. Rows that are too long are no fault: they are dropped and counted before, never cut.
Those of a prepared base (context, end, padding) are in `prepare_base`, that of packing in `packing`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from factory.decontaminate import Protection
from jobs.students.rows import IGNORED, Encoded, Row, Student
from schemas.errors import GuardError

OF_IDS: Final = ("ids", "splits")  # guards that look at the ids of a row alone, and so at every row
_SHOWN: Final = 60  # characters of a text in a message


def completion_is_learnt(encoded: Encoded, student: Student) -> str | None:
    """The labels, decoded, are the stored completion and its end, to the letter: a template may not edit it."""
    learnt = [label for label in encoded.labels if label != IGNORED]
    if learnt[-1:] == [student.end_id]:
        learnt.pop()
    text, stored = student.decode(learnt), encoded.row.completion
    # Qwen's tokenizers write NFC, which is the same text; what else a tokenizer makes of a text is not
    if text in (stored, unicodedata.normalize("NFC", stored)):
        return None
    place = _difference(text, stored)
    return (
        f"would learn {_shown(text, place)} where the table has {_shown(stored, place)} (from character {place}); the "
        "template must write an answer to the letter"
    )


def prompt_is_not_learnt(encoded: Encoded, student: Student) -> str | None:
    """No token of the prompt has a label, every other one has, and it is the token itself."""
    num_asked = len(encoded.asked_ids)
    first = next((place for place, label in enumerate(encoded.labels) if label != IGNORED), None)
    if first is None:
        return "has no label at all: nothing would be learnt"
    if first < num_asked:
        return f"learns from token {first} on, its prompt has {num_asked}; mask the prompt's labels by {IGNORED}"
    if encoded.labels[first:] != encoded.token_ids[first:] or first > num_asked:
        return f"its labels from token {first} on are not the {len(encoded.token_ids) - num_asked} tokens of its answer"
    return None


def prompt_is_as_asked(encoded: Encoded, student: Student) -> str | None:
    """What stands before the answer in training is what the student is asked with."""
    asked = encoded.asked_ids
    if encoded.token_ids[: len(asked)] == asked:
        return None
    place = next((n for n, (a, b) in enumerate(zip(asked, encoded.token_ids, strict=False)) if a != b), len(asked))
    text = student.decode(asked[place:])
    return (
        f"is asked with {_shown(text, 0)} at the end of its prompt, which the template leaves out once it is answered"
    )


def end_is_learnt(encoded: Encoded, student: Student) -> str | None:
    """The last label, and no other, is the token that ends a turn of the family."""
    end, labels = student.end_id, encoded.labels
    if not labels or labels[-1] != end:
        last = student.decode([label for label in labels[-1:] if label != IGNORED])
        return f"would learn {last!r} last, not {student.family.end}: a student that never ends"
    if labels.count(end) > 1:
        return f"has {student.family.end} inside its answer: a student is stopped there"
    return None


def text_starts_once(encoded: Encoded, student: Student) -> str | None:
    """The token that starts a text stands at its beginning and nowhere else."""
    start = student.start_id
    if start is None:
        return None
    places = [place for place, token in enumerate(encoded.token_ids) if token == start]
    if places == [0]:
        return None
    return f"has {student.family.start} at tokens {places[:4]}, must have it at 0 alone; is it added to the template's?"


def row_is_whole(encoded: Encoded, student: Student) -> str | None:
    """A row that is kept has at most as many tokens as fit."""
    if len(encoded.token_ids) <= student.max_length:
        return None
    return f"has {len(encoded.token_ids)} tokens, {student.max_length} fit (train.max_length): it would be cut"


def text_is_no_control(encoded: Encoded, student: Student) -> str | None:
    """No content becomes a token that means something to a server: an end, the head of a turn, padding."""
    parts = [(f"the turn of {turn['role']} in its prompt", turn["content"]) for turn in encoded.row.prompt]
    rest = encoded.token_ids[len(encoded.asked_ids) :]
    if not student.control_ids.isdisjoint(rest[:-1]):  # its end apart; encoded again only where there is something
        parts.append(("its completion", encoded.row.completion))
    for where, text in parts:
        if found := student.control_tokens(text):
            return (
                f"{where} holds {found[0]}, which is no text to the tokenizer but a token that ends or begins things; "
                "leave the row out, or write it otherwise"
            )
    return None


def prompt_is_the_tables(encoded: Encoded, student: Student) -> str | None:
    """The template writes each content of the prompt to the letter, in order, and no words of its own around them."""
    roles = [turn["role"] for turn in encoded.row.prompt]
    pieces, added = student.frame(roles)
    if not pieces:
        return f"the template does not write each content of {', '.join(roles)} once, in that order"
    if added:
        return f"is asked with {_shown(added, 0)}, which the template adds to what the table has"
    contents = [turn["content"] for turn in encoded.row.prompt]
    wanted = pieces[0] + "".join(content + piece for content, piece in zip(contents, pieces[1:], strict=True))
    if encoded.asked == wanted:
        return None
    place = _difference(encoded.asked, wanted)
    return (
        f"is asked with {_shown(encoded.asked, place)} where the table has {_shown(wanted, place)}; the template must "
        "write a prompt to the letter"
    )


RowGuard = Callable[[Encoded, Student], str | None]
ROW_GUARDS: Final[Mapping[str, RowGuard]] = {
    "completion": completion_is_learnt,
    "prompt": prompt_is_not_learnt,
    "question": prompt_is_as_asked,
    "template": prompt_is_the_tables,
    "control": text_is_no_control,
    "end": end_is_learnt,
    "start": text_starts_once,
    "length": row_is_whole,
}


@dataclass(slots=True)
class Findings:
    """What the guards saw of a table, and what of it is fit to learn."""

    num_rows: int = 0  # that were looked at
    num_encoded: int = 0  # of them, with all guards; of the others the ids alone were looked at
    num_too_long: int = 0  # dropped
    num_tokens: int = 0  # of rows that are kept
    num_learnt: int = 0  # of these, that have a label
    longest: int = 0  # tokens
    faults: Counter[str] = field(default_factory=Counter)  # rows by guard
    first: dict[str, str] = field(default_factory=dict)  # what was found first, by guard

    def add(self, guard: str, row: Row, fault: str) -> None:
        """Note what a guard says of a row."""
        self.faults[guard] += 1
        self.first.setdefault(guard, f"row {row.row_id}: {fault}")

    def refuse(self) -> None:
        """Raise what was found.

        Raises:
            GuardError: If anything was; says for each guard how many rows, and what is wrong with the first.
        """
        if self.num_encoded and self.num_encoded == self.num_too_long:
            raise GuardError(
                f"guard length: all {self.num_encoded} rows are longer than train.max_length (the longest has "
                f"{self.longest} tokens): nothing is left to learn"
            )
        if self.faults:
            seen = {name: self.num_rows if name in OF_IDS else self.num_encoded for name in self.faults}
            lines = [
                f"guard {name}: {count} of {seen[name]} rows; {self.first[name]}" for name, count in self.faults.items()
            ]
            raise GuardError("\n".join([*lines, "nothing was started"]))


class TableGuards:
    """What only many rows together show: ids twice, problems on both sides of a split, items of a benchmark."""

    def __init__(self, protection: Protection, elsewhere: Iterable[str] = ()) -> None:
        """Take the problems of the other split as ``elsewhere``."""
        self._protection, self._elsewhere = protection, frozenset(elsewhere)
        self._rows: set[str] = set()
        self._clean: dict[bytes, str | None] = {}  # by hash of the prompt's text

    def find(self, row: Row) -> Iterator[tuple[str, str]]:
        """Yield guard and fault of what is wrong with a row, beside those before it."""
        yield from self.find_by_ids(row)
        yield from self.find_item(row)

    def find_by_ids(self, row: Row) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the ids of a row, beside those before it."""
        if row.row_id in self._rows:
            yield "ids", "its id came before: ids must be unique; the table holds rows twice"
        self._rows.add(row.row_id)
        if row.problem_id in self._elsewhere:
            yield "splits", f"its problem {row.problem_id} is in the validation split, too"

    def find_item(self, row: Row) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with its question: that it is an item of a benchmark."""
        text = "\n".join(turn["content"] for turn in row.prompt)
        key = sha256(text.encode("utf-8", "surrogatepass")).digest()
        if key not in self._clean:
            match = self._protection.find(text)
            self._clean[key] = None if match is None else f"is an item of a benchmark: {match}"
        if (fault := self._clean[key]) is not None:
            yield "benchmark", fault


def look_at_ids(batches: Iterable[Sequence[Row]], table_guards: TableGuards, findings: Findings) -> None:
    """Note what is wrong with the ids of all rows, where only a sample of them is looked into."""
    for batch in batches:
        findings.num_rows += len(batch)
        for row in batch:
            for guard, fault in table_guards.find_by_ids(row):
                findings.add(guard, row, fault)


def look(
    rows: Iterable[Sequence[Row]],
    student: Student,
    table_guards: TableGuards,
    findings: Findings,
    *,
    is_sample: bool = False,
) -> Iterator[Encoded]:
    """Yield the rows that fit, encoded, and note what is wrong with any; the ids of a sample were looked at before."""
    find = table_guards.find_item if is_sample else table_guards.find
    for batch in rows:
        for row in batch:
            for guard, fault in find(row):
                findings.add(guard, row, fault)
        if not is_sample:
            findings.num_rows += len(batch)
        for encoded in student.encode(batch):
            findings.num_encoded += 1
            findings.longest = max(findings.longest, len(encoded.token_ids))
            if len(encoded.token_ids) > student.max_length:
                findings.num_too_long += 1
                continue
            for name, guard_row in ROW_GUARDS.items():
                if (found := guard_row(encoded, student)) is not None:
                    findings.add(name, encoded.row, found)
            findings.num_tokens += len(encoded.token_ids)
            findings.num_learnt += sum(label != IGNORED for label in encoded.labels)
            yield encoded


def _difference(text: str, stored: str) -> int:
    """Return the place of the first character that differs."""
    pairs = enumerate(zip(text, stored, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(text), len(stored)))


def _shown(text: str, place: int) -> str:
    begin = max(0, place - _SHOWN // 4)
    piece = text[begin : begin + _SHOWN]
    return f"{'…' if begin else ''}{piece!r}{'…' if begin + _SHOWN < len(text) else ''}" if text else "nothing"

"""What a run holds, as arrays: its problems by their place, and one byte for every requested attempt.

Read from the shards that a manifest names; used by the coordinator and the committer, which go on writing it, and by
what reports of a run. Invariant: an attempt is traced or ended without a trace, never both, and never twice. Ten
million attempts are ten megabytes here, and nothing in this module is done attempt by attempt but what a caller asks
about one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from factory.dispatch import Key
from factory.journal import Position
from factory.store import RunFolder
from schemas.errors import CorruptRunError
from schemas.manifest import Counts, Manifest
from schemas.problem import ID_HEX_DIGITS, Domain, Prompt
from schemas.trace import make_trace_id
from schemas.verdict import Outcome, Reason, counts_against, is_useful

# Flags of an attempt.
TRACED: Final = 1
FAILED: Final = 2
CANCELLED: Final = 4
JUDGED: Final = 8  # today's verifiers have a verdict against today's reference, of whatever outcome
UNJUDGED: Final = 16  # that verdict is ``unjudged``
ENDED: Final = TRACED | FAILED | CANCELLED

# What a verdict says of an attempt, in ``RunState.words``.
USEFUL: Final = 1
TRUE: Final = 2
AGAINST: Final = 4  # see ``counts_against``
UNUSABLE: Final = 8  # the reference cannot be used
FALSE: Final = 16

GOOD_OUTCOMES: Final = (str(Outcome.CORRECT), str(Outcome.READABLE))
PROMPT_COLUMNS: Final = ("prompt_text", "prompt_sha256", "prompt_token_ids")
ASKED_COLUMNS: Final = ("domain", "language")  # loaded with the prompts

Flags = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Counts_P = npt.NDArray[np.int16]  # by problem


class Tally(NamedTuple):
    """What verdicts say, by problem; ``first`` is of the first attempts alone."""

    useful: Counts_P
    true: Counts_P
    against: Counts_P
    first_true: Counts_P
    first_words: Counts_P
    is_unusable: npt.NDArray[np.bool_]


class Asked(NamedTuple):
    """A problem as its attempts need it."""

    prompt: Prompt
    domain: Domain
    language: str


class FrozenProblems:
    """The problems of a run in frozen order: ids, today's references, and, if they were asked for, prompts.

    A repaired reference keeps the place of the problem's first row, and its prompt.
    """

    def __init__(self, rows: pa.Table) -> None:
        """Take rows in the order of the shards, with the columns of ``PROBLEMS`` that are wanted."""
        encoded = rows["problem_id"].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):  # what an empty table gives
            encoded = pa.array([], pa.string()).dictionary_encode()
        self.ids: pa.StringArray = encoded.dictionary
        codes = encoded.indices.to_numpy()
        newest = np.zeros(len(self.ids), np.int64)
        newest[codes] = np.arange(len(codes))  # of several the last stays
        self.reference_hashes: pa.Array = rows["reference_hash"].take(newest).combine_chunks()
        self._first = np.unique(codes, return_index=True)[1]
        has_prompts = set(PROMPT_COLUMNS) <= set(rows.column_names)
        self._prompts = rows.select(PROMPT_COLUMNS) if has_prompts else None
        self._asked = {name: rows[name].combine_chunks() for name in ASKED_COLUMNS} if has_prompts else {}
        self._cached: tuple[int, Asked] | None = None  # all attempts at a problem are leased together

    @classmethod
    def load(cls, folder: RunFolder, manifest: Manifest, *, with_prompts: bool = False) -> FrozenProblems:
        """Read the problems of a manifest.

        Raises:
            CorruptRunError: If a shard is not what the manifest says.
        """
        columns = ["problem_id", "reference_hash", *((*PROMPT_COLUMNS, *ASKED_COLUMNS) if with_prompts else ())]
        return cls(folder.columns_of("problems", manifest.problems, columns))

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, problem_ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> Places:
        """Return the place of each id; many at once, since the ids are hashed anew each time.

        Raises:
            CorruptRunError: If the run has no such problem.
        """
        wanted = problem_ids if isinstance(problem_ids, pa.Array | pa.ChunkedArray) else pa.array(problem_ids, "string")
        found = pc.index_in(wanted, value_set=self.ids)
        if found.null_count:
            missing = wanted.filter(pc.is_null(found))[0].as_py()
            raise CorruptRunError(f"a shard or a segment has a trace of problem {missing}, which the run does not hold")
        places: Places = np.asarray(found, dtype=np.int64)
        return places

    def problem_id(self, place: int) -> str:
        """Return the id of the problem at that place."""
        return str(self.ids[place].as_py())

    def reference_hash(self, place: int) -> str | None:
        """Return the hash of today's reference of the problem at that place."""
        found: str | None = self.reference_hashes[place].as_py()
        return found

    def asked(self, place: int) -> Asked:
        """Return what is asked of the problem at that place."""
        assert self._prompts is not None, "loaded without prompts"
        if self._cached is None or self._cached[0] != place:
            text, sha256, token_ids = (self._prompts[name][int(self._first[place])] for name in PROMPT_COLUMNS)
            prompt = Prompt(
                problem_id=self.problem_id(place),
                text=text.as_py(),
                sha256=sha256.as_py(),
                token_ids=tuple(token_ids.values.to_numpy().tolist()),
            )
            domain, language = (self._asked[name][int(self._first[place])].as_py() for name in ASKED_COLUMNS)
            self._cached = (place, Asked(prompt, Domain(domain), language))
        return self._cached[1]

    def prompt(self, place: int) -> Prompt:
        """Return the prompt of the problem at that place."""
        return self.asked(place).prompt

    def prompt_length(self, place: int) -> int:
        """Return the tokens of the prompt of the problem at that place."""
        return len(self.prompt(place).token_ids)


class PendingKeys(Sequence[Key]):
    """Attempts of a run by their numbers, in order; eight bytes each."""

    def __init__(self, numbers: Places, num_samples: int) -> None:
        self._numbers, self._num_samples = numbers, num_samples

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Key:  # type: ignore[override]  # nobody slices it
        return Key(*divmod(int(self._numbers[place]), self._num_samples))


class RunState:
    """Which attempts a run holds and which of them today's verifiers have judged.

    An attempt's *number* is its problem's place times the attempts per problem, plus its sample index.
    """

    def __init__(self, problems: FrozenProblems, num_samples: int) -> None:
        self.problems = problems
        self.num_samples = num_samples
        self.flags: Flags = np.zeros(len(problems) * num_samples, np.uint8)
        self.words: Flags = np.zeros(len(problems) * num_samples, np.uint8)  # of committed verdicts
        self.is_solved = np.zeros(len(problems), bool)  # by place: an attempt is correct, or readable without an answer
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    @classmethod
    def load(cls, folder: RunFolder, manifest: Manifest, *, with_prompts: bool = False) -> RunState:
        """Read the key columns of every shard that the manifest names.

        Raises:
            CorruptRunError: If an attempt is there twice, or a shard is not what the manifest says.
        """
        problems = FrozenProblems.load(folder, manifest, with_prompts=with_prompts)
        state = cls(problems, manifest.num_samples)
        columns = ["problem_id", "sample_index"]
        traces = folder.columns_of("traces", manifest.traces, ["trace_id", *columns])
        numbers = state._add_all(traces, np.uint8(TRACED), f"{folder.path}: traces")
        untraced = folder.columns_of("untraced", manifest.untraced, [*columns, "ending"])
        is_cancelled = np.asarray(pc.equal(untraced["ending"], "cancelled"), dtype=bool)
        state._add_all(untraced, np.where(is_cancelled, CANCELLED, FAILED).astype(np.uint8), f"{folder.path}: untraced")
        state._add_verdicts(folder, manifest, ids_as_numbers(traces["trace_id"]), numbers)
        return state

    def _add_all(self, rows: pa.Table, flags: np.uint8 | Flags, where: str) -> Places:
        """Set these flags of the attempts in a table, which must have had no end before; return their numbers."""
        numbers = self.numbers(rows["problem_id"], rows["sample_index"].to_numpy())
        ordered = np.sort(numbers)
        doubled = np.concatenate([ordered[1:][ordered[1:] == ordered[:-1]], numbers[self.flags[numbers] & ENDED > 0]])
        if doubled.size:
            place, index = divmod(int(doubled[0]), self.num_samples)
            raise CorruptRunError(f"{where} hold attempt {index} at problem {self.problems.problem_id(place)} twice")
        self.flags[numbers] |= flags
        return numbers

    def _add_verdicts(
        self, folder: RunFolder, manifest: Manifest, ids: npt.NDArray[np.uint64], numbers: Places
    ) -> None:
        columns = ["trace_id", "problem_id", "reference_hash", "outcome", "reason", "is_correct"]
        rows = folder.columns_of("verdicts", manifest.verdicts.get(manifest.verifiers, ()), columns)
        rows = rows.filter(_is_current(rows, self.problems))
        order = np.argsort(ids)
        wanted = ids_as_numbers(rows["trace_id"])
        at = np.searchsorted(ids, wanted, sorter=order)
        at = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(wanted), np.int64)
        if len(wanted) and (not len(ids) or (ids[at] != wanted).any()):
            raise CorruptRunError(f"{folder.path}: a verdict is about a trace that the run does not hold")
        judged = numbers[at]
        is_unjudged = np.asarray(pc.equal(rows["outcome"], str(Outcome.UNJUDGED)), dtype=bool)
        self.flags[judged] |= JUDGED
        self.flags[judged[is_unjudged]] |= UNJUDGED
        self.words[judged] = _words(rows)
        is_good = np.asarray(pc.is_in(rows["outcome"], value_set=pa.array(GOOD_OUTCOMES)), dtype=bool)
        self.is_solved[judged[is_good] // self.num_samples] = True
        self.outcomes.update(_value_counts(rows["outcome"]))
        self.reasons.update(_value_counts(rows["reason"]))

    def numbers(self, problem_ids: pa.Array | pa.ChunkedArray | Sequence[str], indices: npt.ArrayLike) -> Places:
        """Return the numbers of attempts.

        Raises:
            CorruptRunError: If the run asks for no such attempt.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_samples:
            raise CorruptRunError(
                f"an attempt has sample index {indices.max()}, the run asks for {self.num_samples} per problem"
            )
        numbers: Places = self.problems.places(problem_ids) * self.num_samples + indices
        return numbers

    def number(self, key: Key) -> int:
        """Return the number of one attempt."""
        return key.problem * self.num_samples + key.sample_index

    def key(self, number: int) -> Key:
        """Return the attempt that has this number."""
        return Key(*divmod(number, self.num_samples))

    def has_ended(self, key: Key) -> bool:
        """Return whether an attempt has a trace, or ended without one."""
        return bool(self.flags[self.number(key)] & ENDED)

    def find(self, fingerprint: str, trace_id: str, problem_id: str) -> int:
        """Return the number of the attempt that has this id.

        Raises:
            CorruptRunError: If the run asks for no such attempt.
        """
        place = int(self.problems.places([problem_id])[0])
        for index in range(self.num_samples):
            if make_trace_id(fingerprint, problem_id, index) == trace_id:
                return place * self.num_samples + index
        raise CorruptRunError(f"a verdict is about trace {trace_id}, which the run does not ask for")

    def pending(self, journaled: Iterable[Key] = ()) -> PendingKeys:
        """Return the attempts that have not ended and are not among these.

        All at one problem come together: they share its cached prompt.
        """
        is_open = self.flags & ENDED == 0
        is_open[[self.number(key) for key in journaled]] = False
        return PendingKeys(np.flatnonzero(is_open), self.num_samples)

    def tally(self, num_first: int) -> Tally:
        """Return what committed verdicts say by problem, and of the first so many attempts at each."""
        words = self.words.reshape(-1, self.num_samples)
        first = words[:, :num_first]

        def count(among: Flags, flags: int) -> Counts_P:
            counts: Counts_P = (among & flags > 0).sum(axis=1, dtype=np.int16)
            return counts

        return Tally(
            useful=count(words, USEFUL),
            true=count(words, TRUE),
            against=count(words, AGAINST),
            first_true=count(first, TRUE),
            first_words=count(first, TRUE | AGAINST),
            is_unusable=count(words, UNUSABLE) > 0,
        )

    def num_with(self, flags: int, *, without: int = 0) -> int:
        """Return how many attempts have one of these flags, and none of the others."""
        return int(np.count_nonzero((self.flags & flags > 0) & (self.flags & without == 0)))

    def counts(self) -> Counts:
        """Return where every requested attempt stands."""
        requested = len(self.flags)
        judged, untraced = self.num_with(JUDGED), self.num_with(FAILED | CANCELLED)
        unjudged = self.num_with(UNJUDGED)
        return Counts(
            requested=requested,
            generated=self.num_with(TRACED),
            judged=judged - unjudged,
            unjudged=unjudged,
            failed=self.num_with(FAILED),
            cancelled=self.num_with(CANCELLED),
            pending=requested - judged - untraced,
        )


def ids_as_numbers(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return the first 16 of the 32 hex digits of each id: enough to tell ten million apart, in a quarter of the bytes.

    Raises:
        CorruptRunError: If a value is no id.
    """
    if not len(ids):
        return np.zeros(0, np.uint64)
    array = ids.combine_chunks()
    ends = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    digits = bytes(memoryview(array.buffers()[2])[ends[0] : ends[-1]])
    try:
        data = bytes.fromhex(digits.decode("ascii")) if (np.diff(ends) == ID_HEX_DIGITS).all() else b""
    except ValueError:
        data = b""
    if len(data) * 2 != ID_HEX_DIGITS * len(ids):
        raise CorruptRunError("a column of trace ids holds something else")
    found: npt.NDArray[np.uint64] = np.frombuffer(data, ">u8")[:: ID_HEX_DIGITS // 16].astype(np.uint64)
    return found


def current_verdicts(
    folder: RunFolder, manifest: Manifest, problems: FrozenProblems, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the verdicts of the manifest's verifiers that were given against today's references."""
    for table in folder.tables_of("verdicts", manifest.verdicts.get(manifest.verifiers, ()), columns):
        yield table.filter(_is_current(table, problems))


def _is_current(verdicts: pa.Table, problems: FrozenProblems) -> pa.ChunkedArray:
    today = problems.reference_hashes.take(pa.array(problems.places(verdicts["problem_id"])))
    return pc.equal(pc.fill_null(verdicts["reference_hash"], ""), pc.fill_null(today, ""))


def _words(verdicts: pa.Table) -> Flags:
    """Return what each verdict says, as flags; there are few kinds, and each is looked at once."""
    if not verdicts.num_rows:
        return np.zeros(0, np.uint8)
    outcomes = verdicts["outcome"].combine_chunks().dictionary_encode()
    reasons = pc.fill_null(verdicts["reason"], "").combine_chunks().dictionary_encode()
    corrects = pc.fill_null(verdicts["is_correct"].cast(pa.int8()), 2)
    shape = (len(outcomes.dictionary), len(reasons.dictionary), 3)
    codes = np.ravel_multi_index(
        [np.asarray(column) for column in (outcomes.indices, reasons.indices, corrects)], shape
    )
    kinds, kind_of = np.unique(codes, return_inverse=True)
    words = np.zeros(len(kinds), np.uint8)
    for place, (outcome, reason, correct) in enumerate(zip(*np.unravel_index(kinds, shape), strict=True)):
        reason_text = reasons.dictionary[int(reason)].as_py()
        is_correct = None if correct == 2 else bool(correct)
        outcome_text = outcomes.dictionary[int(outcome)].as_py()
        words[place] = word_of(Outcome(outcome_text), Reason(reason_text) if reason_text else None, is_correct)
    return words[kind_of]


def word_of(outcome: Outcome, reason: Reason | None, is_correct: bool | None) -> int:
    """Return what a verdict says, as flags."""
    return (
        USEFUL * is_useful(outcome, is_correct)
        | TRUE * (is_correct is True)
        | AGAINST * counts_against(outcome, reason, is_correct)
        | UNUSABLE * (outcome is Outcome.BAD_REFERENCE)
        | FALSE * (is_correct is False)
    )


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    pairs = pc.value_counts(column).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs if pair["values"] is not None}


def unjudged_places(folder: RunFolder, manifest: Manifest, state: RunState) -> Iterator[tuple[int, Position]]:
    """Yield the attempt's number and the place of every committed trace that lacks a verdict."""
    if state.num_with(TRACED, without=JUDGED) == 0:
        return
    for shard in manifest.traces:
        rows = folder.columns_of("traces", [shard], ["problem_id", "sample_index"])
        numbers = state.numbers(rows["problem_id"], rows["sample_index"].to_numpy())
        missing = np.flatnonzero(state.flags[numbers] & JUDGED == 0)
        for row in missing.tolist():
            yield int(numbers[row]), Position(shard.name, row)

"""Agreement of our words with another harness's scores on the same outputs, sample by sample.

Reads what harnesses log: lm-eval's ``samples_*.jsonl`` (``--log_samples``) and lighteval's details (Parquet). A logged
output and a stored trace are the same sample when their texts and their questions are the same, so that nothing hangs
on the order of either file. Says who said what, never who is right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from factory.storage import AnyPath
from factory.store import RunFolder
from jobs.evaluate.benchmarks import read_rows
from jobs.evaluate.samples import Item, Sample, Stored, read_stored
from schemas.errors import ConfigError
from schemas.problem import Answer, Choice, normalize_text

ANSWER_CHARS: Final = 200  # of an answer, as far as it is shown

Row = Mapping[str, Any]


class Logged(NamedTuple):
    """One output as another harness logged it."""

    questions: frozenset[str]  # every text that its item has, normalized: one of them is the question
    output: str
    answer: str | None  # that it read, where it says so
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A sample that both judged, and differently."""

    row_id: str
    problem_id: str
    trace_id: str
    sample_index: int
    reference: str | None
    theirs: bool
    their_answer: str | None
    ours: bool
    our_answer: str | None
    our_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How often both say the same. ``left_out`` outputs or samples are in no rate, by why."""

    metric: str
    both_right: int
    both_wrong: int
    only_theirs: int
    only_ours: int
    left_out: Mapping[str, int]
    differences: tuple[Difference, ...]

    @property
    def num_compared(self) -> int:
        """Samples with a word of both."""
        return self.both_right + self.both_wrong + self.only_theirs + self.only_ours

    @property
    def rate(self) -> float | None:
        """Share of these on which both agree."""
        return (self.both_right + self.both_wrong) / self.num_compared if self.num_compared else None


def compare_run(path: AnyPath, file: Path, metric: str | None) -> Compared:
    """Return how a run's verdicts agree with the scores that another harness logged.

    Raises:
        ConfigError: If the file is no such log, the metric is not clear, or no output in it is one of the run's.
    """
    logged, odd = read_log(file, metric)
    stored = read_stored(path)
    found = compare(stored, _texts(RunFolder(path)), logged.rows, logged.metric, odd)
    if not found.num_compared:
        raise ConfigError(f"{file}: none of its {len(logged.rows):,} outputs was compared: {dict(found.left_out)}")
    return found


def _texts(folder: RunFolder) -> dict[str, str]:
    """Return the text of every trace, by its id."""
    texts: dict[str, str] = {}
    for table in folder.tables_of("traces", folder.manifest().traces, ["trace_id", "text"]):
        texts.update(zip(table["trace_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts


def compare(
    stored: Stored, texts: Mapping[str, str], logged: Sequence[Logged], metric: str, odd: Mapping[str, int]
) -> Compared:
    """Return how words and scores agree; each sample and each logged output counts once."""
    waiting: dict[str, list[Sample]] = defaultdict(list)
    for samples in stored.samples.values():
        for sample in samples:
            waiting[texts[sample.trace_id].strip()].append(sample)
    questions = {problem_id: normalize_text(item.question) for problem_id, item in stored.items.items()}
    counts: Counter[tuple[bool, bool]] = Counter()
    left_out = Counter(odd)
    differences = []
    for one in logged:
        taken = _take(waiting[one.output.strip()], one, questions)
        if taken is None:
            left_out["outputs that are no sample of the run"] += 1
        elif taken.is_correct is None:
            left_out["samples without a word of ours"] += 1
        else:
            theirs = one.score > 0.5
            counts[theirs, taken.is_correct] += 1
            if theirs is not taken.is_correct:
                differences.append(_difference(stored.items[taken.problem_id], taken, one, theirs))
    left_out["samples of the run that are not logged"] += sum(map(len, waiting.values()))
    place = {problem_id: number for number, problem_id in enumerate(stored.items)}
    return Compared(
        metric=metric,
        both_right=counts[True, True],
        both_wrong=counts[False, False],
        only_theirs=counts[True, False],
        only_ours=counts[False, True],
        left_out={what: count for what, count in left_out.items() if count},
        differences=tuple(sorted(differences, key=lambda one: (place[one.problem_id], one.sample_index))),
    )


def _take(waiting: list[Sample], logged: Logged, questions: Mapping[str, str]) -> Sample | None:
    """Return the first sample with that output at that question, and take it out.

    A question may be logged inside a prompt, or without the options that stand behind it.
    """
    for number, sample in enumerate(waiting):
        ours = questions[sample.problem_id]
        if any(ours in theirs or ours.startswith(theirs) for theirs in logged.questions):
            return waiting.pop(number)
    return None


def _difference(item: Item, sample: Sample, logged: Logged, theirs: bool) -> Difference:
    reference = None
    if isinstance(item.reference, Answer | Choice):
        reference = item.reference.text if isinstance(item.reference, Answer) else item.reference.letter
    return Difference(
        row_id=item.row_id,
        problem_id=sample.problem_id,
        trace_id=sample.trace_id,
        sample_index=sample.sample_index,
        reference=reference,
        theirs=theirs,
        their_answer=None if logged.answer is None else logged.answer[:ANSWER_CHARS],
        ours=bool(sample.is_correct),
        our_answer=None if sample.answer is None else sample.answer[:ANSWER_CHARS],
        our_reason=sample.reason,
    )


# What harnesses log.


class Log(NamedTuple):
    """The outputs of a log, scored by one metric."""

    metric: str
    rows: list[Logged]


def read_log(file: Path, metric: str | None) -> tuple[Log, dict[str, int]]:
    """Return the outputs of a log with their scores, and how many rows could not be taken, by why.

    Raises:
        ConfigError: If it is no log of lm-eval or lighteval, or which of its metrics counts is not clear.
    """
    by_metric: dict[str, list[Logged]] = defaultdict(list)
    odd: Counter[str] = Counter()
    if not file.is_file():
        raise ConfigError(
            f"--against {file}: is no file; give lm-eval's samples_*.jsonl or lighteval's details (Parquet)"
        )
    for row, _ in read_rows(file):
        read = _lm_eval(row) if "resps" in row else _lighteval(row) if "model_response" in row else None
        if read is None:
            raise ConfigError(f"--against {file}: neither lm-eval nor lighteval logs rows of {', '.join(sorted(row))}")
        outputs, answer, scores, questions = read
        if len(outputs) != 1:
            odd[f"rows with {len(outputs)} outputs and one score"] += 1
            continue
        for name, score in scores.items():
            by_metric[name].append(Logged(questions, outputs[0], answer, score))
    chosen = metric if metric is not None else next(iter(by_metric), None) if len(by_metric) == 1 else None
    if chosen not in by_metric:
        there = ", ".join(sorted(by_metric)) or "no row with one output and a score"
        raise ConfigError(f"--metric {metric or '(none)'}: must be one of those in {file.name}: {there}")
    return Log(str(chosen), by_metric[str(chosen)]), dict(odd)


Found = tuple[list[str], str | None, dict[str, float], frozenset[str]]


def _lm_eval(row: Row) -> Found:
    """Return what a row of ``samples_*.jsonl`` says: one row for each filter, metrics named as in its results."""
    outputs = [text for response in row["resps"] for text in (response if isinstance(response, list) else [response])]
    kept = row.get("filtered_resps") or []
    answer = kept[0] if len(kept) == 1 and isinstance(kept[0], str) and kept[0] != outputs[0] else None
    names = row.get("metrics") or ()
    scores = {f"{name},{row.get('filter', 'none')}": float(row[name]) for name in names if _is_score(row.get(name))}
    return [str(output) for output in outputs], answer, scores, _questions(row.get("doc"))


def _lighteval(row: Row) -> Found:
    """Return what a row of details says: the document, the model's response, the metrics."""
    response = row["model_response"] or {}
    outputs = [str(text) for text in response.get("text") or []]
    read = (row["doc"].get("specific") or {}).get("extracted_predictions")
    answer = ", ".join(map(str, read)) if isinstance(read, list) and read else None
    scores = {name: float(value) for name, value in (row.get("metric") or {}).items() if _is_score(value)}
    return outputs, answer, scores, _questions(row["doc"])


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and value in (0, 1)


def _questions(doc: Any) -> frozenset[str]:
    texts = doc.values() if isinstance(doc, Mapping) else [doc]
    return frozenset(normalize_text(text) for text in texts if isinstance(text, str) and text.strip())

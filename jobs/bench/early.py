"""`factory bench early`: whether early abort spares what would be accepted, what it saves of loops, and its cost.

False alarms are counted over completed traces that would be accepted: readable by the checks of today, and not wrong by
the label that came along. Real ones come as files (``problem``, ``completion``, ``is_correct``) and as runs; long ones
are put together from them, alone and with work that repeats itself for good reason (``long_texts``). Each is looked at
as a stream, at every step at which the feeder would. Loops are made: some text, then a piece of it again and again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq

from factory.early import LOOK_TOKENS, Alarm, Detector, Rules
from factory.prompts import PromptTokenizer
from jobs.bench.long_texts import joined_texts, working_texts
from schemas.errors import ConfigError
from schemas.readability import ReadabilitySettings
from schemas.trace import FinishReason, TraceFormat
from schemas.verdict import Outcome, Reason
from verifiers.readability import judge_trace

SEED: Final = 5
PERIODS: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)  # tokens
LOOPS_PER_PERIOD: Final = 20
LIMIT: Final = 32_768  # tokens of an attempt: what R1's card recommends
LEAD_TOKENS: Final = 2_000  # before a loop begins, at most
LONG_TOKENS: Final = 1_536  # from here on a trace could be taken for a loop by the default
ATTEMPTS: Final = 20  # of each kind of defect
FOREIGN_WORDS: Final = 1_500
COUNTED: Final = tuple(f"Wait, let me check case {number} again. " for number in range(600))
OTHER_SCRIPTS: Final = {
    "zh": "我们 先 计算 这个 数 的 平方 然后 把 两边 相加 得到 结果 再 除以 二 最后 检查 是否 整数",
    "ru": "сначала вычислим квадрат этого числа затем сложим обе части и разделим результат на два потом",
    "th": "เริ่ม จาก คำนวณ กำลัง สอง ของ จำนวน นี้ แล้ว บวก ทั้ง ข้าง หาร ด้วย และ ตรวจ สอบ ผลลัพธ์",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A completed trace."""

    origin: str  # which kind of traces it belongs to
    problem: str
    text: str
    domain: str
    language: str
    format: TraceFormat
    is_right: bool | None

    def is_acceptable(self) -> bool:
        """Return whether a selection of today would take it."""
        if self.is_right is False:
            return False
        verdict = judge_trace(
            self.text,
            problem=self.problem,
            domain=self.domain,
            language=self.language,
            format=self.format,
            finish_reason=FinishReason.STOP,
        )
        return verdict.outcome is Outcome.READABLE


class Seen(NamedTuple):
    """What a detector made of one stream."""

    alarm: Alarm | None
    num_tokens: int  # until the alarm, or in all
    seconds: float


def read_traces(path: Path) -> list[Finished]:
    """Return the completions of a file.

    Raises:
        ConfigError: If it cannot be read, or a line is none.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [
            Finished(
                origin=path.stem,
                problem=row["problem"],
                text=row["completion"],
                domain=row.get("domain", "math"),
                language=row.get("language", "en"),
                format=TraceFormat(row.get("format", "plain")),
                is_right=row.get("is_correct"),
            )
            for row in rows
        ]
    except (OSError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"--traces {path}: holds no lines of problem and completion: {error!r}") from error


def read_run(path: Path) -> list[Finished]:
    """Return the accepted traces of a run's tables.

    Raises:
        ConfigError: If it has none.
    """
    columns = ["messages", "text", "domain", "language", "format", "is_accepted"]
    found = []
    for file in sorted(path.glob("tables/*/candidates/train-*.parquet")):
        for row in pq.read_table(file, columns=columns).to_pylist():
            if row["is_accepted"]:
                found.append(
                    Finished(
                        origin=path.name,
                        problem=row["messages"][-1]["content"],
                        text=row["text"],
                        domain=row["domain"],
                        language=row["language"],
                        format=TraceFormat(row["format"]),
                        is_right=True,
                    )
                )
    if not found:
        raise ConfigError(f"--run {path}: no accepted traces in its tables; build them with `factory select {path}`")
    return found


def make_long(count: int, real: Sequence[Finished]) -> list[Finished]:
    """Return half so many long traces of real texts alone, half with work between them."""
    texts = [one.text for one in real if one.format is TraceFormat.PLAIN and one.is_right is not False]
    if not texts:
        return []
    made = (("real ones joined", joined_texts), ("work that repeats", working_texts))
    return [
        Finished(
            origin=origin,
            problem="What is 1 + 1? Show all steps, in tables where that helps.",
            text=f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{2}}.",
            domain="math",
            language="en",
            format=TraceFormat.R1,
            is_right=True,
        )
        for origin, make in made
        for thought in make(count // len(made), texts, SEED)
    ]


def watch(token_ids: Sequence[int], text: str, rules: Rules, language: str, prompt: str) -> Seen:
    """Return what a detector says of a stream that comes in the feeder's steps; without ids, of its characters."""
    detector = Detector(rules, language, prompt)
    size = len(token_ids) or len(text) // 4 or 1
    begin = time.thread_time()
    told = 0
    for start in range(0, size, LOOK_TOKENS):
        end = min(size, start + LOOK_TOKENS)
        place = len(text) * end // size
        alarm = detector.take(token_ids[start:end], text[told:place])
        told = place
        if alarm is not None:
            return Seen(alarm, end, time.thread_time() - begin)
    return Seen(None, size, time.thread_time() - begin)


def rules_for(format: TraceFormat, loop_tokens: int) -> Rules:
    """Return the rules of a job as it comes."""
    return Rules(loop_tokens=loop_tokens, format=format, settings=ReadabilitySettings())


def false_alarms(
    traces: Sequence[Finished], tokenizer: PromptTokenizer, loop_tokens: int, done: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each origin of traces, and what was said of each that was ended wrongly."""
    rows: dict[str, dict[str, Any]] = {}
    wrong = []
    for number, trace in enumerate(traces, 1):
        done(number)
        row = rows.setdefault(
            trace.origin,
            {"traces": trace.origin, "read": 0, "accepted": 0, "long": 0, "tokens": 0, "alarms": 0}
            | {"by chars": 0, "seconds": 0.0},
        )
        row["read"] += 1
        if not trace.is_acceptable():
            continue
        rules = rules_for(trace.format, loop_tokens)
        ids = tokenizer.encode(trace.text)
        row["accepted"] += 1
        row["long"] += len(ids) >= LONG_TOKENS
        for column, given in (("alarms", ids), ("by chars", [])):
            seen = watch(given, trace.text, rules, trace.language, trace.problem)
            row[column] += seen.alarm is not None
            if seen.alarm is not None:
                wrong.append(f"{trace.origin}: {seen.alarm} after {seen.num_tokens:,} tokens: {trace.text[-80:]!r}")
            if given:
                row["seconds"] += seen.seconds
                row["tokens"] += seen.num_tokens
    for row in rows.values():
        row["us/token"] = round(row.pop("seconds") / max(1, row["tokens"]) * 1e6, 3)
    return list(rows.values()), wrong


def detection(real: Sequence[str], tokenizer: PromptTokenizer, loop_tokens: int) -> list[dict[str, Any]]:
    """Return a row for each period: how many made loops are found, how soon, and what that saves of the limit."""
    dice = random.Random(SEED)
    stream = tokenizer.encode("\n\n".join(dice.sample(list(real), min(len(real), 400))))
    rows = []
    for period in PERIODS:
        loops = list(_loops(stream, period, dice))
        found = [
            (seen, len(lead))
            for lead, ids in loops
            if (seen := watch(ids, "", rules_for(TraceFormat.PLAIN, loop_tokens), "en", "")).alarm is not None
        ]
        saved = sum(LIMIT - seen.num_tokens for seen, _ in found)
        rows.append(
            {
                "period": period,
                "loops": len(loops),
                "found": len(found),
                "until found": round(sum(seen.num_tokens - lead for seen, lead in found) / max(1, len(found))),
                "saved": f"{saved / (LIMIT * len(loops)):.1%}",
            }
        )
    return rows


def _loops(stream: Sequence[int], period: int, dice: random.Random) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what comes before a loop, and the whole up to the limit."""
    for _ in range(LOOPS_PER_PERIOD):
        begin = dice.randrange(max(1, len(stream) - period - LEAD_TOKENS))
        lead = list(stream[begin : begin + dice.randint(1, LEAD_TOKENS)])
        place = dice.randrange(max(1, len(stream) - period))
        unit = list(stream[place : place + period])
        yield lead, (lead + unit * (LIMIT // period + 1))[:LIMIT]


def agreement(real: Sequence[str], tokenizer: PromptTokenizer, loop_tokens: int) -> list[dict[str, Any]]:
    """Return for each kind of defect how many made attempts are ended, and whether readability gives that reason."""
    dice = random.Random(SEED)
    kinds = {
        "loop": (Reason.REPETITION_LOOP, "<think>\n{lead}\n" + "{unit}" * 400),
        "loop but for a number": (Reason.REPETITION_LOOP, "<think>\n{lead}\n" + "".join(COUNTED)),
        "no tag at first": (Reason.MALFORMED_TAGS, "{lead}\n" * 30),
        **{
            f"goes on in {language}": (
                Reason.LANGUAGE_MIXING,
                "<think>\n{lead}\n" + (" " * (language == "ru")).join(dice.choices(words.split(), k=FOREIGN_WORDS)),
            )
            for language, words in OTHER_SCRIPTS.items()
        },
    }
    rows = []
    for kind, (reason, form) in kinds.items():
        num_ended = num_agreed = num_rejected = 0
        for _ in range(ATTEMPTS):
            text = form.format(lead=dice.choice(real), unit=dice.choice(real)[-200:])
            seen = watch(tokenizer.encode(text), text, rules_for(TraceFormat.R1, loop_tokens), "en", "What is 1 + 1?")
            if seen.alarm is None:
                continue
            num_ended += seen.alarm.reason is reason
            size = len(text) * seen.num_tokens // max(1, len(tokenizer.encode(text)))
            verdict = judge_trace(
                text[:size],
                problem="What is 1 + 1?",
                domain="math",
                language="en",
                format=TraceFormat.R1,
                finish_reason=FinishReason.ABORT,
            )
            num_rejected += verdict.outcome is Outcome.UNREADABLE
            num_agreed += any(check.reason is reason for check in verdict.checks)
        rows.append(
            {"defect": kind, "attempts": ATTEMPTS, "ended": num_ended}
            | {"unreadable": num_rejected, "for it": num_agreed}
        )
    return rows

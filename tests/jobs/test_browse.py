"""Samples on a terminal: keys lead where they say, on a real pseudo-terminal too, and no text of a model acts there."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from factory.samples import FACETS, Asked, Samples
from jobs.bench.drill import wait_until
from jobs.browse import MAX_MARKS, Place, lines_of, move, start
from schemas.errors import ConfigError
from schemas.verdict import Outcome
from tests.hostile import NUM_PROBLEMS, NUM_SAMPLES, write_hostile_run
from tests.jobs.test_cli import factory

NUM_TRACES = NUM_PROBLEMS * NUM_SAMPLES - 1
PAGE = 5


@pytest.fixture(scope="module")
def samples(hostile_run: Path) -> Samples:
    return Samples(hostile_run, "default")


def _press(samples: Samples, place: Place, keys: str, num_lines: int = 12) -> Place:
    for key in keys:
        place = move(samples, place, key, num_lines, PAGE)
    return place


def test_keys_move_between_samples_and_stop_at_the_ends(samples: Samples) -> None:
    first = start(samples, Asked())
    assert (len(first.rows), first.number) == (NUM_TRACES, 0)
    assert _press(samples, first, "p") == first
    assert _press(samples, first, "nnp").number == 1
    assert _press(samples, first, "n" * 200).number == NUM_TRACES - 1
    assert _press(samples, first, "xyz?") == first


def test_keys_scroll_within_a_sample_and_a_new_sample_begins_at_its_top(samples: Samples) -> None:
    first = start(samples, Asked())
    assert _press(samples, first, " ").top == PAGE
    assert _press(samples, first, "  ").top == 12 - PAGE
    assert _press(samples, first, " jb").top == 1
    assert _press(samples, first, "G").top == 12 - PAGE
    assert _press(samples, first, "Gg").top == 0
    assert _press(samples, first, "k").top == 0
    assert _press(samples, first, " n").top == 0
    assert _press(samples, first, " ", num_lines=3).top == 0


@pytest.mark.parametrize(("key", "facet"), [("o", "outcome"), ("r", "reason"), ("d", "domain"), ("s", "source")])
def test_a_facets_key_goes_through_its_values_and_back_to_any(key: str, facet: str, samples: Samples) -> None:
    place, seen = start(samples, Asked()), []
    for _ in samples.counts(facet):
        place = _press(samples, place, key)
        seen.append(getattr(place.asked, facet))
        assert len(place.rows) == samples.counts(facet)[seen[-1]]
    assert seen == list(samples.counts(facet))
    assert _press(samples, place, key).asked == Asked()


def test_facets_narrow_one_another_and_a_undoes_all(samples: Samples) -> None:
    place = _press(samples, start(samples, Asked(source="source 1")), "oor")
    assert place.asked.source == "source 1"
    assert place.asked.outcome is not None
    for number in place.rows:
        row = samples.row(number)
        for facet in FACETS:
            assert getattr(place.asked, facet) in (None, row[facet] or "none")
    assert _press(samples, place, "a").asked == Asked()


def test_what_does_not_occur_together_is_said(samples: Samples) -> None:
    with pytest.raises(ConfigError, match="at once"):
        start(samples, Asked(outcome=Outcome.CORRECT, reason="empty_box"))


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_samples_lines_fit_the_terminal_and_cannot_act_on_it(width: int, samples: Samples) -> None:
    for number in range(len(samples)):
        lines = lines_of(samples.row(number), width)
        assert all(cell_len(line) <= width and line.isprintable() for line in lines)
    text = "\n".join(lines_of(samples.row(0), 10_000))
    assert "\u241b[2J" in text
    assert "<script>alert(1)</script>" in text
    assert "\\boxed{" in text


# The command


def test_without_a_terminal_samples_are_printed_up_to_a_limit(hostile_run: Path, samples: Samples) -> None:
    ended = factory("browse", hostile_run, "--outcome", "correct", "--limit", "3")
    assert ended.code == 0
    assert len(re.findall(r"^trace [0-9a-f]{32}$", ended.out, re.MULTILINE)) == 3
    assert f"{samples.counts('outcome')['correct'] - 3} more" in ended.err
    assert "\x1b" not in ended.out


def test_as_json_a_line_is_a_sample_with_all_of_its_columns(hostile_run: Path, samples: Samples) -> None:
    ended = factory("browse", hostile_run, "--reason", "none", "--source", "source 2", "--limit", "1000", "--json")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert len(rows) == len(samples.find(Asked(reason="none", source="source 2")))
    assert all(row["source"] == "source 2" and row["reason"] is None and row["text"] for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--outcome", "corect"], ["--outcome corect", "did you mean 'correct'", "wrong_answer"]),
        (["--selection", "short"], ["short", "--selection takes one of default", "factory select"]),
        (["--outcome", "correct", "--reason", "empty_box"], ["outcome correct, reason empty_box", "at once"]),
    ],
)
def test_what_is_not_there_is_a_usage_error_that_names_what_is(
    words: list[str], said: list[str], hostile_run: Path
) -> None:
    ended = factory("browse", hostile_run, *words)
    assert ended.code == 2
    for word in said:
        assert word in ended.err


def test_a_run_without_tables_says_how_to_build_them(tmp_path: Path) -> None:
    ended = factory("browse", tmp_path)
    assert ended.code == 2
    write_hostile_run(tmp_path / "run")
    (tmp_path / "run" / "tables").rename(tmp_path / "elsewhere")
    ended = factory("browse", tmp_path / "run")
    assert ended.code == 2
    assert f"factory select {tmp_path / 'run'}" in ended.err


def test_a_run_without_samples_says_so(tmp_path: Path) -> None:
    write_hostile_run(tmp_path / "run")
    (file,) = (tmp_path / "run" / "tables" / "default" / "candidates").glob("*.parquet")
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    ended = factory("browse", tmp_path / "run")
    assert (ended.code, "no samples" in ended.err) == (2, True)


def test_a_message_about_a_hostile_name_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    write_hostile_run(tmp_path / "run")
    (file,) = (tmp_path / "run" / "tables" / "default" / "candidates").glob("*.parquet")
    table = pq.read_table(file)
    place = table.schema.get_field_index("source")
    names = ["a\x1b]0;owned\x07"] * len(table)
    pq.write_table(table.set_column(place, table.schema.field("source"), [names]), file)
    ended = factory("browse", tmp_path / "run", "--source", "b")
    assert (ended.code, "\x1b" in ended.err, "\u241b]0;owned\u2407" in ended.err) == (2, False, True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_where_signs_cannot_be_written_there_are_others(encoding: str, hostile_run: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    words = [sys.executable, "-m", "jobs", "browse", str(hostile_run), "--limit", "1"]
    ended = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert b"trace " in ended.stdout


def test_a_reader_that_has_seen_enough_is_no_failure(hostile_run: Path) -> None:
    words = [sys.executable, "-m", "jobs", "browse", str(hostile_run), "--limit", "1000"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait(30)) == (b"", 0)


def test_marks_without_width_make_no_endless_line(samples: Samples) -> None:
    row = {**samples.row(0), "text": "e" + "\u0301" * 100_000}
    assert max(map(len, lines_of(row, 80))) <= 80 * MAX_MARKS


class Terminal:
    """A command on a pseudo-terminal of 30 lines and 100 columns."""

    def __init__(self, *words: str | Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *map(str, words)], stdin=slave, stdout=slave, stderr=slave, env=environment
        )
        self.slave = slave
        self.shown = ""

    def read(self) -> str:
        """Return all that was shown so far."""
        while select.select([self._master], [], [], 0.05)[0]:
            self.shown += os.read(self._master, 65536).decode("utf-8", errors="replace")
        return self.shown

    def head(self) -> str:
        """Return the head line that was drawn last."""
        heads = re.findall(r"\x1b\[7m(.*?)\x1b\[0m", self.read())
        return heads[-1] if heads else ""

    def press(self, keys: str, wanted: str) -> None:
        """Press keys and wait until the head line says what is wanted."""
        os.write(self._master, keys.encode())
        wait_until(lambda: wanted in self.head(), 30, f"{wanted!r} in {self.head()!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self._master)


@pytest.fixture
def terminal(hostile_run: Path) -> Iterator[Terminal]:
    found = Terminal("browse", hostile_run)
    yield found
    found.close()


def test_on_a_terminal_one_pages_by_keys_and_gets_the_terminal_back(terminal: Terminal, samples: Samples) -> None:
    terminal.press("", f"sample 1 of {NUM_TRACES}")
    terminal.press("n", "sample 2 of")
    terminal.press("\x1b[C", "sample 3 of")
    terminal.press("p", "sample 2 of")
    outcome, count = next(iter(samples.counts("outcome").items()))
    terminal.press("o", f"sample 1 of {count}")
    assert f"outcome: {outcome}" in terminal.head()
    terminal.press("a", f"sample 1 of {NUM_TRACES}")
    os.write(terminal._master, b"q")
    assert terminal.process.wait(30) == 0
    shown = terminal.read()
    assert shown.rstrip().endswith("\x1b[?1049l")
    assert termios.tcgetattr(terminal.slave) == terminal.before
    own = {"[H", "[K", "[7m", "[0m", "[2m", "[2J", "[?1049h", "[?1049l", "[?25l", "[?25h"}
    assert set(re.findall(r"\x1b(\[[?0-9;]*[A-Za-z]|.)", shown)) <= own
    assert shown.count("\x1b[2J") == 1  # ours at the start; those of the texts are signs
    assert "\x07" not in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_gives_the_terminal_back(number: signal.Signals, terminal: Terminal) -> None:
    terminal.press("", "sample 1 of")
    terminal.process.send_signal(number)
    assert terminal.process.wait(30) == 128 + number
    assert terminal.read().rstrip().endswith("\x1b[?1049l")
    assert termios.tcgetattr(terminal.slave) == terminal.before


@pytest.mark.parametrize("end", [b"\x03", b"\x04"])
def test_control_c_and_control_d_end_it_too(end: bytes, terminal: Terminal) -> None:
    terminal.press("", "sample 1 of")
    time.sleep(0.1)
    os.write(terminal._master, end)
    assert terminal.process.wait(30) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before

"""The report of a run that holds hostile texts: its figures are the run's, it is bounded, and nothing in it acts."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from factory.page import PER_OUTCOME, build_page, write_page
from factory.plots import length_bins, rate_bins
from factory.report import read_status
from factory.samples import FACETS, NONE, Asked, Samples
from schemas.errors import ConfigError, StoreError
from schemas.verdict import Outcome
from tests.factory.test_mathml import MATH, Reader
from tests.hostile import NUM_PROBLEMS, NUM_SAMPLES


@pytest.fixture(scope="module")
def page(hostile_run: Path) -> str:
    return build_page(hostile_run)


def test_the_funnel_is_the_status_of_the_run(hostile_run: Path, page: str) -> None:
    rows = re.findall(r'<tr class="in\d"><td>([^<]*)</td><td class="n">([\d,]*)</td>', page)
    shown = {label: int(count.replace(",", "")) for label, count in rows}
    status = read_status(hostile_run)
    assert shown["requested"] == status.counts.requested == NUM_PROBLEMS * NUM_SAMPLES
    assert shown["generated"] == status.counts.generated == NUM_PROBLEMS * NUM_SAMPLES - 1
    assert shown["pending"] == status.counts.pending == 1
    assert shown["judged"] == status.counts.judged
    assert {outcome: shown[outcome] for outcome in status.outcomes} == dict(status.outcomes)
    assert {reason: shown[f"reason: {reason}"] for reason in status.reasons} == dict(status.reasons)
    assert shown["accepted (selection default)"] == status.accepted
    assert "1 attempts are pending" in page


def test_the_cost_is_that_of_the_status(hostile_run: Path, page: str) -> None:
    costs = read_status(hostile_run).costs
    assert costs.whole.num_accepted == read_status(hostile_run).accepted
    row = re.search(r'<td>all</td><td class="n">([\d,]*)</td><td class="n">([\d,]*)</td>', page)
    assert row is not None
    assert [int(word.replace(",", "")) for word in row.groups()] == [costs.whole.num_tokens, costs.whole.num_accepted]
    for cost in (*costs.by_domain, *costs.dearest):
        assert cost.name[:12] in page


def test_sources_and_domains_sum_to_the_outcomes(hostile_run: Path) -> None:
    sums, status = Samples(hostile_run, "default").sums(), read_status(hostile_run)
    assert sums.num_traces == NUM_PROBLEMS * NUM_SAMPLES - 1
    total: Counter[str] = Counter()
    for counts in sums.by_source.values():
        total.update(counts)
    assert total == Counter(status.outcomes)
    assert sums.accepted.total() == status.accepted
    assert {source for _, source in sums.by_source} == {"source 0", "source 1", "source 2"}
    assert {outcome: counts.total() for outcome, counts in sums.lengths.items()} == dict(status.outcomes)
    assert sum(sums.pass_rates.values()) == NUM_PROBLEMS


def test_bars_of_a_plot_hold_every_sample_once(hostile_run: Path, page: str) -> None:
    lengths, rates = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert (
        sum(int(count) for count in re.findall(r": (\d+) \w+ samples</title>", lengths))
        == Samples(hostile_run, "default").sums().num_traces
    )
    assert sum(int(count) for count in re.findall(r": (\d+) problems</title>", rates)) == NUM_PROBLEMS
    for place, height in re.findall(r'y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', page):
        assert 12 <= float(place) <= float(place) + float(height) <= 205.02


def test_every_outcome_has_up_to_ten_samples_and_one_of_a_problem_first(hostile_run: Path, page: str) -> None:
    samples = Samples(hostile_run, "default")
    sections = page[page.index('<h2 id="samples">') :].split("<h3>")[1:]
    assert len(sections) == len(samples.counts("outcome"))
    for section in sections:
        outcome = re.findall(r'b-(\w+)"', section)[0]
        count = samples.counts("outcome")[outcome]
        ids = re.findall(r'class="id">([0-9a-f]{12})<', section)
        assert len(ids) == len(set(ids)) == min(count, PER_OUTCOME)
        if outcome == Outcome.CORRECT:
            rows = [samples.row(number) for number in samples.find(Asked(outcome=outcome))]
            problems = {row["trace_id"][:12]: row["problem_id"] for row in rows}
            assert len({problems[found] for found in ids}) == PER_OUTCOME


def test_nothing_in_the_page_acts_or_loads_and_a_policy_says_so_to_the_browser(page: str) -> None:
    seen = Reader(page)
    allowed = MATH | {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "dl", "dt", "dd", "strong", "div"),
        *("table", "tr", "th", "td", "span", "i", "code", "figure", "figcaption", "svg", "line", "rect", "text"),
        *("details", "summary"),
    }
    for tag, attributes in seen.tags:
        assert tag in allowed
        assert not {name for name in attributes if name.startswith("on") or name in ("href", "src", "action")}
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in seen.tags
    assert not re.search(r"url\(|@import|https?://", page)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "\u241b[2J" in page  # shown as a sign
    assert "{{ 7*7 }}" in page  # text, not a template
    assert "<script>alert(1)</script>" in seen.text  # as text


def test_the_same_run_gives_the_same_bytes_and_a_size_that_does_not_follow_the_texts(
    hostile_run: Path, page: str, tmp_path: Path
) -> None:
    assert write_page(hostile_run, None, tmp_path / "page.html") == len(page.encode())
    assert (tmp_path / "page.html").read_text() == page
    assert len(page) < 1_000_000


def test_a_page_that_cannot_be_written_or_a_selection_that_is_not_built_is_named(
    hostile_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(hostile_run, None, tmp_path / "no/such/page.html")
    with pytest.raises(
        ConfigError, match=r"--selection takes one of default.*factory select .* --set select.name=short"
    ):
        build_page(hostile_run, "short")


# Plots


def test_bins_of_lengths_have_one_round_width_and_lose_nothing() -> None:
    bins = length_bins({"correct": Counter({1: 2, 49: 1, 50: 4}), "wrong_answer": Counter({1100: 5})})
    assert (bins[0].label, bins[1].label, len(bins)) == ("0 to 49", "50 to 99", 23)
    assert bins[0].counts == {"correct": 3}
    assert bins[1].counts == {"correct": 4}
    assert bins[-1].counts == {"wrong_answer": 5}
    assert length_bins({})[0].counts == {}


def test_pass_rates_that_are_never_or_always_stand_apart() -> None:
    pairs = {(0, 4): 3, (4, 4): 2, (1, 10): 1, (2, 10): 1, (1, 64): 1, (63, 64): 1, (9, 10): 1, (0, 0): 7}
    counts = {found.label: found.counts["all"] for found in rate_bins(pairs)}
    assert counts["0"] == 3
    assert counts["1"] == 2
    assert counts["over 0 to 0.1"] == 2
    assert counts["over 0.1 to 0.2"] == 1
    assert counts["over 0.8 to 0.9"] == 1
    assert counts["over 0.9, below 1"] == 1
    assert sum(counts.values()) == 10  # without the seven that nobody could judge


# Samples


def test_samples_are_found_by_facets_that_narrow_one_another(hostile_run: Path) -> None:
    samples = Samples(hostile_run, "default")
    for facet in FACETS:
        for value, count in samples.counts(facet).items():
            rows = [samples.row(number) for number in samples.find(Asked(**{facet: value}))]
            assert len(rows) == count
            assert {row[facet] for row in rows} == {None if value == NONE else value}
    both = samples.find(Asked(outcome=Outcome.UNREADABLE, source="source 1"))
    assert set(both) == set(samples.find(Asked(outcome=Outcome.UNREADABLE))) & set(
        samples.find(Asked(source="source 1"))
    )
    assert both == sorted(both)


def test_a_value_that_no_sample_has_is_named_with_those_that_are_there(hostile_run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--outcome unreadible: no sample has it; did you mean 'unreadable'\? there are: .*correct"
    ):
        Samples(hostile_run, "default").find(Asked(outcome="unreadible"))


def test_tables_that_cannot_be_what_this_version_wrote_are_one_clear_error(hostile_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(hostile_run, tmp_path / "run"))
    (file,) = (copy / "tables" / "default" / "candidates").glob("*.parquet")
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["num_true"]), file)
    with pytest.raises(StoreError, match=r"'num_true' is missing.*factory select"):
        Samples(copy, "default")
    place = table.schema.get_field_index("num_true")
    pq.write_table(table.set_column(place, "num_true", table["num_true"].cast("string")), file)
    with pytest.raises(StoreError, match=r"'num_true' is string, not int32"):
        Samples(copy, "default")
    file.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="factory select"):
        Samples(copy, "default")


def test_samples_and_sums_do_not_depend_on_row_groups_and_shards(hostile_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(hostile_run, tmp_path / "run"))
    (file,) = (copy / "tables" / "default" / "candidates").glob("*.parquet")
    table = pq.read_table(file)
    file.unlink()
    for shard, start in enumerate((0, 20)):
        part = table.slice(start, 20 if start == 0 else None)
        pq.write_table(part, file.parent / f"train-{shard:05d}-of-00002.parquet", row_group_size=7)
    whole, parts = Samples(hostile_run, "default"), Samples(copy, "default")
    assert parts.sums() == whole.sums()
    assert [parts.row(n)["trace_id"] for n in range(len(parts))] == [
        whole.row(n)["trace_id"] for n in range(len(whole))
    ]
    assert build_page(copy).count("<details") == build_page(hostile_run).count("<details")


def test_a_page_says_when_its_tables_are_not_of_todays_verdicts(hostile_run: Path, tmp_path: Path, page: str) -> None:
    assert "builds them anew" not in page
    copy = Path(shutil.copytree(hostile_run, tmp_path / "run"))
    (file,) = (copy / "tables" / "default" / "candidates").glob("*.parquet")
    table = pq.read_table(file)
    other = ["no_answer" if word == "wrong_answer" else word for word in table["outcome"].to_pylist()]
    place = table.schema.get_field_index("outcome")
    pq.write_table(table.set_column(place, table.schema.field("outcome"), [other]), file)
    assert "builds them anew" in build_page(copy)


def test_a_source_that_is_called_none_counts_with_what_has_none(hostile_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(hostile_run, tmp_path / "run"))
    (file,) = (copy / "tables" / "default" / "candidates").glob("*.parquet")
    table = pq.read_table(file)
    names = [
        None if name == "source 0" else "none" if name == "source 1" else "" for name in table["source"].to_pylist()
    ]
    place = table.schema.get_field_index("source")
    pq.write_table(table.set_column(place, table.schema.field("source"), [names]), file)
    samples = Samples(copy, "default")
    assert set(samples.counts("source")) == {"none", ""}
    for name, count in samples.counts("source").items():
        assert len(samples.find(Asked(source=name))) == count

"""Benchmarks count what they say they count; their figures themselves are no test."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.bench import adaptive, mutants, saturation, selection, turns
from jobs.bench.hostile import below
from jobs.bench.math import (
    Case,
    by_category,
    graders,
    mistakes,
    read_cases,
    run,
    share_of_sympy,
    speed_ratios,
    summary,
    typical_cases,
)
from schemas.config import AdaptiveConfig
from schemas.errors import ConfigError, FactoryError
from tests.jobs.test_cli import factory

ROWS: list[dict[str, Any]] = [
    {"id": "a", "gold": "1/2", "prediction": "\\boxed{0.5}", "expected": True, "category": "fraction"},
    {"id": "b", "gold": "1/2", "prediction": "\\boxed{0.6}", "expected": False, "category": "fraction"},
    {"id": "c", "gold": "3", "prediction": "\\boxed{3}", "expected": True, "category": "number", "disputed": True},
    {
        "id": "d",
        "gold": "7",
        "prediction": None,
        "prediction_parts": [["so ", 3], ["\\boxed{7}", 1]],
        "expected": True,
        "category": "long",
        "hostile": True,
    },
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    return path


def test_cases_are_read_put_together_and_the_disputed_left_out(cases: Path) -> None:
    found = read_cases(cases)
    assert [case.name for case in found] == ["a", "b", "d"]
    assert found[-1].completion == "so so so \\boxed{7}"
    assert [case.is_hostile for case in found] == [False, False, True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "line 5"),
        ('{"gold": "1", "expected": true, "category": "x"}', "KeyError: 'prediction'"),
        ('{"gold": 1, "prediction": "1", "expected": true, "category": "x"}', "must be texts"),
        ("[1]", "is no case"),
    ],
)
def test_a_line_that_is_no_case_is_named(line: str, words: str, cases: Path) -> None:
    cases.write_text(cases.read_text().rstrip("\n") + "\n" + line)
    with pytest.raises(ConfigError, match=words):
        read_cases(cases)


def test_right_wrong_and_raised_are_counted_apart_and_each_grader_sees_each_case_in_every_round() -> None:
    found = [
        Case(name=f"{n}", completion=str(n), reference="0", expected=n < 4, category="even" if n % 2 == 0 else "odd")
        for n in range(8)
    ]
    seen: dict[str, list[str]] = {"all": [], "none": [], "raises": []}

    def accept(completion: str, reference: str) -> bool:
        seen["all"].append(completion)
        return True

    def reject(completion: str, reference: str) -> bool | None:
        seen["none"].append(completion)
        return None if completion == "7" else False

    def fail(completion: str, reference: str) -> bool:
        seen["raises"].append(completion)
        if completion.isdigit():
            raise ZeroDivisionError(completion)
        return True

    counted: list[int] = []
    scores = run(found, {"all": accept, "none": reject, "raises": fail}, 3, counted.append)
    assert counted == [8]  # told after each turn
    for asked in seen.values():
        assert sorted(asked[1:]) == sorted([str(n) for n in range(8)] * 3)  # the first is to warm up
    figures = summary(found, scores)
    wanted = ("right", "false accepts", "false rejects", "exceptions")
    assert [figures["all"][name] for name in wanted] == [4, 4, 0, 0]
    assert [figures["none"][name] for name in wanted] == [3, 0, 4, 0]  # null is not the expected false
    assert [figures["raises"][name] for name in wanted] == [0, 0, 0, 8]
    assert by_category(found, scores)["even"] == {"all": (2, 4), "none": (2, 4), "raises": (0, 4)}
    assert [item["case"] for item in mistakes(found, scores["all"])] == ["4", "5", "6", "7"]
    assert {item["word"] for item in mistakes(found, scores["raises"])} == {f"ZeroDivisionError: {n}" for n in range(8)}


def test_graders_take_turns_and_another_begins_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.bench.math.TURN_CASES", 2)
    found = [Case(name=f"{n}", completion=str(n), reference="0", expected=True, category="x") for n in range(4)]
    seen: list[str] = []
    counted: list[int] = []
    grades = {name: lambda completion, reference, name=name: not seen.append(name + completion) for name in "ab"}
    run(found, grades, 1, counted.append)
    assert seen[2:] == ["a0", "a1", "b0", "b1", "b2", "b3", "a2", "a3"]
    assert counted == [2, 4]


def test_typical_cases_are_the_same_each_time_and_judged_right() -> None:
    found = typical_cases(200)
    assert found == typical_cases(200)
    assert {case.category for case in found} == {f"typical: {kind}" for kind in ("integer", "fraction", "root", "pair")}
    assert 60 < sum(bool(case.expected) for case in found) < 140
    assert all(3_400 < len(case.completion) < 4_000 for case in found)
    grade = graders(None)["factory"]
    assert [case for case in found if grade(case.completion, case.reference) != case.expected] == []
    assert share_of_sympy(found) == {"typical": 0.0}


def test_speed_ratios_are_ours_against_each_rival() -> None:
    figures = {"factory": {"verdicts/s, plain": 90.0, "right": 3}, "slow": {"verdicts/s, plain": 30.0, "right": 3}}
    assert speed_ratios(figures) == {"slow": {"plain": 3.0}}


def test_a_time_is_the_median_of_the_rounds_and_one_slow_round_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.002, 10.0, 19.0, 20.0, 20.004])  # begin and end of three rounds: 2 ms, 9 s, 4 ms
    found = [Case(name="a", completion="1", reference="1", expected=True, category="x")]
    monkeypatch.setattr("jobs.bench.math.time.perf_counter", lambda: next(clock))
    figures = summary(found, run(found, {"g": lambda completion, reference: True}, 3, lambda done: None))["g"]
    assert figures["p50 ms, plain"] == figures["max ms, plain"] == pytest.approx(4)
    assert figures["verdicts/s, plain"] == pytest.approx(250)


def test_math_verify_is_called_in_both_ways() -> None:
    found = graders("math-verify")
    assert [grade("\\boxed{\\frac{1}{2}}", "1/2") for grade in found.values()] == [True, True, True]
    assert found["factory"]("so \\boxed{3} and not 4", "4") is False
    with pytest.raises(ConfigError, match="there is: math-verify"):
        graders("verl")


def test_the_command_prints_tables_or_json(cases: Path) -> None:
    ended = factory("bench", "math", "--cases", cases, "--rounds", "1", "--json")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    assert body["graders"]["factory"]["right"] == 3
    assert body["mistakes"] == []
    assert body["categories"]["fraction"] == {"factory": [2, 2]}
    shown = factory("bench", "math", "--cases", cases, "--rounds", "1")
    for word in ("accuracy", "false accepts", "verdicts/s", "fraction"):
        assert word in shown.out
    typical = factory("bench", "math", "--typical", "20", "--rounds", "1")
    assert (typical.code, "typical: integer" in typical.out) == (0, True)
    nothing = factory("bench", "math")
    assert (nothing.code, "--typical N" in nothing.err) == (2, True)
    missing = factory("bench", "math", "--cases", cases.parent / "no.jsonl")
    assert (missing.code, "no.jsonl" in missing.err) == (2, True)


def test_the_readability_bench_counts_decisions_reasons_and_what_to_look_at(tmp_path: Path) -> None:
    good = "<think>\nSix sevens are what we are asked for, and this is a product.\n</think>\n\nThe answer is 42."
    rows = [
        {"id": "a", "trace": good, "problem": "6*7?", "style": "r1", "target_language": "en", "expected": "accept"},
        {"id": "b", "trace": "<think></think>42", "style": "r1", "expected": "empty_think"},
        {"id": "c", "trace": "<think></think>42", "style": "r1", "expected": "garbled"},
        {"id": "d", "trace": good, "style": "r1", "expected": "refusal"},
        {"id": "e", "completion": "It is 4. " * 200, "problem": "2+2?"},
        {"id": "twice", "trace": good, "style": "r1", "expected": "accept"},
        {"id": "twice", "trace": "<think></think>42", "style": "r1", "expected": "empty_think"},
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = factory("bench", "readability", "--cases", path, "--json")
    body = json.loads(ended.out)
    figures = body["figures"]
    assert (figures["decision right"], figures["reason right"]) == (5 / 6, 4 / 6)
    assert (figures["good rejected"], figures["bad accepted"]) == (0, 1)
    assert [(item["case"], item["said"]) for item in body["to look at"]] == [
        ("c", "empty_think"),
        ("d", "accept"),
        ("e", "repetition_loop"),
    ]
    assert factory("bench", "readability", "--cases", path).code == 0


def test_the_early_bench_counts_false_alarms_and_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.bench.early.LOOPS_PER_PERIOD", 2)
    monkeypatch.setattr("jobs.bench.early.PERIODS", (3, 1_000))
    monkeypatch.setattr("jobs.bench.early.ATTEMPTS", 2)
    steps = "".join(
        f"Then {n} apples and {n * n % 17} pears are {n + n * n % 17} pieces of fruit.\n" for n in range(60)
    )
    rows = [
        {"problem": "How many?", "completion": f"{steps}So there are 42.\nA: 42", "is_correct": True},
        {"problem": "How many?", "completion": "There are 41.\nA: 41", "is_correct": False},
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = factory("bench", "early", "--traces", path, "--made", "4", "--json")
    body = json.loads(ended.out)
    real = body["false alarms"][0]
    assert (real["read"], real["accepted"], real["alarms"], real["by chars"]) == (2, 1, 0, 0)
    assert [row["found"] for row in body["loops"]] == [2] * len(body["loops"])
    assert {row["defect"]: row["ended"] for row in body["defects"]}["no tag at first"] == 2
    assert body["wrongly ended"] == []
    assert factory("bench", "early", "--traces", path, "--made", "0").code == 0
    assert factory("bench", "early").code == 2
    assert "holds no lines" in factory("bench", "early", "--traces", tmp_path / "none.jsonl").err


def test_the_readability_bench_says_what_each_language_costs(tmp_path: Path) -> None:
    thoughts = {
        "en": "Then the sum of {0} and {1} is {2}, which we can check by hand.",
        "ru": "Тогда сумма чисел {0} и {1} равна {2}, это легко проверить.",
    }
    rows = [
        {
            "id": f"{language} {number}",
            "trace": "<think>\n"
            + "\n".join(thought.format(number, n * n, number + n * n) for n in range(1, 9))
            + f"\n</think>\n\n$\\boxed{{{number}}}$",
            "style": "r1",
            "target_language": language,
            "expected": "accept",
        }
        for language, thought in thoughts.items()
        for number in range(1, 9)
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = json.loads(factory("bench", "readability", "--cases", path, "--json").out)
    assert body["figures"]["good rejected"] == 0
    assert {(row["language"], row["KB"]) for row in body["costs"]} == {("en", 2), ("ru", 2)}
    assert all(0 < row["us per KB, median"] <= row["us per KB, slowest"] for row in body["costs"])


def test_a_readability_case_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"problem": "x"}\n')
    ended = factory("bench", "readability", "--cases", path)
    assert ended.code == 2
    assert "line 1" in ended.err


def test_changed_solutions_differ_in_one_operator_each() -> None:
    source = "def f(a, b):\n    if a < b and b != 0:\n        a += 1\n    return a % b\n"
    found = dict(mutants.changed(source, "f"))
    assert {change.partition(":")[0] for change in found.values()} == {
        "And -> Or", "Lt -> LtE", "NotEq -> Eq", "Add -> Sub", "Mod -> FloorDiv",
    }  # fmt: skip
    assert all(ast.dump(ast.parse(other)) != ast.dump(ast.parse(source)) for other in found)
    assert len(found) == 5


def test_the_code_bench_reads_humaneval_and_says_what_its_tests_let_through(tmp_path: Path) -> None:
    row = {
        "task_id": "own/0",
        "prompt": "def larger(a, b):\n",
        "canonical_solution": "    return a if a > b else b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 2\n    assert candidate(2, 1) == 2\n",
        "entry_point": "larger",
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps(row | {"task_id": "own/1", "canonical_solution": "    return a + b - min(a, b)\n"}) + "\n"
    )
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    ended = factory("bench", "code", "--cases", path, "--rounds", "0", "--json")
    assert ended.code == 0, ended.err
    body = json.loads(ended.out)
    assert body["figures"]["agreement"] == 1
    assert [one["cases"] for one in body["styles"]] == [2, 3]
    assert body["accepted changes"] == [{"case": "own/0/1", "change": "Gt -> GtE: return a if a > b else b"}]


def test_the_adaptive_arm_spends_less_than_the_fixed_one_at_equal_coverage() -> None:
    pool = adaptive.made_pool(240, 24, seed=1)
    assert sum(adaptive.histogram(pool).values()) == 240
    on, off = adaptive.measure(pool, AdaptiveConfig())
    for column in (on, off):
        assert column["fixed: coverage"] >= column["adaptive: coverage"] > 0.5
        assert column["adaptive: useful samples"] <= 2 * 240
        assert column["tokens, adaptive / fixed"] == column["adaptive: tokens"] / column["fixed: tokens"] < 0.75
    assert on["adaptive: tokens"] < off["adaptive: tokens"]


def test_a_fixed_arm_is_the_smallest_that_covers_enough() -> None:
    pool = adaptive.made_pool(60, 16, seed=2)
    useful = pool.is_useful
    for n in (2, 5, 16):
        coverage = float((useful[:, :n].sum(axis=1) >= 2).mean())
        smallest, spent = adaptive.fixed_arm(pool, 2, coverage)
        assert smallest <= n
        assert (useful[:, : smallest - 1].sum(axis=1) >= 2).mean() < coverage or smallest == 1
        assert spent.num_tokens == pool.tokens[:, :smallest].sum()


def test_the_clean_bench_prints_what_it_has_files_for_and_names_the_rest(tmp_path: Path) -> None:
    made = (
        (Path(__file__).parents[1] / "data" / "benchmark_made.jsonl")
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)
    )
    (tmp_path / "math500.jsonl").write_text("".join(made[:8]), encoding="utf-8")
    command = ("bench", "clean", "--problems", tmp_path, "--documents", "500", "--rows", "2000")
    body = json.loads(factory(*command, "--json").out)
    assert body["left out"] == ["math500.jsonl against math_test.jsonl: --problems DIR must hold both"]
    assert all(row["found"] >= 0.8 for row in body["edited copies of items"])
    assert [row["kept aside"] for row in body["the audit on good problems"]] == [0]
    assert body["near-duplicates"][0]["precision (true >= 0.75)"] == 1.0
    assert [row["documents"] for row in body["a large set; the last row is foreseen"]] == [1_000, 2_000, 10_000_000]
    (tmp_path / "math_test.jsonl").write_text("".join(made[8:]), encoding="utf-8")
    shown = factory(*command[:4], "--documents", "0")
    assert shown.code == 0
    assert "other problems taken for items of the benchmark" in shown.out


def test_the_steady_rate_counts_what_lies_between_ramp_and_drain_alone() -> None:
    second = 1_000_000
    waves = [saturation.Times(wave * 10 * second, (wave + 1) * 10 * second, 100) for wave in range(4) for _ in range(3)]
    assert saturation.steady_rate(waves, slots=3) == pytest.approx(30)  # 300 tokens in every ten seconds
    late = [*waves, saturation.Times(40 * second, 400 * second, 100)]  # alone at the end
    assert saturation.steady_rate(late, slots=3) == pytest.approx(30)
    with pytest.raises(ValueError, match="too few for 12 at a time"):
        saturation.steady_rate(waves, slots=12)


def test_arms_that_were_set_or_forced_differently_are_not_compared() -> None:
    alike = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 128}
    arms = {arm: saturation.ArmResult(0, 9, [saturation.Times(1, 5, 8)], alike) for arm in saturation.ARMS}
    saturation.compare(arms, 8)
    with pytest.raises(FactoryError, match="8 to 8 tokens, not 9"):
        saturation.compare(arms, 9)
    arms["async"].settings = alike | {"max_num_seqs": 128}
    with pytest.raises(FactoryError, match="differ in max_num_seqs"):
        saturation.compare(arms, 0)


def test_a_selection_is_measured_over_as_many_candidates_as_were_made_and_quotas_hold(tmp_path: Path) -> None:
    path = tmp_path / "candidates.parquet"
    selection.make_candidates(path, 1_001)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len({row["trace_id"] for row in rows}) == 1_001
    assert [row["problem_id"] for row in rows] == sorted(row["problem_id"] for row in rows)
    found = selection.measure(path, selection.WITH_QUOTAS, 1_001)
    assert found["judged"] == sum(row["outcome"] != "unjudged" for row in rows)
    assert 0 < found["accepted"] <= 300
    assert found["over quota"] > 0
    assert factory("bench", "selection", "--rule", "best").code == 2


@pytest.mark.slow
def test_the_benchmark_of_tables_says_how_fast_and_with_how_much_memory(tmp_path: Path) -> None:
    ended = factory("bench", "tables", "--gigabytes", "0.01", "--pairs", "1", "--folder", tmp_path, "--json")
    found = json.loads(ended.out)
    assert found["bytes of candidates"] == pytest.approx(1e7, rel=0.5)
    assert min(found["speed of ours / bare"]) > 0
    assert found["whole, bytes of all tables in Arrow"] > found["bytes of candidates"]
    assert not list(tmp_path.iterdir()), "what it made is gone"


def test_the_better_bare_arm_is_that_of_all_pairs_and_scatter_makes_no_rival() -> None:
    pairs = [
        {"factory": 10.0, "offline": 10.0, "async": 8.0},
        {"factory": 9.0, "offline": 10.0, "async": 12.0},
        {"factory": 10.0, "offline": 9.0, "async": 8.0},
    ]
    assert saturation.over_better(pairs) == pytest.approx([1.0, 0.9, 10 / 9])
    assert [saturation.over_each_better(pair) for pair in pairs] == pytest.approx([1.0, 0.75, 10 / 9])


COUNTING = """
import sys, time
begun, out = sys.argv[1:]
open(begun, "w").close()
while time.process_time() < 3:
    pass
open(out, "w").write(f"{time.time_ns() // 1000}")
"""


def test_cpu_time_is_told_by_what_a_process_is() -> None:
    titles = {"ray::EngineActor.feed": 2.0, "python\0-m\0jobs\0run\0job.yaml": 0.5, "/opt/ray/raylet\0--x": 0.25}
    titles |= {"ray::RuntimeEnvAgent": 0.25, "python\0-m\0verifiers.pool_worker\0math": 1.0, "sh": 0.125}
    arm = saturation.ArmResult(0, 9, [saturation.Times(1, 5, 8)] * 2, {}, cpu_by_title=titles)
    assert arm.cpu_s == 4.125
    assert list(saturation.cpu_by_role(arm).items()) == [
        ("engine actor", 1000),
        ("judging", 500),
        ("driver", 250),
        ("Ray", 250),
        ("others", 62.5),
    ]


def test_trees_in_turns_have_the_time_of_their_own_turns_alone(tmp_path: Path) -> None:
    def start(number: int) -> turns.Tree:
        begun, out = tmp_path / f"{number}.begun", tmp_path / f"{number}.out"
        process = subprocess.Popen([sys.executable, "-c", COUNTING, str(begun), str(out)])
        cores = sorted(os.sched_getaffinity(0))
        return turns.Tree(process, begun.exists, turns.Watch(process.pid, cores, cores))

    trees = turns.take_turns([partial(start, number) for number in range(2)], 60)
    for number, tree in enumerate(trees):
        ended_us = int((tmp_path / f"{number}.out").read_text())
        assert tree.process.returncode == 0
        assert len(tree.turns) >= 2
        assert tree.at(tree.turns[0][0]) == 0
        assert tree.at(ended_us) >= 2.9e6  # it needs three seconds of CPU
        ((title, seconds),) = tree.watch.seconds_since(tree.turns[0][0]).items()
        assert str(tmp_path / f"{number}.out") in title
        assert 0 < seconds <= 4
        assert tree.at(tree.turns[-1][1] + 5_000_000) == sum(end - begin for begin, end in tree.turns)
    both = sorted(turn for tree in trees for turn in tree.turns)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(both))


def test_a_tree_that_does_not_end_is_killed_with_all_below_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = f"import subprocess; open({str(begun)!r}, 'w').close(); subprocess.run(['sleep', '600'])"

    def start() -> turns.Tree:
        process = subprocess.Popen([sys.executable, "-c", script])
        return turns.Tree(process, begun.exists, turns.Watch(process.pid, [0], [0]))

    before = set(below(os.getpid()))
    with pytest.raises(TimeoutError, match="has not ended in 3 s"):
        turns.take_turns([start], 3)
    assert set(below(os.getpid())) <= before

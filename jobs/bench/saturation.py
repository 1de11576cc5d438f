"""`factory bench saturation`: the factory's tokens per second over those of the same requests through bare vLLM.

Real in every arm: vLLM with the job's teacher, the same prompts, the same resolved settings. Arms: ``factory`` (a run
by the command, with journal, verification and commits), ``offline`` (``LLM.generate``) and ``async`` (a bare
``AsyncLLM`` loop). Each is a process of its own. Once its engine is there, its processes are bound to one core and all
else of the arm to the others. The arms of a round work in turns of two seconds while the others are stopped
(``turns``): a machine that others use, too, is a tenth faster in one minute than in the next. The rate is that
between ramp (as many requests as the engine holds have their first token) and drain (fewer than that are left), from
the times of the requests, which all arms note alike; what a request makes is taken to come evenly from first token to
end. At last the factory runs alone, without stops: from there are its all-in rate and how its engine's time was spent.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import yaml

from factory.actors import STARTED
from factory.plan import make_plan
from factory.store import RunFolder
from jobs.bench.turns import Tree, Watch, run_alone, take_turns
from jobs.demo_teacher import SHIPPED_MODELS
from jobs.freezing import freeze
from schemas.config import JobConfig, SamplingConfig, VllmTeacher, load_config, parse_config
from schemas.errors import FactoryError

FACTORY, OFFLINE, ASYNC = "factory", "offline", "async"
ARMS: Final = (FACTORY, OFFLINE, ASYNC)
BARE: Final = (OFFLINE, ASYNC)
ARM_LIMIT_S: Final = 3_600.0
BEGUN: Final = "begun"  # file that a bare arm makes once its engine is there
ROLES: Final = {  # by what stands in the command line of a process, the first that does
    "ray::EngineActor": "engine actor",
    "ray::CoordinatorActor": "coordinator",
    "ray::CommitterActor": "committer",
    "ray::VerifierActor": "verifier",
    "verifiers.": "judging",
    "jobs run": "driver",
    "ray": "Ray",
}
TIMES: Final = ("submitted_at", "first_token_at", "finished_at")
COMPARED: Final = ("max_num_seqs", "max_num_batched_tokens", "max_model_len")


class Times(NamedTuple):
    """When a request had its first token and its end, in Unix microseconds, and how many tokens it made."""

    first_us: int
    end_us: int
    num_tokens: int


@dataclass(slots=True)
class ArmResult:
    """What one arm did."""

    begun_us: int
    ended_us: int
    requests: list[Times]
    settings: dict[str, Any]
    cpu_by_title: Mapping[str, float] = field(
        default_factory=dict
    )  # seconds but the engine's, from its first request on
    ledger: dict[str, float] = field(default_factory=dict)  # of the factory: seconds by what the engine did

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all its processes but the engine's, from its first request on."""
        return sum(self.cpu_by_title.values())


def steady_rate(requests: Sequence[Times], slots: int) -> float:
    """Return tokens per second between ramp and drain.

    Raises:
        ValueError: If there are too few requests for anything between.
    """
    ramp_us = sorted(one.first_us for one in requests)[min(slots, len(requests)) - 1]
    drain_us = sorted(one.end_us for one in requests)[-min(slots, len(requests))]
    if drain_us <= ramp_us:
        raise ValueError(f"{len(requests)} requests are too few for {slots} at a time: all of it is ramp and drain")
    tokens = sum(
        one.num_tokens
        * max(0, min(one.end_us, drain_us) - max(one.first_us, ramp_us))
        / max(1, one.end_us - one.first_us)
        for one in requests
    )
    return tokens / (drain_us - ramp_us) * 1e6


def rate_of_all(arm: ArmResult) -> float:
    """Return tokens per second from the first request to the end of everything."""
    return sum(one.num_tokens for one in arm.requests) / (arm.ended_us - arm.begun_us) * 1e6


@dataclass(frozen=True, slots=True)
class Bench:
    """What all arms have in common."""

    folder: Path
    job: JobConfig
    prompts: Path  # JSON lines of token ids, one per request

    @property
    def slots(self) -> int:
        """Requests that the engine holds."""
        assert isinstance(self.job.teacher, VllmTeacher), "prepare() made it"
        return self.job.teacher.engine.max_num_seqs


def overrides(num_requests: int, slots: int, num_tokens: int) -> list[str]:
    """Return what makes a job that of so many requests, with outputs of that length; 0: as they come."""
    forced = [f"sampling.min_tokens={num_tokens}", f"sampling.max_tokens={num_tokens}"] if num_tokens else []
    return [
        f"schedule.max_problems={num_requests}",
        "sampling.num_samples=1",
        f"teacher.engine.max_num_seqs={slots}",
        *forced,
    ]


def machine() -> str:
    """Return what machine this is, in words."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}"


def prepare(folder: Path, job_file: Path, overrides: Sequence[str]) -> Bench:
    """Freeze the job's problems once, and keep their prompts as the requests of the bare arms."""
    job = load_config(job_file, overrides)
    if not isinstance(job.teacher, VllmTeacher):
        raise FactoryError(f"{job_file}: teacher.kind={job.teacher.kind!r}: only vllm can be compared with vLLM")
    folder.mkdir(parents=True)
    path = folder / "frozen"
    path.mkdir()
    plan = make_plan(job, SHIPPED_MODELS)
    freeze(plan, path, lambda _: None)
    run = RunFolder(path)
    prompts = folder / "prompts.jsonl"
    with prompts.open("w") as file:
        for _, prompt in run.problems(run.manifest()):
            for _ in range(job.sampling.num_samples):
                file.write(json.dumps(prompt.token_ids) + "\n")
    (folder / "job.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json")))
    (folder / "teacher.json").write_text(plan.teacher.model_dump_json())
    return Bench(folder, job, prompts)


def measure_rounds(
    bench: Bench, rounds: int, done: Callable[[int], None]
) -> tuple[list[dict[str, ArmResult]], ArmResult]:
    """Return the arms of each round, which begins with another one each time, and what the factory did alone."""
    found = []
    for number in range(rounds):
        order = ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]
        arms = run_in_turns(bench, {arm: bench.folder / f"{arm}-{number}" for arm in order})
        compare(arms, bench.job.sampling.min_tokens)
        found.append(arms)
        done(number + 1)
    folder = bench.folder / "alone"
    alone = _result(bench, FACTORY, folder, run_alone(lambda: _start(bench, FACTORY, folder), ARM_LIMIT_S))
    done(rounds + 1)
    return found, alone


def compare(arms: dict[str, ArmResult], forced: int) -> None:
    """Check that the engines of a round were set alike, and that all outputs have the length that was forced, if any.

    Raises:
        FactoryError: If not: their rates could not be compared.
    """
    for arm, result in arms.items():
        lengths = {one.num_tokens for one in result.requests}
        if forced and lengths != {forced}:
            raise FactoryError(f"outputs of the arm {arm} have {min(lengths)} to {max(lengths)} tokens, not {forced}")
    for name in COMPARED:
        seen = {arm: result.settings[name] for arm, result in arms.items()}
        if len(set(seen.values())) > 1:
            raise FactoryError(f"the arms differ in {name}: {seen}")


def run_in_turns(bench: Bench, folders: Mapping[str, Path]) -> dict[str, ArmResult]:
    """Run some arms, each as a process of its own, in turns; all times are those of an arm's own turns.

    Raises:
        FactoryError: If one failed; its log is named.
    """
    starts = [partial(_start, bench, arm, folder) for arm, folder in folders.items()]
    trees = take_turns(starts, ARM_LIMIT_S)
    results = {}
    for (arm, folder), tree in zip(folders.items(), trees, strict=True):
        result = _result(bench, arm, folder, tree)
        results[arm] = replace(
            result,
            begun_us=tree.at(result.begun_us),
            ended_us=tree.at(result.ended_us),
            requests=[Times(tree.at(one.first_us), tree.at(one.end_us), one.num_tokens) for one in result.requests],
        )
    return results


def _start(bench: Bench, arm: str, folder: Path) -> Tree:
    folder.mkdir()
    out = folder / "result.json"
    command = [sys.executable, "-m", "jobs.bench.saturation", arm, str(bench.folder), str(out)]
    if arm == FACTORY:
        command = [sys.executable, "-m", "jobs", "run", str(bench.folder / "job.yaml"), "--run", str(folder / "run")]
    engine_cores, other_cores = split_cores()
    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, engine_cores)),
        "VLLM_NO_USAGE_STATS": "1",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    has_begun = partial(_has_begun, folder / "run" / "logs" if arm == FACTORY else out.with_name(BEGUN))
    return Tree(process, has_begun, Watch(process.pid, engine_cores, other_cores))


def _has_begun(path: Path) -> bool:
    """Return whether the engine of an arm has loaded: of a run by its logs, else by a file that says so."""
    return settings_in(path) is not None if path.name == "logs" else path.exists()


def _result(bench: Bench, arm: str, folder: Path, tree: Tree) -> ArmResult:
    if code := tree.process.returncode:
        raise FactoryError(f"the arm {arm} ended with exit code {code}; see {folder / 'log'}")
    result = _of_run(folder / "run") if arm == FACTORY else _of_file(folder / "result.json")
    result.cpu_by_title = tree.watch.seconds_since(result.begun_us)
    return result


def split_cores() -> tuple[list[int], list[int]]:
    """Return the engine's core, and those of everything else; on a machine with one core both are that."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[:1], cores[1:] or cores


def _of_run(path: Path) -> ArmResult:
    """Return what a run says of itself."""
    run = RunFolder(path)
    manifest = run.manifest()
    traces = run.columns_of("traces", manifest.traces, [*TIMES, "num_completion_tokens"])
    submitted, first, finished = (traces[name].cast(pa.int64()).to_pylist() for name in TIMES)  # microseconds
    requests = list(map(Times, first, finished, traces["num_completion_tokens"].to_pylist()))
    ended_us = (path / "manifest" / f"{manifest.number:06d}.json").stat().st_mtime_ns // 1000
    ledger = json.loads(max((path / "logs").glob("engine-time-*.json")).read_text())["seconds"]
    settings = settings_in(path / "logs")
    if settings is None:
        raise FactoryError(f"{path / 'logs'}: no engine says what its settings are")
    return ArmResult(min(submitted), ended_us, requests, settings, ledger=ledger)


def settings_in(logs: Path) -> dict[str, Any] | None:
    """Return the settings that the engine told at its start; None before that."""
    for log in logs.glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(f'{{"{STARTED}": '):
                settings: dict[str, Any] = json.loads(line)[STARTED]
                return settings
    return None


def _of_file(path: Path) -> ArmResult:
    body = json.loads(path.read_text())
    return ArmResult(body["begun_us"], body["ended_us"], [Times(*one) for one in body["requests"]], body["settings"])


def figures(rounds: Sequence[dict[str, ArmResult]], alone: ArmResult, slots: int) -> list[dict[str, Any]]:
    """Return a row for each arm: medians over the rounds; and one for the factory alone."""
    rows = []
    for arm, results in [*((arm, [arms[arm] for arms in rounds]) for arm in ARMS), (f"{FACTORY} alone", [alone])]:
        rows.append(
            {
                "arm": arm,
                "requests": len(results[0].requests),
                "tokens": statistics.median(sum(one.num_tokens for one in result.requests) for result in results),
                "tokens/s after ramp": statistics.median(steady_rate(result.requests, slots) for result in results),
                "tokens/s all in": statistics.median(map(rate_of_all, results)),
                "CPU ms per sample outside the engine": 1e3
                * statistics.median(result.cpu_s / len(result.requests) for result in results),
            }
        )
    return rows


def cpu_by_role(alone: ArmResult) -> dict[str, float]:
    """Return where the factory's CPU milliseconds per sample outside the engine go, dearest first."""
    found: dict[str, float] = {}
    for title, seconds in alone.cpu_by_title.items():
        words = title.replace("\0", " ")
        role = next((role for part, role in ROLES.items() if part in words), "others")
        found[role] = found.get(role, 0.0) + 1e3 * seconds / len(alone.requests)
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def ratios(rounds: Sequence[dict[str, ArmResult]], alone: ArmResult, slots: int) -> dict[str, Any]:
    """Return the factory's rate over that of the better bare arm, round by round and in the median, and the ledger.

    The better arm is the one with the higher median of all rounds. Each round's better one stands beside it: of two
    figures that scatter the larger lies, on average, above both. All in, the factory is the one that ran alone: in
    turns its waits for a clock are too short.
    """
    steady = [{arm: steady_rate(arms[arm].requests, slots) for arm in ARMS} for arms in rounds]
    whole = [{arm: rate_of_all(arms[arm]) for arm in BARE} | {FACTORY: rate_of_all(alone)} for arms in rounds]
    spent = {name: alone.ledger[name] for name in ("full", "starved", "blocked")}
    found = over_better(steady)
    return {
        "factory / better bare arm after ramp, median": statistics.median(found),
        "the least": min(found),
        "the most": max(found),
        "factory / each round's better bare arm after ramp, median": statistics.median(map(over_each_better, steady)),
        "factory alone / better bare arm all in, median": statistics.median(over_better(whole)),
        **{f"{name}, share of the time of feeding": spent[name] / sum(spent.values()) for name in spent},
    }


def over_better(rates: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the factory's rate in each round over that of the bare arm whose median of all rounds is the higher."""
    better = max(BARE, key=lambda arm: statistics.median(arms[arm] for arms in rates))
    return [arms[FACTORY] / arms[better] for arms in rates]


def over_each_better(rates: Mapping[str, float]) -> float:
    """Return the factory's rate in a round over that of its better bare arm."""
    return rates[FACTORY] / max(rates[arm] for arm in BARE)


# The bare arms, each in its own process: `python -m jobs.bench.saturation ARM FOLDER OUT`


def _sampling_params(sampling: SamplingConfig) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from factory.teachers.vllm import sampling_arguments

    return SamplingParams(
        **sampling_arguments(sampling),
        min_tokens=sampling.min_tokens,
        max_tokens=sampling.max_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _offline(teacher: VllmTeacher, sampling: SamplingConfig, prompts: list[list[int]], begun: Path) -> dict[str, Any]:
    from vllm import LLM
    from vllm.inputs import TokensPrompt

    from factory.teachers.vllm import engine_arguments

    llm = LLM(**engine_arguments(teacher) | {"disable_log_stats": False})  # else it tells no times
    shift_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000  # its times are monotonic
    begun.touch()
    begun_us = time.time_ns() // 1000
    outputs = llm.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids in prompts], _sampling_params(sampling), use_tqdm=False
    )
    ended_us = time.time_ns() // 1000
    requests = [
        (
            int(output.metrics.first_token_ts * 1e6) + shift_us,
            int(output.metrics.last_token_ts * 1e6) + shift_us,
            len(output.outputs[0].token_ids),
        )
        for output in outputs
    ]
    return _body(begun_us, ended_us, requests, llm.llm_engine.vllm_config)


async def _bare_async(
    teacher: VllmTeacher, sampling: SamplingConfig, prompts: list[list[int]], begun: Path
) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import TokensPrompt
    from vllm.v1.engine.async_llm import AsyncLLM

    from factory.teachers.vllm import engine_arguments, first_token_at_us

    arguments = engine_arguments(teacher) | {"disable_log_stats": False}  # as above
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    params = _sampling_params(sampling)

    async def one(number: int, ids: list[int]) -> tuple[int, int, int]:
        submitted_us = time.time_ns() // 1000
        final = None
        async for output in engine.generate(TokensPrompt(prompt_token_ids=ids), params, str(number)):
            final = output
        assert final is not None, "vLLM ended a request without an output"
        first_us = first_token_at_us(final, submitted_us)
        assert first_us is not None, "vLLM was told to keep statistics"
        return first_us, time.time_ns() // 1000, len(final.outputs[0].token_ids)

    begun.touch()
    begun_us = time.time_ns() // 1000
    requests = await asyncio.gather(*(one(number, ids) for number, ids in enumerate(prompts)))
    ended_us = time.time_ns() // 1000
    body = _body(begun_us, ended_us, requests, engine.vllm_config)
    engine.shutdown()
    return body


def _body(begun_us: int, ended_us: int, requests: Sequence[tuple[int, int, int]], config: Any) -> dict[str, Any]:
    settings = {
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "max_model_len": config.model_config.max_model_len,
    }
    return {"begun_us": begun_us, "ended_us": ended_us, "requests": requests, "settings": settings}


def main(arm: str, folder: Path, out: Path) -> None:
    """Run a bare arm and write what it did."""
    job = parse_config(yaml.safe_load((folder / "job.yaml").read_text()), origin=str(folder / "job.yaml"))
    teacher = VllmTeacher.model_validate_json((folder / "teacher.json").read_text())
    if teacher.engine.cpu_kvcache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(teacher.engine.cpu_kvcache_gib)
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    body = (
        _offline(teacher, job.sampling, prompts, out.with_name(BEGUN))
        if arm == OFFLINE
        else asyncio.run(_bare_async(teacher, job.sampling, prompts, out.with_name(BEGUN)))
    )
    out.write_text(json.dumps(body))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

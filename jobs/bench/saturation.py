"""`factory bench saturation`: the factory's tokens per second over those of the same requests through bare vLLM.

Real in every arm: vLLM with the job's teacher, the same prompts, the same resolved settings. Arms: ``factory`` (a run
by the command, with journal, verification and commits), ``offline`` (``LLM.generate``) and ``async`` (a bare
``AsyncLLM`` loop). Each is a process of its own. Once its engine is there, its processes are bound to one core and all
else of the arm to the others. The arms of a pair follow each other, in another order each time. The rate is that
between ramp (as many requests as the engine holds have their first token) and drain (fewer than that are left), from
the times of the requests, which all arms note alike; what a request makes is taken to come evenly from first token to
end.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import yaml

from factory.actors import STARTED
from factory.plan import make_plan
from factory.store import RunFolder
from jobs.bench.hostile import below
from jobs.demo_teacher import SHIPPED_MODELS
from jobs.freezing import freeze
from schemas.config import JobConfig, SamplingConfig, VllmTeacher, load_config, parse_config
from schemas.errors import FactoryError

FACTORY, OFFLINE, ASYNC = "factory", "offline", "async"
ARMS: Final = (FACTORY, OFFLINE, ASYNC)
BARE: Final = (OFFLINE, ASYNC)
ENGINE_TITLE: Final = "VLLM::"  # how vLLM names its processes: the core, and on a CPU its worker
LOOK_S: Final = 0.25  # between two looks at the processes of an arm
ARM_LIMIT_S: Final = 3_600.0
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
    cpu_s: float = 0.0  # of all its processes but the engine's, from its first request on
    ledger: dict[str, float] = field(default_factory=dict)  # of the factory: seconds by what the engine did


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


def measure_pairs(bench: Bench, pairs: int, done: Callable[[int], None]) -> list[dict[str, ArmResult]]:
    """Return the arms of each pair; they begin with another one each time."""
    found = []
    for pair in range(pairs):
        order = ARMS[pair % len(ARMS) :] + ARMS[: pair % len(ARMS)]
        arms = {}
        for arm in order:
            arms[arm] = run_arm(bench, arm, bench.folder / f"{arm}-{pair}")
            done(pair * len(ARMS) + len(arms))
        compare(arms, bench.job.sampling.min_tokens)
        found.append(arms)
    return found


def compare(arms: dict[str, ArmResult], forced: int) -> None:
    """Check that the engines of a pair were set alike, and that all outputs have the length that was forced, if any.

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


def run_arm(bench: Bench, arm: str, folder: Path) -> ArmResult:
    """Run one arm as a process of its own.

    Raises:
        FactoryError: If it failed; its log is named.
    """
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
        watch = _Watch(process.pid, engine_cores, other_cores)
        try:
            code = process.wait(timeout=ARM_LIMIT_S)
        finally:
            watch.end()
            process.kill()
    if code:
        raise FactoryError(f"the arm {arm} ended with exit code {code}; see {folder / 'log'}")
    result = _of_run(folder / "run") if arm == FACTORY else _of_file(out)
    result.cpu_s = watch.seconds_since(result.begun_us)
    return result


def split_cores() -> tuple[list[int], list[int]]:
    """Return the engine's core, and those of everything else; on a machine with one core both are that."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[:1], cores[1:] or cores


class _Watch(threading.Thread):
    """Binds the processes of an arm to their cores, and notes what CPU time those outside of the engine use."""

    def __init__(self, pid: int, engine_cores: list[int], other_cores: list[int]) -> None:
        super().__init__(daemon=True)
        self._pid, self._engine_cores, self._other_cores = pid, engine_cores, other_cores
        self._is_ended = threading.Event()
        self._looks: list[tuple[int, dict[int, float]]] = []  # (Unix microseconds, CPU seconds by process)
        self.start()

    def run(self) -> None:
        """Look until told to end."""
        while not self._is_ended.wait(LOOK_S):
            self._looks.append((time.time_ns() // 1000, self._look()))

    def _look(self) -> dict[int, float]:
        pids = [self._pid, *below(self._pid)]
        engines = {pid for pid in pids if ENGINE_TITLE in _command_line(pid)}
        used: dict[int, float] = {}
        for pid in pids:
            with suppress(OSError, IndexError):
                if engines:
                    _bind(pid, self._engine_cores if pid in engines else self._other_cores)
                if pid not in engines:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return used

    def end(self) -> None:
        """Stop looking."""
        self._is_ended.set()
        self.join()

    def seconds_since(self, begun_us: int) -> float:
        """Return the CPU seconds that were used after a moment."""
        before: dict[int, float] = {}
        last: dict[int, float] = {}
        for at_us, used in self._looks:
            last |= used
            if at_us <= begun_us:
                before |= used
        return sum(seconds - before.get(pid, 0.0) for pid, seconds in last.items())


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it ended this moment
        return ""


def _bind(pid: int, cores: list[int]) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            if os.sched_getaffinity(int(thread)) != set(cores):
                os.sched_setaffinity(int(thread), cores)


def _of_run(path: Path) -> ArmResult:
    """Return what a run says of itself."""
    run = RunFolder(path)
    manifest = run.manifest()
    traces = run.columns_of("traces", manifest.traces, [*TIMES, "num_completion_tokens"])
    submitted, first, finished = (traces[name].cast(pa.int64()).to_pylist() for name in TIMES)  # microseconds
    requests = list(map(Times, first, finished, traces["num_completion_tokens"].to_pylist()))
    ended_us = (path / "manifest" / f"{manifest.number:06d}.json").stat().st_mtime_ns // 1000
    ledger = json.loads(max((path / "logs").glob("engine-time-*.json")).read_text())["seconds"]
    return ArmResult(min(submitted), ended_us, requests, _settings_in(path / "logs"), ledger=ledger)


def _settings_in(logs: Path) -> dict[str, Any]:
    """Return the settings that the engine told at its start."""
    for log in logs.glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(f'{{"{STARTED}": '):
                settings: dict[str, Any] = json.loads(line)[STARTED]
                return settings
    raise FactoryError(f"{logs}: no engine says what its settings are")


def _of_file(path: Path) -> ArmResult:
    body = json.loads(path.read_text())
    return ArmResult(body["begun_us"], body["ended_us"], [Times(*one) for one in body["requests"]], body["settings"])


def figures(pairs: Sequence[dict[str, ArmResult]], slots: int) -> list[dict[str, Any]]:
    """Return a row for each arm: medians over the pairs."""
    rows = []
    for arm in ARMS:
        results = [pair[arm] for pair in pairs]
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


def ratios(pairs: Sequence[dict[str, ArmResult]], slots: int) -> dict[str, Any]:
    """Return the factory's rate over that of the better bare arm, pair by pair and in the median, and the ledger.

    The better arm is the one with the higher median of all pairs. Each pair's better one stands beside it: of two
    figures that scatter the larger lies, on average, above both.
    """
    steady = [{arm: steady_rate(pair[arm].requests, slots) for arm in ARMS} for pair in pairs]
    whole = [{arm: rate_of_all(pair[arm]) for arm in ARMS} for pair in pairs]
    ledgers = [pair[FACTORY].ledger for pair in pairs]
    fed = [sum(ledger[name] for name in ("full", "starved", "blocked")) for ledger in ledgers]
    shares = {
        f"{name}, share of the time of feeding": statistics.median(
            ledger[name] / total for ledger, total in zip(ledgers, fed, strict=True)
        )
        for name in ("full", "starved", "blocked")
    }
    found = over_better(steady)
    return {
        "factory / better bare arm after ramp, median": statistics.median(found),
        "the least": min(found),
        "the most": max(found),
        "factory / each pair's better bare arm after ramp, median": statistics.median(map(over_each_better, steady)),
        "factory / better bare arm all in, median": statistics.median(over_better(whole)),
        **shares,
    }


def over_better(rates: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the factory's rate in each pair over that of the bare arm whose median of all pairs is the higher."""
    better = max(BARE, key=lambda arm: statistics.median(pair[arm] for pair in rates))
    return [pair[FACTORY] / pair[better] for pair in rates]


def over_each_better(rates: Mapping[str, float]) -> float:
    """Return the factory's rate in a pair over that of its better bare arm."""
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


def _offline(teacher: VllmTeacher, sampling: SamplingConfig, prompts: list[list[int]]) -> dict[str, Any]:
    from vllm import LLM
    from vllm.inputs import TokensPrompt

    from factory.teachers.vllm import engine_arguments

    llm = LLM(**engine_arguments(teacher) | {"disable_log_stats": False})  # else it tells no times
    shift_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000  # its times are monotonic
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


async def _bare_async(teacher: VllmTeacher, sampling: SamplingConfig, prompts: list[list[int]]) -> dict[str, Any]:
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
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = f"{teacher.engine.cpu_kvcache_gib:g}"
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    body = (
        _offline(teacher, job.sampling, prompts)
        if arm == OFFLINE
        else asyncio.run(_bare_async(teacher, job.sampling, prompts))
    )
    out.write_text(json.dumps(body))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

"""`factory bench chaos`: processes of runs are killed with -9 over and over, and nothing may get lost or doubled by it.

A local Ray cluster of three raylets stays up, and a real `factory run` works on it; each round kills one process of it
at a random moment, or arms a point of the journal or of the commit protocol (``factory/faults.py``) and waits until a
process has died there. Every trace that was ever seen on disk is looked for after each kill. When a run is complete it
is checked whole, and the next one begins. Real are the command, Ray, journal, store, verifiers and kills; the teacher
is the scripted one, or, if asked for, the demo's on vLLM. Power failures are not simulated: the page cache stays.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from ray.cluster_utils import Cluster

import jobs
from factory import faults
from jobs.bench.drill import (
    MARK,
    POLL_S,
    Disk,
    DrillError,
    FactoryProcess,
    Findings,
    parent_of,
    processes_of,
    wait_for_no_process,
    wait_until,
)

ROLES: Final = {
    "coordinator": "ray::CoordinatorActor",
    "engine": "ray::EngineActor",
    "committer": "ray::CommitterActor",
    "verifier": "ray::VerifierActor",
}
ENGINE_CORE: Final = "engine core"  # vLLM's own process
TARGETS: Final = ("driver", *ROLES, "raylet", *faults.NAMES)
VLLM_TARGETS: Final = (ENGINE_CORE, "driver", *ROLES, "raylet")

END: Final = "the end"  # of complete runs, which are looked at whole

RECOVERY_S: Final = 600.0  # from a kill until new work is done, or a run ends: then the drill gives up
PAUSE_S: Final = 1.0  # at most, between the recovery from one kill and the next
HURRY: Final = 0.3  # share of the rounds that do not wait for the recovery from the one before
LEFT_S: Final = 30.0  # that actors get to end after their command
NUM_RAYLETS: Final = 2  # beside the head's, which the command itself is connected to
STORE: Final = {"segment_s": 1, "commit_interval_s": 0.5, "fsync_interval_s": 0.2, "partial_tokens": 32}
# Ray waits a quarter of a minute by default before it calls a node dead.
RAY_CONFIG: Final = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run does while its processes are killed."""

    job: Path
    overrides: tuple[str, ...] = ()
    every_second: tuple[str, ...] = ()  # overrides of the first run, the third and so on
    hurry: tuple[str, ...] = ()  # overrides that bring a run to its end quickly, when the rounds are over
    held: int  # attempts that engines hold at most: more new ones than that need new leases
    folder: Path | None = None  # where the command runs


def scripted_work(folder: Path) -> Work:
    """Write a job of 4,000 attempts, two engines and one verifier, good for some twenty rounds; return it.

    Every second run samples adaptively, the first one too.
    """
    lines = "".join(f'{{"q": "What is {n} + {7 * n}?", "a": "{8 * n}"}}\n' for n in range(1000))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problems.jsonl").write_text(lines, encoding="utf-8")
    columns = {"problem": "q", "answer": "a"}
    body = {
        "name": "chaos",
        "sources": [{"kind": "jsonl", "path": str(folder / "problems.jsonl"), "columns": columns}],
        "teacher": {"kind": "scripted", "num_engines": 2, "max_num_seqs": 8, "tokens_per_s": 2000},
        "sampling": {"num_samples": 4, "max_tokens": 400},
        # Here the kills are nobody's fault: no attempt is blamed for them.
        "schedule": {"max_deaths_per_attempt": 1000, "max_engine_restarts": 1000},
        "verify": {"max_tries": 1000, "num_processes": 1},
        "store": STORE,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    adaptive = ("schedule.adaptive={useful: 2, min_samples: 1}",)
    return Work(job=path, every_second=adaptive, hurry=("teacher.tokens_per_s=1000000",), held=32)


def vllm_work() -> Work:
    """Return the demo, with fewer problems and one engine that holds few attempts."""
    root = Path(jobs.__file__).parents[1]
    overrides = ["schedule.max_problems=24", "teacher.engine.max_num_seqs=16", "sampling.max_tokens=256"]
    overrides += [f"schedule.{name}=1000" for name in ("max_deaths_per_attempt", "max_engine_restarts")]
    overrides += ["verify.max_tries=1000", *(f"store.{name}={value}" for name, value in STORE.items())]
    return Work(job=root / "jobs" / "configs" / "demo.yaml", overrides=tuple(overrides), held=24, folder=root)


@dataclass(slots=True)
class Round:
    """One kill and what came of it."""

    target: str
    is_hit: bool = False
    num_ends: int = 0  # of the command, though it was not the target
    seconds: float | None = None  # from the kill until the work went on, see ``Chaos.round``; if that was waited for
    findings: Findings = field(default_factory=Findings)


class Raylets:
    """A local Ray cluster whose worker raylets can be killed and are replaced."""

    def __init__(self) -> None:
        self._node: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={**self._node, "_system_config": RAY_CONFIG})
        for _ in range(NUM_RAYLETS):
            self._cluster.add_node(**self._node)
        self.address = str(self._cluster.address)

    def kill_one(self, wanted: set[int]) -> bool:
        """Kill one of these raylets, unless it is the head's, and start another; False if there was none."""
        for node in self._cluster.worker_nodes:
            pid = int(node.all_processes["raylet"][0].process.pid)
            if pid in wanted:
                os.kill(pid, signal.SIGKILL)
                self._cluster.remove_node(node, allow_graceful=False)
                self._cluster.add_node(**self._node)
                return True
        return False

    def stop(self) -> None:
        """End all raylets, and with them what they started."""
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of this process, which the cluster's processes inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def draw(targets: Sequence[str], number: int, chance: random.Random) -> list[str]:
    """Return so many targets in random order, each as often as the others, give or take one."""
    drawn: list[str] = []
    while len(drawn) < number:
        drawn += chance.sample(targets, len(targets))
    return drawn[:number]


def scripted_rounds(number: int, folder: Path, seed: int, done: Callable[[int], None]) -> list[Round]:
    """Do so many rounds with the scripted teacher; as ``run_rounds``."""
    if not number:
        return []
    chance = random.Random(f"scripted/{seed}")
    return run_rounds(draw(TARGETS, number, chance), scripted_work(folder), folder, chance, done)


def vllm_rounds(number: int, folder: Path, seed: int, done: Callable[[int], None]) -> list[Round]:
    """Do so many rounds with the demo's teacher on vLLM, the first with its engine core; as ``run_rounds``."""
    if not number:
        return []
    chance = random.Random(f"vllm/{seed}")
    targets = [ENGINE_CORE, *draw(VLLM_TARGETS, number - 1, chance)]
    return run_rounds(targets, vllm_work(), folder, chance, done)


def run_rounds(
    targets: Sequence[str], work: Work, folder: Path, chance: random.Random, done: Callable[[int], None]
) -> list[Round]:
    """Do a round with each target, in this order; return them, and what a look at the complete runs found.

    Raises:
        DrillError: If a run does not go on after a kill, or processes are left.
    """
    chaos = Chaos(work, folder, chance)
    with _environment({MARK: str(chaos.mark), faults.VARIABLE: str(chaos.armed), "RAY_USAGE_STATS_ENABLED": "0"}):
        raylets = Raylets()
        try:
            chaos.begin(raylets)
            rounds = []
            for number, target in enumerate(targets, 1):
                rounds.append(chaos.round(target))
                done(number)
            rounds.append(chaos.finish())
        finally:
            chaos.stop()
            raylets.stop()
    wait_for_no_process(chaos.mark)
    return rounds


class Chaos:
    """Runs, one after the other, and what is done to them."""

    def __init__(self, work: Work, folder: Path, chance: random.Random) -> None:
        self._work = work
        self._folder = folder
        self._chance = chance
        self.mark, self.armed = folder / "processes", folder / "faults"
        self.armed.mkdir(parents=True)
        self._raylets: Raylets
        self._child: FactoryProcess
        self._disk: Disk
        self._num_runs = self._num_starts = self._seen_at_start = 0
        self._ends = Round(target=END)

    def begin(self, raylets: Raylets) -> None:
        """Start the first run on this cluster."""
        self._raylets = raylets
        self._next_run()

    def round(self, target: str) -> Round:
        """Kill the target in the middle of the work, and wait until the work goes on, as a rule.

        It does once engines have made more than they held at the kill, and more is committed than there was.
        """
        found = Round(target=target)
        time.sleep(self._chance.uniform(0, PAUSE_S))
        self._go_on(found)
        self._disk.findings = found.findings
        self._disk.look()
        if target in faults.NAMES:
            self._reach(target, found)
        elif target == "driver":
            self._child.kill()
            found.is_hit = True
        else:
            self._kill(target, found)
        began, run, seen = time.monotonic(), self._num_runs, self._disk.look()
        is_patient = self._chance.random() >= HURRY
        self._go_on(found)
        while is_patient and self._num_runs == run and found.seconds is None:
            if self._disk.look() > seen + self._work.held and self._disk.num_committed > seen:
                found.seconds = time.monotonic() - began
            self._check_time(began, f"no new work after {target} was killed")
            self._go_on(found)
        return found

    def finish(self) -> Round:
        """Let the run come to its end; return what was found at the end of this and all runs."""
        if self._work.hurry and self._child.process.poll() is None:
            self._child.kill()
        began = time.monotonic()
        while (code := self._child.process.poll()) != 0:
            if code is not None:
                self._count_end(self._ends, code)
                self._start(self._work.hurry)
            self._check_time(began, "the run does not end")
            time.sleep(POLL_S)
        self._check_run()
        return self._ends

    def stop(self) -> None:
        """Kill what is left of the command; its actors end with it."""
        if self._num_starts and self._child.process.poll() is None:
            self._child.kill()

    def _next_run(self) -> None:
        self._num_runs += 1
        self._disk = Disk(self._folder / f"run-{self._num_runs}")
        self._start()

    def _start(self, overrides: Sequence[str] = ()) -> None:
        self._num_starts += 1
        self._seen_at_start = len(self._disk.seen)
        kind = self._work.every_second if self._num_runs % 2 else ()
        settings = [part for text in (*self._work.overrides, *kind, *overrides) for part in ("--set", text)]
        arguments: list[object] = [
            "run",
            self._work.job,
            "--run",
            self._disk.path,
            "--address",
            self._raylets.address,
            *settings,
        ]
        mark = self._folder / f"start-{self._num_starts}"
        self._child = FactoryProcess(arguments, mark, environment={MARK: str(self.mark)}, folder=self._work.folder)

    def _go_on(self, found: Round) -> None:
        """Start the command again if it has ended; where the run is complete, check it and start the next one."""
        time.sleep(POLL_S)
        code = self._child.process.poll()
        if code == 0:
            self._check_run()
            self._next_run()
            self._disk.findings = found.findings
        elif code is not None:
            self._count_end(found, code)
            self._start()

    def _count_end(self, found: Round, code: int) -> None:
        """Count an end of the command, unless it was killed."""
        found.num_ends += code != -signal.SIGKILL
        if code != -signal.SIGKILL:
            found.findings.others.add(f"the command ended with {code}: {self._child.said()[-2000:]}")

    def _check_run(self) -> None:
        """Look at a complete run, and for processes that should have ended with it."""
        self._disk.findings = self._ends.findings
        self._disk.look_at_the_end()
        try:
            wait_until(lambda: not any(map(self._processes, ROLES)), LEFT_S, "all actors have ended")
        except DrillError:
            left = [name for role in ROLES for name in self._processes(role).values()]
            self._ends.findings.others.add(f"processes are left: {left}")

    def _processes(self, target: str) -> dict[int, str]:
        """Return the processes of a role."""
        title = ROLES.get(target, "EngineCore")
        return {pid: command for pid, command in processes_of(self.mark).items() if title in command}

    def _kill(self, target: str, found: Round) -> None:
        """Kill a process of the role, or the raylet of an engine, as soon as there is one.

        An engine core that dies before one ever worked ends the command, as a model that cannot be loaded would.
        """
        began = time.monotonic()
        while not (pids := self._processes("engine" if target == "raylet" else target)) or (
            target == ENGINE_CORE and self._disk.look() == self._seen_at_start
        ):
            self._check_time(began, f"no {target} to kill")
            self._go_on(found)
        if target == "raylet":
            found.is_hit = self._raylets.kill_one({parent_of(pid) for pid in pids})
            return
        with suppress(ProcessLookupError):
            os.kill(max(pids), signal.SIGKILL)  # the newest: older ones may be about to end
            found.is_hit = True

    def _reach(self, name: str, found: Round) -> None:
        """Have a process die at a fault point: the command's own are passed at its start."""
        nth = self._chance.randint(1, 3)
        if name.startswith("driver"):
            self._child.kill()
            nth = 1  # it writes one manifest at each start
        armed = faults.arm(self.armed, name, nth)
        began = time.monotonic()
        while not faults.hit_file(armed).exists():
            self._check_time(began, f"{name} is not reached")
            self._go_on(found)
        found.is_hit = True

    def _check_time(self, began: float, what: str) -> None:
        if time.monotonic() > began + RECOVERY_S:
            raise DrillError(f"{self._disk.path}: {what} for {RECOVERY_S:g} s; the command said:\n{self._child.said()}")


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return a row for each target, in the order in which they came first, and one for all."""
    names = list(dict.fromkeys(one.target for one in rounds))
    rows = [_row(name, [one for one in rounds if one.target == name]) for name in names]
    return [*rows, _row("all", rounds)]


def _row(name: str, rounds: Sequence[Round]) -> dict[str, Any]:
    waits = [one.seconds for one in rounds if one.seconds is not None]
    return {
        "killed": name,
        "rounds": sum(one.target != END for one in rounds),
        "hit": sum(one.is_hit for one in rounds),
        "lost": sum(len(one.findings.lost) for one in rounds),
        "doubled": sum(len(one.findings.doubled) for one in rounds),
        "changed": sum(len(one.findings.changed) for one in rounds),
        "wrong digests": sum(len(one.findings.digests) for one in rounds),
        "others": sum(len(one.findings.others) for one in rounds),
        "command ended": sum(one.num_ends for one in rounds),
        "seconds, median": round(statistics.median(waits), 1) if waits else None,
        "seconds, most": round(max(waits), 1) if waits else None,
    }


def others(rounds: Sequence[Round]) -> list[str]:
    """Return what was found beside traces and digests."""
    return sorted(text for one in rounds for text in one.findings.others)


def is_fine(rounds: Sequence[Round]) -> bool:
    """Return whether nothing was found, and no command ended that was not killed."""
    return all(one.findings.are_none and not one.num_ends for one in rounds)

"""Jobs on a real cluster (`ray start --head`, token authentication): uploaded, followed, left, found again, resumed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from factory.report import read_status
from jobs.bench.drill import (
    MARK,
    FactoryProcess,
    committed_traces,
    factory_process,
    kill_all,
    processes_of,
    wait_for_no_process,
    wait_until,
)
from jobs.submit import Submission, entrypoint, read_runtime_env
from schemas.errors import ConfigError
from tests.drills.test_other_teachers import add_rightly
from tests.runs import traces_on_disk, write_job
from tests.servers import free_port, odd_server

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE = {"segment_s": 1, "commit_interval_s": 1, "fsync_interval_s": 0.1}
SAMPLING = {"num_samples": 4, "max_tokens": 400}
JOB_STARTS_S = 300  # a job's environment and driver, on a busy machine


@dataclass(frozen=True)
class Cluster:
    """A running head, and what one must know to talk to it."""

    address: str
    token: str
    mark: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def ask(self, path: str) -> Any:
        """Return what the cluster answers, or None while it does not."""
        try:
            return (
                httpx.get(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)
                .raise_for_status()
                .json()
            )
        except httpx.HTTPError:
            return None

    def drivers(self, run_path: Path) -> list[int]:
        """Return the processes of the cluster that run `factory run` on this folder."""
        found = processes_of(self.mark)
        return [
            pid
            for pid, line in found.items()
            if " -m jobs run " in line and f"{run_path} " in line and "/sh" not in line
        ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start a head in a session of its own; at the end stop it, and see that nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="fr", dir="/tmp"))  # a socket's path holds 107 characters
    port, dashboard, agent = free_port(), free_port(), free_port()
    found = Cluster(address=f"http://127.0.0.1:{dashboard}", token=secrets.token_hex(16), mark=folder / "cluster")
    words = ["start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2", "--node-ip-address", "127.0.0.1"]
    ports = ["--port", str(port), "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            [Path(sys.executable).parent / "ray", *words, *ports, "--temp-dir", str(folder / "ray")],
            env={**os.environ, **found.environment, MARK: str(found.mark)},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: found.ask("/api/jobs/") == [], 120, f"a cluster answers, see {folder}/head.log")
        yield found
    finally:
        head.send_signal(signal.SIGTERM)  # `--block` takes its processes with it
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
        kill_all(found.mark)
        wait_for_no_process(found.mark)
        shutil.rmtree(folder, ignore_errors=True)


Submit = Callable[..., AbstractContextManager[FactoryProcess]]


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Submit:
    """Return how to submit ``job.yaml`` of this test's folder, whose run lies in ``run``."""
    count = iter(range(100))

    def start(
        *words: str | Path, address: str = cluster.address, token: str = cluster.token, **more: str
    ) -> AbstractContextManager[FactoryProcess]:
        asked: Sequence[str | Path] = ["submit", "job.yaml", "--address", address, "--run", tmp_path / "run", *words]
        environment = {**cluster.environment, "RAY_AUTH_TOKEN": token, **more}
        return factory_process(asked, tmp_path / f"submit-{next(count)}", environment=environment, folder=tmp_path)

    return start


def _write_job(folder: Path, *, num_problems: int = 12, **parts: object) -> None:
    """Write a job whose source is named as it is found from the working directory."""
    path = write_job(folder, num_problems=num_problems, store=STORE, sampling=SAMPLING, **parts)
    body = yaml.safe_load(path.read_text())
    body["sources"][0]["path"] = "problems.jsonl"
    path.write_text(yaml.safe_dump(body))


def test_a_job_runs_in_the_uploaded_folder_its_log_is_followed_and_its_end_is_ours(
    submit: Submit, tmp_path: Path
) -> None:
    _write_job(tmp_path)
    with submit() as child:
        assert child.wait() == 0, child.said()
        shown = child.out.read_text()
        assert "Running entrypoint" in shown
        assert "tables:" in shown  # the last that a run prints
        assert "submitted" in child.said()
        assert "INFO" not in child.said()  # Ray's own talk
    assert read_status(tmp_path / "run").counts.judged == 12 * 4


def test_a_job_that_ends_badly_says_why_and_its_exit_code_is_ours(submit: Submit, tmp_path: Path) -> None:
    _write_job(tmp_path)
    (tmp_path / "problems.jsonl").unlink()
    with submit() as child:
        assert child.wait() == 2
        assert "problems.jsonl" in child.out.read_text()


@pytest.mark.drill  # another job than that of the test before, with a variable
def test_a_variable_reaches_the_job_by_its_name_only(submit: Submit, tmp_path: Path) -> None:
    with odd_server(add_rightly) as (base_url, exchanges):
        teacher = {"kind": "openai", "model": "odd", "base_url": base_url, "api_key_env": "FAR_TEACHER_KEY"}
        _write_job(tmp_path, num_problems=2, teacher=teacher, prompt={"template": "boxed"})
        with submit("--env", "FAR_TEACHER_KEY") as child:  # not set here: known before anything is started
            assert child.wait() == 2
            assert "FAR_TEACHER_KEY" in child.said()
        with submit() as child:  # only the node that asks can know what is set there
            assert child.wait() == 1
            assert "FAR_TEACHER_KEY" in child.out.read_text()
        assert not exchanges
        with submit("--env", "FAR_TEACHER_KEY", FAR_TEACHER_KEY="hush-hush") as child:
            assert child.wait() == 0, child.out.read_text()
            assert "hush-hush" not in child.out.read_text() + child.said()
        assert {exchange.headers["Authorization"] for exchange in exchanges} == {"Bearer hush-hush"}


@pytest.mark.parametrize(
    ("token", "address", "words"),
    [
        ("f" * 32, None, ("refuses the token", "RAY_AUTH_TOKEN")),
        (None, "http://127.0.0.1:1", ("http://127.0.0.1:1", "nothing answers", "ray start --head")),
        (None, "127.0.0.1:8265", ("127.0.0.1:8265", "http://127.0.0.1:8265")),
        (None, "odd", ("answers, but not as a Ray cluster does",)),
    ],
    ids=["wrong token", "nobody there", "no address", "another server"],
)
def test_a_cluster_that_refuses_or_is_none_is_named_and_nothing_is_started(
    token: str | None, address: str | None, words: tuple[str, ...], submit: Submit, cluster: Cluster, tmp_path: Path
) -> None:
    _write_job(tmp_path)
    with odd_server(add_rightly) as (base_url, _):
        where = base_url.removesuffix("/v1") if address == "odd" else address or cluster.address
        with submit(address=where, token=token or cluster.token) as child:
            assert child.wait() == 2
            for word in words:
                assert word in child.said()
            assert "Traceback" not in child.said()
    assert not (tmp_path / "run").exists()


def test_the_address_that_is_given_is_the_one_that_is_asked(submit: Submit, cluster: Cluster, tmp_path: Path) -> None:
    _write_job(tmp_path)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        with submit("--no-follow", address="http://127.0.0.1:1", **{name: cluster.address}) as child:
            assert child.wait() == 2
            assert "http://127.0.0.1:1: nothing answers" in child.said()
    assert not any(str(tmp_path) in job["entrypoint"] for job in cluster.ask("/api/jobs/"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pipp: [requests]", ("pipp", "unknown key", "pip")),
        ("excludes: big", ("excludes='big'", "list")),
        ("env_vars: {N: 1}", ("env_vars", "quotes")),
        ("env_vars: null", ("env_vars",)),
        ("working_dir: /elsewhere", ("working_dir", "the one you are in")),
        ("[pip]", ("must be a mapping",)),
        ("a: [", ("cannot be read",)),
    ],
)
def test_a_wrong_runtime_environment_is_named_before_anything_is_asked(
    text: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "env.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_runtime_env(tmp_path / "env.yaml")
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("module", ["jobs.py", "factory/__init__.py"])
def test_a_module_that_would_hide_the_factorys_own_is_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_job(tmp_path)
    job_file = tmp_path / "job.yaml"
    asked = Submission(
        name="drill",
        words=["run", str(job_file)],
        files=[job_file],
        run_path=tmp_path / "run",
        address="http://127.0.0.1:8265",
    )
    monkeypatch.chdir(tmp_path)
    assert entrypoint(asked).endswith(" -m jobs run job.yaml")
    (tmp_path / module).parent.mkdir(exist_ok=True)
    (tmp_path / module).write_text("print('mine')")
    with pytest.raises(ConfigError, match="hides the factory's own"):
        entrypoint(asked)


def test_a_job_file_outside_the_working_directory_is_refused(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    _write_job(tmp_path)
    (tmp_path / "job.yaml").rename(tmp_path / "elsewhere" / "job.yaml")
    (tmp_path / "job.yaml").symlink_to("/dev/null")
    with submit() as child:
        assert child.wait() == 2
        assert "job.yaml" in child.said()


def test_detached_found_again_killed_and_submitted_again_a_run_loses_and_doubles_nothing(
    submit: Submit, cluster: Cluster, tmp_path: Path
) -> None:
    run, num_problems = tmp_path / "run", 40
    slow = {"kind": "scripted", "num_engines": 2, "max_num_seqs": 4, "tokens_per_s": 60}
    _write_job(tmp_path, num_problems=num_problems, teacher=slow)

    with submit() as child:  # Ctrl-C while it works
        wait_until(lambda: run.exists() and len(traces_on_disk(run)) > 8, JOB_STARTS_S, "first traces")
        child.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        if child.process.poll() is None:  # the impatient press it twice
            child.process.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
        assert "Traceback" not in child.said()
        assert "detached" in child.said()
        assert "same command" in child.said()
    (driver,) = cluster.drivers(run)
    made = len(traces_on_disk(run))
    wait_until(lambda: len(traces_on_disk(run)) > made, 120, "the job goes on")

    with submit("--set", "teacher.tokens_per_s=999", "--no-follow") as child:  # a change does not reach it
        assert child.wait(60) == 0
        assert "goes on as it was submitted" in child.said()
    with submit() as child:  # the same command: not a second job
        wait_until(lambda: "already" in child.said(), 60, "found again")
        assert "as it was submitted" not in child.said()
        assert cluster.drivers(run) == [driver]
        made = set(traces_on_disk(run))
        os.kill(driver, signal.SIGKILL)
        assert child.wait(120) == 1
        assert "died" in child.said()
        assert "submit again" in child.said()
    assert len(made) < num_problems * 4

    fast = ("--set", "teacher.tokens_per_s=20000")
    with submit(*fast) as child:
        assert child.wait() == 0, child.out.read_text()
    ended = committed_traces(run)
    keys = [(trace.problem_id, trace.sample_index) for trace in ended]
    assert len(keys) == len(set(keys)) == num_problems * 4
    assert made <= set(keys)


def test_stop_ends_the_job_and_says_that_what_is_finished_is_safe(
    submit: Submit, cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _write_job(tmp_path, num_problems=40, teacher={"kind": "scripted", "max_num_seqs": 4, "tokens_per_s": 60})
    with submit("--stop") as child:  # none goes on
        assert child.wait(60) == 2
        assert "no job works on" in child.said()
    with submit("--no-follow") as child:
        assert child.wait(60) == 0
    wait_until(lambda: run.exists() and len(traces_on_disk(run)) > 4, JOB_STARTS_S, "first traces")
    with submit() as follower:
        wait_until(lambda: "already" in follower.said(), 60, "found again")
        with submit("--stop") as child:
            assert child.wait(60) == 0
            assert "safe" in child.said()
        assert follower.wait(60) == 130
    assert {job["status"] for job in cluster.ask("/api/jobs/") if str(run) in job["entrypoint"]} == {"STOPPED"}
    wait_until(lambda: not cluster.drivers(run), 60, "the driver is gone")
    time.sleep(1)
    assert len(traces_on_disk(run)) > 4

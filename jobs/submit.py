"""Submission: a job file becomes a Ray job on a cluster, which runs the same `factory run` there.

Thin around Ray's job API. Holds nothing: what there is to know of a run lies in its folder, and what there is to know
of a job lies on the cluster, found again by an id that is made from the run. One job at a time works on a run:
submitting again while it goes on attaches to it, and after its end starts the next, which resumes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import requests
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from schemas.config import JobConfig
from schemas.errors import ConfigError, FactoryError
from schemas.problem import digest

# Not uploaded with the working directory: histories, environments, caches, and the runs themselves.
EXCLUDES: Final = ("/.git", "/.venv", "/runs", "/build", "/dist", "__pycache__", ".*_cache", ".hypothesis")
POLL_S: Final = 0.5
SETTLE_S: Final = 20.0  # that Ray may take to note the end of a job whose log has ended
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
# Ray's loggers that tell, as often as they pack a folder, what they leave out and when a connection ends.
CHATTY: Final = (
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
_LOST: Final = (aiohttp.ClientError, requests.RequestException, ConnectionError)


class DetachedError(FactoryError):
    """The user stopped following a job, which goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What to run, and where."""

    job: JobConfig
    job_file: Path
    run_path: Path
    address: str
    overrides: Sequence[str] = ()
    env_names: Sequence[str] = ()  # variables of this process that the job gets, by name
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Beginning of the ids of all jobs that work on this run."""
        return f"factory-{self.job.name}-{digest(['submission', str(self.run_path)])[:8]}-"


def read_runtime_env(path: Path | None) -> dict[str, Any]:
    """Return a Ray runtime environment from a YAML file.

    Raises:
        ConfigError: If the file is missing or holds no mapping.
    """
    if path is None:
        return {}
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--runtime-env {path}: cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"--runtime-env {path}: must be a mapping, such as {{pip: [...], env_vars: {{A: b}}}}")
    return body


def entrypoint(submission: Submission) -> str:
    """Return the command that the job runs: the installed `factory run`, or the one in the uploaded folder.

    Raises:
        ConfigError: If the job file is not in the folder that is uploaded.
    """
    try:
        shipped = submission.job_file.resolve().relative_to(Path.cwd())
    except ValueError:
        raise ConfigError(
            f"{submission.job_file}: must lie under the working directory {Path.cwd()}, which is what the cluster gets"
        ) from None
    # On this machine the job may take this very Python; elsewhere the cluster's own is the one that has the packages.
    python = sys.executable if urlsplit(submission.address).hostname in LOOPBACK else "python"
    words = [python, "-m", "jobs", "run", str(shipped), "--run", str(submission.run_path), "--address", "auto"]
    return shlex.join([*words, *(word for override in submission.overrides for word in ("--set", override))])


def connect(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's job API.

    Raises:
        ConfigError: If the address is none, nothing answers there, or the token is refused.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(
            f"--address {address}: must be that of the cluster's dashboard, such as http://127.0.0.1:8265"
        )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"--address {address}: the cluster refuses the token: {_line(error)}; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to that of the cluster"
        ) from error
    except (ConnectionError, requests.RequestException) as error:
        raise ConfigError(
            f"--address {address}: nothing answers there: {_line(error)}; start a cluster with `ray start --head`, or "
            "give the address of its dashboard"
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"--address {address}: answers, but not as a Ray cluster does: {_line(error)}") from error


def submit(client: JobSubmissionClient, submission: Submission, say: Callable[[str], None]) -> str:
    """Return the id of the job that works on the run: one that goes on already, else a new one.

    Raises:
        ConfigError: If a variable to pass on is not set, or the job file lies elsewhere.
        FactoryError: If the cluster refuses the job.
    """
    jobs = _jobs_of(client, submission)
    for job_id, details in jobs.items():
        if not details.status.is_terminal():
            say(f"job {job_id} works on {submission.run_path} already: following it")
            return job_id
    command, runtime_env = entrypoint(submission), _runtime_env(submission)
    job_id = f"{submission.prefix}{1 + max((int(name.rpartition('-')[2]) for name in jobs), default=0)}"
    try:
        client.submit_job(entrypoint=command, submission_id=job_id, runtime_env=runtime_env)
    except (RuntimeError, ValueError, TypeError, *_LOST) as error:
        raise FactoryError(
            f"{submission.address} refuses the job: {_line(error)}; nothing was started. What is uploaded is the "
            f"working directory without {', '.join(EXCLUDES)}; more can be left out by `excludes` in --runtime-env"
        ) from error
    say(f"job {job_id} submitted: {command}")
    return job_id


def stop(client: JobSubmissionClient, submission: Submission, say: Callable[[str], None]) -> None:
    """Stop the jobs that work on the run.

    Raises:
        ConfigError: If there is none.
    """
    running = [name for name, details in _jobs_of(client, submission).items() if not details.status.is_terminal()]
    if not running:
        raise ConfigError(f"{submission.address}: no job works on {submission.run_path}; nothing to stop")
    for job_id in running:
        client.stop_job(job_id)
        say(f"job {job_id} is told to stop; what it finished is safe in {submission.run_path}")


def follow(client: JobSubmissionClient, job_id: str, submission: Submission, out: Callable[[str], None]) -> int:
    """Pass a job's log on until the job ends; return its exit code (130: stopped, 1: it died or could not start).

    Raises:
        DetachedError: If the user pressed Ctrl-C; the job goes on.
        FactoryError: If the cluster does not answer any more, or the job did not end well by itself.
    """
    try:
        broken = asyncio.run(_tail(client, job_id, out))
        details = _settled(client, job_id)
    except KeyboardInterrupt:
        raise DetachedError(
            f"detached; job {job_id} goes on. The same command comes back to it, with --stop it ends the job; "
            f"`factory status {submission.run_path}` says where the run stands"
        ) from None
    except _LOST as error:
        raise FactoryError(
            f"{submission.address} does not answer any more: {_line(error)}; all finished attempts are safe in "
            f"{submission.run_path}: submit again to come back, or to go on"
        ) from error
    if not details.status.is_terminal():
        raise FactoryError(
            f"the log of job {job_id} broke off ({broken or 'without a word'}), and the job is {details.status}: it "
            "goes on, and the same command comes back to it"
        )
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    if details.status == JobStatus.STOPPED:
        code = 130
    elif code is None or not 0 < code < 126:
        raise FactoryError(
            f"job {job_id} died: {_line(details.message)}; all finished attempts are safe in {submission.run_path}: "
            "submit again to go on"
        )
    return code


async def _tail(client: JobSubmissionClient, job_id: str, out: Callable[[str], None]) -> str:
    """Pass the log on until it ends; return why, if its connection broke: whether the job did, its status says."""
    try:
        async for text in client.tail_job_logs(job_id):
            out(text)
    except RuntimeError as error:
        return _line(error)
    return ""


def _settled(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Return what became of a job whose log has ended; Ray notes that a moment later."""
    deadline = time.monotonic() + SETTLE_S
    while not (details := client.get_job_info(job_id)).status.is_terminal() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return details


def _jobs_of(client: JobSubmissionClient, submission: Submission) -> dict[str, JobDetails]:
    """Return the jobs that worked or work on this run, by id.

    Raises:
        ConfigError: If the cluster does not tell.
    """
    try:
        jobs = client.list_jobs()
    except (RuntimeError, AuthenticationError, *_LOST) as error:
        raise ConfigError(f"{submission.address} does not list its jobs: {_line(error)}") from error
    return {str(job.submission_id): job for job in jobs if str(job.submission_id).startswith(submission.prefix)}


def _runtime_env(submission: Submission) -> dict[str, Any]:
    given = dict(submission.runtime_env)
    missing = [name for name in submission.env_names if name not in os.environ]
    if missing:
        raise ConfigError(f"--env {missing[0]}: this environment variable is not set here; export it, or leave it out")
    variables = {name: os.environ[name] for name in submission.env_names}
    return {
        "working_dir": ".",
        **given,
        "excludes": [*EXCLUDES, *given.get("excludes", [])],
        "env_vars": {**given.get("env_vars", {}), **variables},
    }


def _line(error: object) -> str:
    """Return what was said in one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:500] + "..."

"""Submission: a command such as `factory run` becomes a Ray job on a cluster, which runs the same there.

Thin around Ray's job API. Holds nothing: what there is to know of a run lies in its folder, and what there is to know
of a job lies on the cluster, found again by an id that is made from the run. One job at a time works on a run:
submitting again while it goes on attaches to it, and after its end starts the next, which resumes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
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
from ray.runtime_env import RuntimeEnv

from factory.rows import listed, nearest
from factory.storage import AnyPath
from schemas.errors import ConfigError, FactoryError, InterruptedRun
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
# Ray's own client prefers these to the address that it is given.
RAYS_ADDRESSES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# Keys of a runtime environment that a job may set; the working directory is the factory's to set.
RUNTIME_ENV_KEYS: Final = frozenset(
    key for key in RuntimeEnv.known_fields if key != "working_dir" and not key.startswith("_")
)
SHADOWED: Final = ("factory", "jobs", "schemas", "verifiers")  # our modules, which a folder of that name would hide
_LOST: Final = (aiohttp.ClientError, requests.RequestException, ConnectionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What to run, and where."""

    name: str
    words: Sequence[str]  # of the command, after `factory`
    files: Sequence[Path]  # of them, those that have to come along
    run_path: AnyPath  # the folder that the command works on
    address: str
    more_paths: Sequence[AnyPath] = ()  # the other folders, where it works on several
    env_names: Sequence[str] = ()  # variables of this process that the job gets, by name
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Beginning of the ids of all jobs that work on this run."""
        paths = [str(path) for path in (self.run_path, *self.more_paths)]
        return f"factory-{self.name}-{digest(['submission', *paths])[:8]}-"

    @property
    def where(self) -> str:
        """The folders, for messages."""
        return ", ".join(str(path) for path in (self.run_path, *self.more_paths))


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
    for key, value in body.items():
        if key not in RUNTIME_ENV_KEYS:
            raise ConfigError(
                f"--runtime-env {path}: {key}: unknown key; {nearest(str(key), RUNTIME_ENV_KEYS)}there are: "
                f"{listed(RUNTIME_ENV_KEYS)} (the working directory is the one you are in)"
            )
        if key == "excludes" and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise ConfigError(f"--runtime-env {path}: excludes={value!r}: must be a list of patterns")
        if key == "env_vars" and not (
            isinstance(value, dict) and all(isinstance(word, str) for pair in value.items() for word in pair)
        ):
            raise ConfigError(f"--runtime-env {path}: env_vars must map names to text; put numbers in quotes")
    return body


def entrypoint(submission: Submission) -> str:
    """Return the command that the job runs: that of the installed `factory`, or the one in the uploaded folder.

    Raises:
        ConfigError: If a file is not in the folder that is uploaded, or a module there hides one of the factory.
    """
    for name in SHADOWED:
        for found in (Path(f"{name}.py"), Path(name, "__init__.py")):
            if found.exists() and not Path("jobs", "submit.py").exists():
                raise ConfigError(
                    f"{found.absolute()}: a module of this name in the working directory hides the factory's own on "
                    "the cluster; rename it, or submit from another folder"
                )
    shipped = {str(file): _shipped(file) for file in submission.files}
    # On this machine the job may take this very Python; elsewhere the cluster's own is the one that has the packages.
    python = sys.executable if urlsplit(submission.address).hostname in LOOPBACK else "python"
    return shlex.join([python, "-m", "jobs", *(shipped.get(word, word) for word in submission.words)])


def _shipped(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        raise ConfigError(
            f"{file}: must lie under the working directory {Path.cwd()}, which is what the cluster gets"
        ) from None


def connect(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's job API.

    Raises:
        ConfigError: If the address is none, nothing answers there, or the token is refused.
    """
    try:
        is_http = urlsplit(address).scheme in ("http", "https") and address.startswith("http")
    except ValueError:
        is_http = False
    if not is_http:
        raise ConfigError(f"{address}: must be that of the cluster's dashboard, such as http://127.0.0.1:8265")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in RAYS_ADDRESSES:
        os.environ.pop(name, None)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"{address}: the cluster refuses the token: {_line(error)}; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to that of the cluster"
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:  # before the next: requests' own JSONDecodeError is both
        raise ConfigError(f"{address}: answers, but not as a Ray cluster does: {_line(error)}") from error
    except (ConnectionError, requests.RequestException) as error:
        proxies = [name for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY") if name in os.environ]
        proxy = f"; {proxies[0]} is set: does it lead there? (no_proxy={LOOPBACK[1]})" if proxies else ""
        raise ConfigError(
            f"{address}: nothing answers there: {_line(error)}; start a cluster with `ray start --head`, or "
            f"give the address of its dashboard{proxy}"
        ) from error


def submit(client: JobSubmissionClient, submission: Submission, say: Callable[[str], None]) -> str:
    """Return the id of the job that works on the run: one that goes on already, else a new one.

    Raises:
        ConfigError: If a variable to pass on is not set, the job file lies elsewhere, or the cluster refuses the job.
    """
    command, runtime_env = entrypoint(submission), _runtime_env(submission)
    jobs = _jobs_of(client, submission)
    if (found := _going_on(jobs)) is not None:
        return _attach(found, jobs[found], submission, command, say)
    job_id = f"{submission.prefix}{1 + max((int(name.rpartition('-')[2]) for name in jobs), default=0)}"
    try:
        client.submit_job(entrypoint=command, submission_id=job_id, runtime_env=runtime_env)
    except (RuntimeError, ValueError, TypeError, *_LOST) as error:
        jobs = _jobs_of(client, submission)  # another submission may have been faster
        if (found := _going_on(jobs)) is not None:
            return _attach(found, jobs[found], submission, command, say)
        raise ConfigError(
            f"{submission.address} refuses the job: {_line(error)}; nothing was started{_largest_files(error)}"
        ) from error
    say(f"job {job_id} submitted: {command}")
    return job_id


def _going_on(jobs: Mapping[str, JobDetails]) -> str | None:
    return next((job_id for job_id, details in jobs.items() if not details.status.is_terminal()), None)


def _attach(job_id: str, details: JobDetails, submission: Submission, command: str, say: Callable[[str], None]) -> str:
    """Return the id of a job that goes on; say so, and that it goes on as it was submitted."""
    say(f"job {job_id} works on {submission.where} already")
    if details.entrypoint != command or submission.runtime_env or submission.env_names:
        say(
            f"it goes on as it was submitted: {details.entrypoint}; what this command changes does not reach it. To "
            "change it, end it with --stop and submit again"
        )
    return job_id


def _largest_files(error: Exception) -> str:
    """Return a hint at what makes an upload too large; empty where that was not the trouble."""
    if not any(word in str(error) for word in ("exceeds the maximum size", "413", "too large")):
        return ""
    sizes = sorted(
        ((path.stat().st_size, str(path)) for path in Path().rglob("*") if path.is_file() and not path.is_symlink()),
        reverse=True,
    )
    shown = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for size, name in sizes[:3])
    return (
        f". The working directory is uploaded, without {', '.join(EXCLUDES)} and what .gitignore names; the largest "
        f"files in it: {shown}. Leave them out by `excludes` in --runtime-env, or submit from another folder"
    )


def stop(client: JobSubmissionClient, submission: Submission, say: Callable[[str], None]) -> None:
    """Stop the jobs that work on the run.

    Raises:
        ConfigError: If there is none.
    """
    running = [name for name, details in _jobs_of(client, submission).items() if not details.status.is_terminal()]
    if not running:
        raise ConfigError(f"{submission.address}: no job works on {submission.where}; nothing to stop")
    for job_id in running:
        client.stop_job(job_id)
        say(f"job {job_id} is told to stop; what it finished is safe in {submission.where}")


def follow(client: JobSubmissionClient, job_id: str, submission: Submission, out: Callable[[str], None]) -> int:
    """Pass a job's log on until the job ends; return its exit code (130: stopped, 1: it died or could not start).

    Raises:
        InterruptedRun: If the user pressed Ctrl-C; the job goes on.
        FactoryError: If the cluster does not answer any more, or the job did not end well by itself.
    """
    try:
        broken = asyncio.run(_tail(client, job_id, out))
        details = _settled(client, job_id)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough: what follows is said
        raise InterruptedRun(
            f"detached; job {job_id} goes on, in {submission.where}. The same command comes back to it; `factory "
            "submit --stop` ends the job of a run, and `factory status` says where it stands"
        ) from None
    except _LOST as error:
        raise FactoryError(
            f"{submission.address} does not answer any more: {_line(error)}; what it finished is safe in "
            f"{submission.where}: submit again to come back, or to go on"
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
            f"job {job_id} died: {_line(details.message)}; what it finished is safe in "
            f"{submission.where}: submit again to go on"
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
    """Return what was said in one line of bounded length; of a long one its end as well, where the cause stands."""
    text = " ".join(str(error).split())
    return text if len(text) <= 900 else f"{text[:300]} [...] {text[-600:]}"

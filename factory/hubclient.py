"""The Hub as a publication needs it: what a repository holds, and the few changes that are made to it.

The seam to `huggingface_hub`: its errors become ours here, and nowhere else. What only reads, and what may be done
twice, is tried again with growing pauses, those that the Hub asks for (429) included, until patience is spent. A commit
is sent once: whether it counted is for the caller to look up (``UnsureError``), since a reply may be lost. The token is
the environment's or the login's; it is in no message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx2  # what huggingface_hub speaks HTTP with
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    logging,
    parse_ratelimit_headers,
)

from factory.publish_plan import CARD, PlannedFile
from factory.secretscan import redact
from schemas.errors import ConfigError, ConflictError, NoPermissionError, PartialError

PATIENCE_S: Final = 900.0  # of one request that fails, pauses included; the Hub counts requests in windows of 300 s
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
TIMEOUT_S: Final = 120.0  # without a byte: guess, above the Hub's own limit of a request (504 after 60 s)
CHUNK_FILES: Final = 16  # uploaded together; after each chunk there is a word for the user
TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
UNSETTLED: Final = (
    409,
    412,
    423,
)  # of 4xx: somebody else is at work there; not tried again at once, but a rerun may help
OLD_ADDRESS: Final = (
    400,
    404,
)  # of the storage: an upload's address or parts that it no longer knows; a rerun asks anew

Addition = CommitOperationAdd  # a file of a commit, its content at the Hub
Result = TypeVar("Result")

# What a request may end with that is not its answer. An upload's trouble comes wrapped in a RuntimeError; a reply that
# is no JSON is a proxy's.
_TROUBLE: Final = (HfHubHTTPError, httpx2.HTTPError, RuntimeError, json.JSONDecodeError)


class UnsureError(Exception):
    """A change was sent, and either was refused because somebody was faster, or nobody knows whether it counted."""

    def __init__(self, why: str, pause_s: float) -> None:
        super().__init__(why)
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What the Hub says of a file. ``sha256`` is null where it keeps the content in git itself."""

    path: str
    num_bytes: int
    git_oid: str
    sha256: str | None

    def is_same(self, planned: PlannedFile) -> bool:
        """Return whether it holds what is planned."""
        if self.num_bytes != planned.num_bytes:
            return False
        return self.sha256 == planned.sha256 if self.sha256 is not None else self.git_oid == planned.git_oid


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a repository's names point at."""

    is_private: bool
    head: str  # commit of the branch main
    tags: Mapping[str, str]  # commit by name
    pull_requests: Mapping[int, str]


class Hub:
    """One dataset repository. ``repo`` is ``org/name``."""

    def __init__(
        self,
        repo: str,
        token: str | None,
        say: Callable[[str], None],
        *,
        variable: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Talk to one repository; ``variable`` is where the token is from, null: HF_TOKEN, or the login."""
        self.repo, self._token, self._say, self._patience_s = repo, token, say, patience_s
        self._variable = variable
        logging.set_verbosity(logging.ERROR)  # it would name every failed request, signatures included, once more
        disable_progress_bars()
        set_client_factory(_make_client)
        self._api = HfApi(token=token or False, library_name="distillation-factory")

    @property
    def url(self) -> str:
        """Where people find the repository."""
        return f"{self._api.endpoint}/datasets/{self.repo}"

    @property
    def token(self) -> str | None:
        """The token, for a process that reads on our behalf."""
        return self._token

    def redact(self, text: str) -> str:
        """Return a text of other programs without secrets."""
        return redact(text, [self._token or ""])

    # Reading

    def user(self) -> str:
        """Return whose token it is.

        Raises:
            NoPermissionError: If there is none, or the Hub does not take it.
        """
        if self._token is None:
            where = "HF_TOKEN, or log in (`hf auth login`)," if self._variable is None else self._variable
            named = "" if self._variable is None else " (publish.token_env of the job names that variable)"
            raise NoPermissionError(
                f"there is no token: set {where} with one that may write to {self.repo.partition('/')[0]}{named}"
            )
        return str(self._ask("asking whose token it is", lambda: self._api.whoami(token=self._token))["name"])

    def look(self) -> Remote | None:
        """Return what the repository's names point at; None where there is none, or none that we may see."""
        try:
            info = self._ask("looking at the repository", lambda: self._api.dataset_info(self.repo), is_there=None)
            refs = self._ask(
                "listing tags",
                lambda: self._api.list_repo_refs(self.repo, repo_type="dataset", include_pull_requests=True),
                is_there=None,
            )
        except RepositoryNotFoundError:
            return None
        heads = {branch.name: branch.target_commit for branch in refs.branches}
        numbers = {pr.ref.rpartition("/")[2]: pr.target_commit for pr in refs.pull_requests or ()}
        return Remote(
            is_private=bool(info.private),
            head=heads.get("main") or str(info.sha),
            tags={tag.name: tag.target_commit for tag in refs.tags},
            pull_requests={int(number): oid for number, oid in numbers.items() if number.isdecimal()},
        )

    def files_at(self, revision: str) -> dict[str, RemoteFile]:
        """Return every file of a commit, by path."""

        def listed() -> list[Any]:
            return list(self._api.list_repo_tree(self.repo, repo_type="dataset", revision=revision, recursive=True))

        return {
            entry.path: RemoteFile(
                path=entry.path,
                num_bytes=entry.size,
                git_oid=entry.blob_id,
                sha256=None if entry.lfs is None else entry.lfs.sha256,
            )
            for entry in self._ask("listing files", listed)
            if isinstance(entry, RepoFile)
        }

    def read_file(self, path: str, revision: str) -> bytes:
        """Return a small file of a commit; nothing is cached."""
        url = f"{self._api.endpoint}/datasets/{self.repo}/resolve/{revision}/{quote(path)}"
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}

        def read() -> bytes:
            response = get_session().get(url, headers=headers)
            hf_raise_for_status(response)
            return bytes(response.content)

        return self._ask(f"reading {path}", read)

    # Changing

    def create(self, *, is_private: bool) -> None:
        """Create the repository; nothing happens where it is there."""

        def create() -> None:
            try:
                self._api.create_repo(self.repo, repo_type="dataset", private=is_private)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:  # somebody was faster, or the first reply was lost
                    raise

        self._ask("creating the repository", create)

    def check_card(self, text: str) -> None:
        """Have the Hub check the card's metadata.

        Raises:
            ConfigError: If it refuses it; names what it says.
        """
        try:
            self._ask("checking the card", lambda: self._api._validate_yaml(text, repo_type="dataset"))
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{CARD}: the Hub refuses its metadata: {error}") from error

    def upload(
        self, files: Iterable[PlannedFile], done: Callable[[PlannedFile], None]
    ) -> dict[str, CommitOperationAdd]:
        """Return what a commit adds, by path, with all contents at the Hub; those that it has are not sent again."""
        additions = {file.path: _addition(file) for file in files}
        paths = list(additions)
        by_path = {file.path: file for file in files}
        for begin in range(0, len(paths), CHUNK_FILES):
            chunk = [additions[path] for path in paths[begin : begin + CHUNK_FILES]]

            def send(chunk: Sequence[CommitOperationAdd] = chunk) -> None:
                try:
                    self._api.preupload_lfs_files(self.repo, chunk, repo_type="dataset", free_memory=False)
                except json.JSONDecodeError:
                    raise
                except ValueError as error:  # the Hub's word on a file that it does not take
                    if isinstance(error, HfHubHTTPError):
                        raise
                    raise self._refused(f"the Hub does not take a file: {self._words(error)}") from error

            self._ask("uploading", send)
            for addition in chunk:
                done(by_path[addition.path_in_repo])
        return additions

    def commit(
        self, additions: Sequence[CommitOperationAdd], deleted: Sequence[str], *, parent: str, title: str, ref: str
    ) -> str:
        """Return the commit that adds and deletes these files on top of ``parent``; sent once.

        Raises:
            UnsureError: If there is no answer that says that it counted, or somebody else's commit was faster.
        """
        operations: list[Any] = [
            *additions,
            *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in deleted),
        ]
        try:
            found = self._api.create_commit(
                self.repo, operations, commit_message=title, repo_type="dataset", revision=ref, parent_commit=parent
            )
        except (*_TROUBLE, KeyError) as error:
            raise self._unsure(error, also=(409, 412)) from error
        return str(found.oid)

    def tag(self, name: str, oid: str) -> None:
        """Have a tag name a commit.

        Raises:
            ConflictError: If it names another one: a tag is never moved.
        """

        def create() -> None:
            self._api.create_tag(self.repo, tag=name, revision=oid, repo_type="dataset", exist_ok=True)

        self._ask(f"creating the tag {name}", create)
        remote = self.look()
        seen = None if remote is None else remote.tags.get(name)
        if seen != oid:
            raise ConflictError(
                f"{self.repo}: the tag {name} names commit {(seen or 'none')[:12]}, not {oid[:12]}: somebody was "
                "faster; look at the repository, then publish with another --tag"
            )

    # Pull requests

    def find_pull_request(self, title: str) -> int | None:
        """Return the number of our pull request of that title that is not merged or closed; not somebody else's."""

        def listed() -> list[Any]:
            return list(
                self._api.get_repo_discussions(
                    self.repo, repo_type="dataset", discussion_type="pull_request", discussion_status="all"
                )
            )

        found = self._ask("listing pull requests", listed)
        user = self.user()
        ours = (pr for pr in found if pr.title == title and pr.author == user)
        return max((pr.num for pr in ours if pr.status in ("draft", "open")), default=None)

    def open_pull_request(self, title: str) -> int:
        """Return the number of a new pull request, a draft.

        Raises:
            UnsureError: If it may be there, or not.
        """
        try:
            found = self._api.create_pull_request(self.repo, title, repo_type="dataset")
        except _TROUBLE as error:
            raise self._unsure(error) from error
        return int(found.num)

    def merge(self, number: int) -> None:
        """Merge a pull request: all that it holds becomes visible at once.

        Raises:
            UnsureError: If it may be merged, or not.
        """
        try:
            self._api.change_discussion_status(self.repo, number, "open", repo_type="dataset")
            self._api.merge_pull_request(self.repo, number, repo_type="dataset")
        except _TROUBLE as error:
            raise self._unsure(error, also=(400, 409)) from error

    # Errors

    def _ask(self, what: str, call: Callable[[], Result], *, is_there: bool | None = True) -> Result:
        """Return what a request gives that may be made again, with patience.

        ``is_there`` null: that there is no such repository is an answer, and comes as `huggingface_hub` says it.

        Raises:
            NoPermissionError: If the token may not.
            ConfigError: If the Hub refuses, and would again.
            PartialError: If patience is spent, or the Hub is in a state that may pass.
        """
        deadline, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                return call()
            except _TROUBLE as error:
                if is_there is None and isinstance(error, RepositoryNotFoundError):
                    raise
                asked = self._pause_after(error)
                wait = pause if asked is None else asked
                why = self._words(error)
            if time.monotonic() + wait > deadline:
                raise PartialError(
                    f"{self.repo}: {what} failed: {why}; patience ({self._patience_s:.0f} s) is spent. What is "
                    "uploaded stays there, nothing is half visible: run the same command again"
                    + ("" if asked is None else f", in {wait:.0f} s")
                )
            self._say(f"{what}: {why}; again in {wait:.1f} s")
            time.sleep(wait)
            pause = min(2 * pause, MAX_PAUSE_S)

    def _unsure(self, error: Exception, also: tuple[int, ...] = ()) -> UnsureError:
        asked = self._pause_after(error, also)
        if asked is not None and asked > self._patience_s:
            raise PartialError(
                f"{self.repo}: {self._words(error)}: the Hub asks to wait for {asked:.0f} s; nothing is visible yet, "
                "and what is uploaded stays there: run the same command again then"
            ) from error
        return UnsureError(self._words(error), FIRST_PAUSE_S if asked is None else asked)

    def _pause_after(self, error: Exception, also: tuple[int, ...] = ()) -> float | None:
        """Return the seconds that the Hub asks us to wait, None where it does not say.

        Raises:
            NoPermissionError, ConfigError: If trying again is of no use, neither now nor by a rerun.
            PartialError: If a rerun may be of use.
        """
        cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__  # an upload's is wrapped
        if isinstance(cause, FileNotFoundError):
            raise cause
        response = getattr(cause, "response", None)
        if response is None:
            return None  # no connection, or a broken one
        is_storage = response.request.url.host != httpx2.URL(self._api.endpoint).host
        if response.status_code == 403 and is_storage:
            return None  # a signed address that is too old; the next try gets a new one
        if response.status_code in (401, 403):
            raise NoPermissionError(
                f"{self.repo}: the Hub refuses the token ({self._words(error)}): it may be expired, or may not write "
                f"there; give another one in {self._variable or 'HF_TOKEN'}. Nothing was changed by this request"
            ) from error
        if response.status_code not in (*TRANSIENT, *also):
            passing = (*UNSETTLED, *(OLD_ADDRESS if is_storage else ()))
            if 400 <= response.status_code < 500 and response.status_code not in passing:
                raise self._refused(f"the Hub refuses: {self._words(error)}") from error
            raise PartialError(
                f"{self.repo}: the Hub fails: {self._words(error)}; nothing is half visible: run the same command again"
            ) from error
        limit = parse_ratelimit_headers(response.headers)
        if response.status_code == 429 and limit is not None and limit.remaining == 0:
            return limit.reset_in_seconds + 1.0
        after = response.headers.get("retry-after", "")
        return float(after) if after.isdecimal() else None

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.repo}: {why}. Another try would be refused, too: change what it names (card, files, repository, "
            "quota of the account), then run the command again. Nothing is half visible"
        )

    def _words(self, error: BaseException) -> str:
        """Return an error in a line, without secrets."""
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        response = getattr(cause, "response", None)
        lines = " ".join(str(cause).split())
        if response is not None:
            told = response.headers.get("x-error-message", "")
            lines = f"HTTP {response.status_code} on {response.request.method} {response.request.url.path}" + (
                f": {told}" if told else ""
            )
        return redact(lines or type(cause).__name__, [self._token or ""])[:400]


def find_token(variable: str | None) -> str | None:
    """Return the token of the environment (``HF_TOKEN``, or the variable of that name), or else that of the login.

    A variable that is empty is not set; where one is named, the login's token is not taken in its place.
    """
    return (os.environ.get(variable) or None) if variable else get_token()


def _addition(file: PlannedFile) -> CommitOperationAdd:
    if not isinstance(file.source, bytes) and not file.source.is_file():
        raise FileNotFoundError(f"{file.source} is gone")
    addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # the plan has just read the file; not once more
    return addition


def _make_client() -> httpx2.Client:
    """Return a client that does not wait for ever, as huggingface_hub's own does."""
    timeout = httpx2.Timeout(TIMEOUT_S, connect=20.0)
    return httpx2.Client(follow_redirects=True, timeout=timeout)

"""Publishing: a selection's tables and their card become a version of a dataset repository, all at once or not at all.

Last step of all. The order is fixed: the token, the repository, whose files lie there, the tag, the bytes, one commit
(or a pull request that is merged), the version read back by its commit, the tag, the version read back by its tag.
Invariants: readers of the branch and of any tag see the version before, or this one, whole; a tag is never moved;
nothing of others is changed; a file that the Hub holds is not sent again. After a kill at any moment the same command
goes on, and does so from what the Hub holds: the journal saves work and is never what is true.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from factory.hubclient import Addition, Hub, Remote, RemoteFile, UnsureError
from factory.publish_journal import PublishJournal
from factory.publish_plan import CARD, FIGURES, MANIFEST, SUMS, PublishPlan
from factory.readback import Rows, read_back
from schemas.errors import ConflictError, NoPermissionError, PartialError, VerificationError
from schemas.tables import SCHEMAS

MAX_FILES_PER_COMMIT: Final = 80  # the Hub recommends under 100
MAX_TRIES: Final = 8  # of a change whose outcome is unsure, in a row
MAX_READS: Final = 4  # of a version that could not be read back for another reason than what it holds
READ_PAUSE_S: Final = 2.0
LAST: Final = (CARD, MANIFEST, SUMS)  # of a version in parts: the part that says what it is comes last
NOT_OURS: Final = (".gitattributes",)  # the Hub puts it into every repository
_SUM: Final = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asks for."""

    tag: str | None = None  # null: v1, v2, ... the next that is free
    is_public: bool = False
    adopt: bool = False  # take over names that others' files have
    reads_rows: bool = True  # read the version back, row by row


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What came of it."""

    repo: str
    url: str
    tag: str
    commit: str
    is_new: bool  # false: the version was there, nothing was changed
    added: tuple[str, ...]  # files of the commit, by path
    deleted: tuple[str, ...]
    unchanged: int  # files that the version before has too
    num_bytes: int  # of what was added


class Changes(NamedTuple):
    """How the files of a commit become the version."""

    added: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: int

    @property
    def is_none(self) -> bool:
        return not self.added and not self.deleted


def publish(
    plan: PublishPlan, asked: Asked, hub: Hub, journal: PublishJournal, say: Callable[[str], None]
) -> Published:
    """Return what was published; where the version is there, with its tag, nothing is done.

    Raises:
        NoPermissionError, ConflictError, PartialError, VerificationError: See `schemas/errors.py`.
        ConfigError: If the Hub refuses the card, or anything else for good.
    """
    say(f"publishing as {hub.user()}")
    remote = _open(hub, asked)
    there = _find_version(hub, remote, plan, asked)
    if there is not None:
        _verify(hub, plan, there, asked, journal, say)
        return _published(hub, there, remote.tags[there], Changes((), (), len(plan.files)), plan, is_new=False)
    tag = asked.tag or _next_tag(remote.tags)
    files = hub.files_at(remote.head)
    ours = _our_names(hub, remote.head, files, plan, adopt=asked.adopt)
    changes = compare(plan, files, ours)
    oid = remote.head
    if not changes.is_none:
        journal.write("planned", digest=plan.digest, tag=tag, parent=remote.head, added=len(changes.added))
        hub.check_card(_card_of(plan))
        oid = _Change(hub, plan, ours, journal, say).make(remote.head, files)
    _verify(hub, plan, oid, asked, journal, say)
    hub.tag(tag, oid)
    journal.write("tagged", tag=tag, commit=oid, digest=plan.digest)
    _verify(hub, plan, tag, asked, journal, say)
    return _published(hub, tag, oid, changes, plan, is_new=True)


def preview(plan: PublishPlan, asked: Asked, hub: Hub) -> tuple[str, Changes]:
    """Return the tag and the changes that publishing would make now; changes nothing.

    Raises:
        NoPermissionError, ConflictError, PartialError: As ``publish``.
    """
    hub.user()
    remote = hub.look()
    if remote is None:
        return asked.tag or "v1", compare(plan, {}, frozenset())
    _require_visibility(hub, remote, asked)
    there = _find_version(hub, remote, plan, asked)
    if there is not None:
        return there, Changes((), (), len(plan.files))
    files = hub.files_at(remote.head)
    ours = _our_names(hub, remote.head, files, plan, adopt=asked.adopt)
    return asked.tag or _next_tag(remote.tags), compare(plan, files, ours)


def num_commits(changes: Changes) -> int:
    """Return how many commits the changes take; more than one go by a pull request."""
    return -(-(len(changes.added) + len(changes.deleted)) // MAX_FILES_PER_COMMIT)


def compare(plan: PublishPlan, files: Mapping[str, RemoteFile], ours: Iterable[str]) -> Changes:
    """Return what must change for a commit's files to be the version; files of others are left alone."""
    added = tuple(path for path, file in plan.files.items() if path not in files or not files[path].is_same(file))
    deleted = tuple(sorted(path for path in ours if path in files and path not in plan.files))
    return Changes(added, deleted, len(plan.files) - len(added))


# Whose repository it is.


def _open(hub: Hub, asked: Asked) -> Remote:
    remote = hub.look()
    if remote is None:
        hub.create(is_private=not asked.is_public)
        remote = hub.look()
    if remote is None:
        raise NoPermissionError(
            f"{hub.repo}: it is there, but this token may not see it; give a token of a member of "
            f"{hub.repo.partition('/')[0]}"
        )
    _require_visibility(hub, remote, asked)
    return remote


def _require_visibility(hub: Hub, remote: Remote, asked: Asked) -> None:
    if not remote.is_private and not asked.is_public:
        raise ConflictError(
            f"{hub.repo}: is public, so everybody would see this version; publish with --public if that is meant, or "
            "give another --repo"
        )


def _find_version(hub: Hub, remote: Remote, plan: PublishPlan, asked: Asked) -> str | None:
    """Return the tag under which this very version is there.

    Raises:
        ConflictError: If the tag that is asked for names something else.
    """
    tag = asked.tag or _newest_tag(remote.tags)
    if tag is None or tag not in remote.tags:
        return None
    files = hub.files_at(remote.tags[tag])
    is_it = not _odd(plan, files)
    if not is_it and asked.tag is not None:
        raise ConflictError(
            f"{hub.repo}: the tag {tag} is there and names another version (commit {remote.tags[tag][:12]}); a tag is "
            "never moved: publish with another --tag"
        )
    return tag if is_it else None


def _odd(plan: PublishPlan, files: Mapping[str, RemoteFile]) -> list[str]:
    """Return what makes a commit's files another version: what it lacks, has otherwise, or readers would take in."""
    wrong = [path for path, file in plan.files.items() if path not in files or not files[path].is_same(file)]
    return sorted(wrong + [path for path in files if is_inside(path, plan) and path not in plan.files])


def _newest_tag(tags: Iterable[str]) -> str | None:
    numbers = [int(tag[1:]) for tag in tags if re.fullmatch(r"v[0-9]{1,9}", tag)]
    return f"v{max(numbers)}" if numbers else None


def _next_tag(tags: Iterable[str]) -> str:
    newest = _newest_tag(tags)
    return "v1" if newest is None else f"v{int(newest[1:]) + 1}"


def _our_names(
    hub: Hub, head: str, files: Mapping[str, RemoteFile], plan: PublishPlan, *, adopt: bool
) -> frozenset[str]:
    """Return the names that belong to us: those of the version that is there, by its SHA256SUMS.

    Raises:
        ConflictError: If files of others stand where ours go, or ours were edited, unless they are to be taken over.
    """
    if adopt:
        return frozenset(path for path in files if path in plan.files or is_inside(path, plan))
    sums = _read_sums(hub, head, files, plan)
    if not sums and (foreign := sorted(files.keys() - set(NOT_OURS))):
        raise ConflictError(
            f"{hub.repo}: holds files that no `factory publish` put there ({_some(foreign)}); give another --repo, or "
            "--adopt to take it over: files of the same names are replaced, those in the folders of the tables "
            "deleted, all others left alone"
        )
    ours = {*sums, SUMS} & files.keys()
    foreign = sorted(
        path
        for path in files.keys() - ours
        if is_inside(path, plan) or (path in plan.files and not files[path].is_same(plan.files[path]))
    )
    if foreign:
        raise ConflictError(
            f"{hub.repo}: {_some(foreign)} was put there by others and would be part of the tables; delete it there, "
            "or publish with --adopt, which replaces or deletes it"
        )
    edited = sorted(path for path, sha256 in sums.items() if _is_edited(hub, head, path, sha256, files, plan))
    if edited:
        raise ConflictError(
            f"{hub.repo}: {_some(edited)} was changed there since it was published; keep the change somewhere, then "
            "publish with --adopt, which replaces it"
        )
    return frozenset(ours)


def is_inside(path: str, plan: PublishPlan) -> bool:
    """Return whether a name lies in a folder that is the tables' or the card's, so that readers would take it in."""
    first, separator, _ = path.partition("/")
    return bool(separator) and (first in SCHEMAS or first in plan.configs or first == FIGURES)


def _read_sums(hub: Hub, head: str, files: Mapping[str, RemoteFile], plan: PublishPlan) -> dict[str, str]:
    """Return the sha256 by name of the version that is there; nothing where its SHA256SUMS is none of ours.

    Anybody may have run `sha256sum * > SHA256SUMS`: ours name a manifest of tables, and only names that we give count.
    """
    if SUMS not in files or MANIFEST not in files:
        return {}
    lines = hub.read_file(SUMS, head).decode("utf-8", "replace").splitlines()
    matches = [match for line in lines if (match := _SUM.fullmatch(line))]
    sums = {match[2]: match[1] for match in matches if match[2] in LAST or is_inside(match[2], plan)}
    return sums if MANIFEST in sums and _is_ours(hub.read_file(MANIFEST, head)) else {}


def _is_ours(manifest: bytes) -> bool:
    """Return whether a file is a manifest of tables, of any version."""
    try:
        body = json.loads(manifest)
    except ValueError:
        return False
    return isinstance(body, dict) and {"selection_digest", "version"} <= body.keys()


def _is_edited(hub: Hub, head: str, path: str, sha256: str, files: Mapping[str, RemoteFile], plan: PublishPlan) -> bool:
    file, planned = files.get(path), plan.files.get(path)
    if file is None or (planned is not None and file.is_same(planned)):
        return False  # deleted there, or what it will be
    if file.sha256 is not None:
        return file.sha256 != sha256
    return hashlib.sha256(hub.read_file(path, head)).hexdigest() != sha256


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5:,} more" if len(paths) > 5 else "")


# The change.


class _Change:
    """Brings the branch to the version: looks, sends, and looks again whenever it is not sure."""

    def __init__(
        self, hub: Hub, plan: PublishPlan, ours: frozenset[str], journal: PublishJournal, say: Callable[[str], None]
    ) -> None:
        self._hub, self._plan, self._ours, self._journal, self._say = hub, plan, ours, journal, say
        self._title = f"Publish {plan.digest[:12]}"
        self._additions: dict[str, Addition] = {}

    def make(self, head: str, files: Mapping[str, RemoteFile]) -> str:
        """Return the commit of the branch that holds the version, ``head`` with ``files`` being the one before."""
        for _ in range(MAX_TRIES):
            changes = compare(self._plan, files, self._ours)
            if changes.is_none:
                self._journal.write("committed", commit=head, digest=self._plan.digest)
                return head
            try:
                if num_commits(changes) == 1:
                    return self._commit(head, changes)
                self._by_pull_request(head, files)
            except UnsureError as unsure:
                self._say(f"{unsure}; looking again in {unsure.pause_s:.1f} s")
                time.sleep(unsure.pause_s)
            head, files = self._look_again(head, files)
        raise PartialError(
            f"{self._hub.repo}: the commit did not get through in {MAX_TRIES} tries; all bytes are uploaded, nothing "
            "is visible: run the same command again"
        )

    def _commit(self, head: str, changes: Changes) -> str:
        additions = self._upload(changes.added)
        self._journal.write("sending", parent=head, digest=self._plan.digest, added=len(changes.added))
        oid = self._hub.commit(additions, changes.deleted, parent=head, title=self._title, ref="main")
        self._journal.write("committed", commit=oid, digest=self._plan.digest)
        return oid

    def _upload(self, paths: Iterable[str]) -> list[Addition]:
        """Return what a commit adds, all contents being at the Hub; this process offers each of them once."""
        paths = list(paths)
        files = [self._plan.files[path] for path in paths if path not in self._additions]
        if files:
            self._say(f"uploading {len(files):,} files, {sum(file.num_bytes for file in files):,} bytes")
        self._additions |= self._hub.upload(
            files, lambda file: self._journal.write("uploaded", path=file.path, sha256=file.sha256)
        )
        return [self._additions[path] for path in paths]

    def _look_again(self, head: str, files: Mapping[str, RemoteFile]) -> tuple[str, Mapping[str, RemoteFile]]:
        """Return the branch as it is now.

        Raises:
            ConflictError: If somebody else's commit touched what is ours, and did not make it this version.
        """
        remote = self._hub.look()
        if remote is None:
            raise ConflictError(f"{self._hub.repo}: is gone; somebody deleted or moved it")
        if remote.head == head:
            return head, files
        self._additions.clear()  # they know what the branch held before
        now = self._hub.files_at(remote.head)
        touched = sorted(path for path in files.keys() | now.keys() if files.get(path) != now.get(path))
        clash = [path for path in touched if path in self._ours or path in self._plan.files]
        foreign = [path for path in touched if is_inside(path, self._plan) and path not in clash]
        clash += foreign
        if foreign or (clash and not compare(self._plan, now, self._ours).is_none):
            raise ConflictError(
                f"{self._hub.repo}: somebody else committed meanwhile and changed {_some(clash)}; look at the "
                "repository, then run the same command again"
            )
        return remote.head, now

    def _by_pull_request(self, head: str, files: Mapping[str, RemoteFile]) -> None:
        """Put the version on a pull request in parts, look whether it is all there, merge it, and wait for that."""
        self._upload(compare(self._plan, files, self._ours).added)
        number = self._hub.find_pull_request(self._title)
        if number is not None and self._holds_others(number, files):
            self._say(f"pull request {number} has the title of this version and changes other files; opening another")
            number = None
        if number is None:
            number = self._hub.open_pull_request(self._title)
            self._journal.write("opened", pull_request=number, digest=self._plan.digest)
        self._fill(number, files)
        head, files = self._look_again(head, files)
        if compare(self._plan, files, self._ours).is_none:
            return  # somebody was faster
        self._journal.write("merging", pull_request=number, digest=self._plan.digest)
        self._hub.merge(number)
        for _ in range(MAX_TRIES):
            remote = self._hub.look()
            if remote is not None and remote.head != head:
                return
            time.sleep(READ_PAUSE_S)
        raise PartialError(
            f"{self._hub.repo}: pull request {number} is merged, and the branch does not show it yet; run the same "
            "command again in a while"
        )

    def _holds_others(self, number: int, files: Mapping[str, RemoteFile]) -> bool:
        """Return whether a pull request changes what is not the version's, as against the branch's ``files``."""
        remote = self._hub.look()
        if remote is None or number not in remote.pull_requests:
            return False
        return self._others(self._hub.files_at(remote.pull_requests[number])) != self._others(files)

    def _others(self, files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
        return {path: file for path, file in files.items() if path not in self._plan.files and path not in self._ours}

    def _fill(self, number: int, files: Mapping[str, RemoteFile]) -> None:
        """Commit the parts that a pull request lacks; ``files`` are the branch's.

        Raises:
            ConflictError: If it changes anything else: a merge would make that visible, too.
        """
        failures = 0
        while True:
            remote = self._hub.look()
            if remote is None or number not in remote.pull_requests:
                raise ConflictError(f"{self._hub.repo}: pull request {number} is gone; run the same command again")
            head = remote.pull_requests[number]
            filled = self._hub.files_at(head)
            changes = compare(self._plan, filled, self._ours)
            if changes.is_none:
                if self._others(filled) != self._others(files):
                    raise ConflictError(
                        f"{self._hub.repo}: pull request {number} holds changes besides this version: somebody else "
                        "committed to it or to the branch; run the same command again, which opens another one"
                    )
                return
            added = sorted(changes.added, key=lambda path: (path in LAST, path))[:MAX_FILES_PER_COMMIT]
            room = MAX_FILES_PER_COMMIT - len(added)
            deleted = changes.deleted[:room] if len(added) == len(changes.added) else ()
            self._say(f"pull request {number}: {len(added):,} of {len(changes.added):,} files")
            try:
                additions = self._upload(added)
                self._hub.commit(additions, deleted, parent=head, title=self._title, ref=f"refs/pr/{number}")
                failures = 0
            except UnsureError as unsure:
                failures += 1
                if failures == MAX_TRIES:
                    raise
                self._say(f"{unsure}; looking again in {unsure.pause_s:.1f} s")
                time.sleep(unsure.pause_s)


# Reading back.


def _verify(
    hub: Hub, plan: PublishPlan, revision: str, asked: Asked, journal: PublishJournal, say: Callable[[str], None]
) -> None:
    """Check that a commit or tag is the version: every file's checksum, and every row as readers get it.

    Raises:
        VerificationError: If it is not.
        PartialError: If it could not be read.
    """
    if journal.is_verified(revision, f"{plan.digest}/{asked.reads_rows}"):
        return
    files = hub.files_at(revision)
    if odd := _odd(plan, files):
        raise VerificationError(
            f"{hub.repo}@{revision[:12]}: {_some(odd)} is missing, has other content than was published, or lies in a "
            "folder of the tables and was not; run the same command again, and look at the repository's history if "
            "that does not help"
        )
    if asked.reads_rows:
        _verify_rows(hub, plan, revision, say)
    journal.write("verified", revision=revision, digest=f"{plan.digest}/{asked.reads_rows}")


def _verify_rows(hub: Hub, plan: PublishPlan, revision: str, say: Callable[[str], None]) -> None:
    say(f"reading back {revision[:12]} with load_dataset and an empty cache")
    # `load_dataset` gives nothing of a table without rows, so there is nothing to compare.
    with_rows = [name for name, body in plan.configs.items() if any(split["rows"] for split in body["splits"].values())]
    for left in reversed(range(MAX_READS)):
        found = read_back(hub.repo, revision, with_rows, hub.token)
        if not isinstance(found, str):
            break
        if not left:
            raise PartialError(
                f"{hub.repo}@{revision[:12]}: could not be read back: {hub.redact(found)}. The commit is there; run "
                "the same command again to have it verified"
            )
        say(f"reading back failed: {hub.redact(found).splitlines()[-1]}; again in {READ_PAUSE_S:.0f} s")
        time.sleep(READ_PAUSE_S)
    assert not isinstance(found, str)
    for config in with_rows:
        for split, said in plan.configs[config]["splits"].items():
            wanted = Rows(said["rows"], said["rows_sha256"])
            seen = found[config].get(split)
            if seen != wanted and not (seen is None and not wanted.rows):
                raise VerificationError(
                    f"{hub.repo}@{revision[:12]}: load_dataset gives {seen.rows if seen else 'no'} rows of "
                    f"{config}/{split} (digest {seen.rows_sha256[:12] if seen else 'none'}), the manifest says "
                    f"{wanted.rows} ({wanted.rows_sha256[:12]}); do not use this version, and report it"
                )


def _published(hub: Hub, tag: str, oid: str, changes: Changes, plan: PublishPlan, *, is_new: bool) -> Published:
    return Published(
        repo=hub.repo,
        url=f"{hub.url}/tree/{tag}",
        tag=tag,
        commit=oid,
        is_new=is_new,
        added=changes.added,
        deleted=changes.deleted,
        unchanged=changes.unchanged,
        num_bytes=sum(plan.files[path].num_bytes for path in changes.added),
    )


def _card_of(plan: PublishPlan) -> str:
    source = plan.files[CARD].source
    assert isinstance(source, bytes)
    return source.decode()

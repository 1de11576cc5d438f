"""Paths on an object store: `s3://bucket/prefix`, with those methods of `pathlib.Path` that a run needs.

The only module that knows the library (`obstore`, the extra `s3`, imported late). Invariants: nothing is cached, so
what is listed is there; every error of the library leaves as ``FileNotFoundError``, ``FileExistsError`` or
``StorageError``, with words for the user and without credentials. Those, and the endpoint, come from the environment.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, Final

from schemas.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME: Final = "s3://"
BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # what S3 allows
PATIENCE_S: Final = 180.0  # that a running start waits for a store that does not answer; the library's own default
HASTE_S: Final = 10.0  # that any other command waits; guess
MAX_BACKOFF_S: Final = 5.0  # between two tries
CONNECT_S: Final = 5.0
REQUEST_S: Final = 60.0  # for one request, of at most about a segment's bytes; guess
READ_BYTES: Final = 8 << 20  # read ahead where a file is read from its beginning
OWNER: Final = "owner"  # attribute of a created object: by whom


@dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """An object, or the beginning of the names of several: folders are not made, and there as long as they hold one."""

    bucket: str
    key: str = ""  # without a slash at its ends; empty: the whole bucket
    is_patient: bool = field(default=False, compare=False)  # waits ``PATIENCE_S`` for the store, else ``HASTE_S``

    @classmethod
    def parse(cls, text: str) -> ObjectPath:
        """Return the path that a text names.

        Raises:
            ConfigError: If it is none.
        """
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        names = [name for name in key.split("/") if name]
        if not text.startswith(SCHEME) or not BUCKET.fullmatch(bucket) or {".", ".."} & set(names):
            raise ConfigError(
                f"{text!r} is no address on an object store; give {SCHEME}BUCKET/NAME, such as s3://b/runs/a"
            )
        return cls(bucket, "/".join(names))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> ObjectPath:
        """The folder that holds it."""
        return replace(self, key=self.key.rpartition("/")[0])

    def absolute(self) -> ObjectPath:
        """Return the path itself: it does not depend on a working directory."""
        return self

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there as soon as it holds an object."""

    # Reading

    def exists(self) -> bool:
        """Return whether the object is there."""
        try:
            self.head()
        except FileNotFoundError:
            return False
        return True

    def head(self) -> tuple[int, datetime]:
        """Return size in bytes and when it was written, by the store's clock.

        Raises:
            FileNotFoundError: If it is not there.
        """
        with _translated(self):
            found = self._store.head(self.key)
        return found["size"], found["last_modified"]

    def read_bytes(self) -> bytes:
        """Return the whole object.

        Raises:
            FileNotFoundError: If it is not there.
        """
        with _translated(self):
            return bytes(self._store.get(self.key).bytes())

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole object as text."""
        return self.read_bytes().decode(encoding, errors)

    def read_range(self, begin: int, end: int) -> bytes:
        """Return these bytes of the object; ``end`` is behind the last and not beyond the object's own."""
        with _translated(self):
            return bytes(self._store.get_range(self.key, start=begin, end=end)) if end > begin else b""

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Return the object as a file to be read from its beginning."""
        assert mode == "rb", "an object is written whole"
        return io.BufferedReader(RangeReader(self), READ_BYTES)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object below, by what follows this path in its name, in order."""
        with _translated(self):
            found = [(item["path"], item["size"]) for page in self._store.list(self.key) for item in page]
        return {path[len(self.key) + bool(self.key) :]: size for path, size in sorted(found)}

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Yield the objects and folders below that match, part by part."""
        first, _, rest = pattern.partition("/")
        with _translated(self):
            found = self._store.list_with_delimiter(self.key)
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        for name in sorted({path.rpartition("/")[2] for path in paths}):
            if fnmatchcase(name, first):
                yield from (self / name).glob(rest) if rest else (self / name,)

    # Writing

    def write_bytes(self, data: bytes) -> int:
        """Write the object, in place of one that is there: readers see the old one or the new one, whole."""
        with _translated(self):
            self._store.put(self.key, data)
        return len(data)

    def upload(self, file: IO[bytes]) -> None:
        """Write the object from a file, as ``write_bytes`` does, piece by piece."""
        with _translated(self):
            self._store.put(self.key, file)

    def create(self, data: bytes, *, owner: str = "") -> None:
        """Write the object if it is not there.

        The same data of the same ``owner`` may be created again: where an answer was lost, the object may be there. So
        it is tried for as long as the path is patient.

        Raises:
            FileExistsError: If it is there, by another owner.
        """
        owner = owner or secrets.token_hex(8)
        deadline = time.monotonic() + (PATIENCE_S if self.is_patient else 0)
        while True:
            try:
                with _translated(self):
                    self._store.put(self.key, data, attributes={OWNER: owner}, mode="create", use_multipart=False)
                return
            except FileExistsError:
                if self._owner() == owner:
                    return
                raise
            except StorageError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(1)

    def _owner(self) -> str | None:
        with _translated(self):
            found = self._store.get(self.key, options={"head": True}).attributes.get(OWNER)
        return None if found is None else str(found)

    def unlink(self, missing_ok: bool = True) -> None:
        """Delete the object; nothing happens where it is not there."""
        with _translated(self):
            self._store.delete(self.key)

    def delete_all(self, names: list[str]) -> None:
        """Delete these objects below; the order is the store's."""
        if names:
            with _translated(self):
                self._store.delete([(self / name).key for name in names])

    @property
    def _store(self) -> S3Store:
        return _connect(self.bucket, self.is_patient)


class RangeReader(io.RawIOBase):
    """An object as a file that is read where it is asked for: Parquet's reader asks for few, large ranges."""

    def __init__(self, path: ObjectPath) -> None:
        """Raises FileNotFoundError if the object is not there."""
        self._path = path
        self._size, _ = path.head()
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a byte, and return which."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the byte that is read next."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer as far as there are bytes, and return how many."""
        data = self._path.read_range(self._at, min(self._at + len(buffer), self._size))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _exceptions() -> ModuleType:
    try:
        from obstore import exceptions
    except ModuleNotFoundError as error:
        raise ConfigError(f"{SCHEME}...: needs the package obstore; install distillation-factory[s3]") from error
    return exceptions


@lru_cache
def _connect(bucket: str, is_patient: bool) -> S3Store:
    from obstore.store import S3Store

    timeout_s = PATIENCE_S if is_patient else HASTE_S
    return S3Store(
        bucket,
        client_options={
            "allow_http": True,  # where AWS_ENDPOINT_URL says so
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=REQUEST_S),
        },
        retry_config={
            "max_retries": int(timeout_s),  # the time decides
            "retry_timeout": timedelta(seconds=timeout_s),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=MAX_BACKOFF_S),
                "base": 2,
            },
        },
    )


def forget_connections() -> None:
    """Connect anew from now on, as the environment then says."""
    _connect.cache_clear()


@contextmanager
def _translated(path: ObjectPath) -> Iterator[None]:
    """Raise what the library raises as errors that the rest of the factory knows."""
    exceptions = _exceptions()
    try:
        yield
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            raise StorageError(_explained(path, error)) from error
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from None
    except exceptions.AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "the object is there already", str(path)) from None
    except exceptions.BaseError as error:
        raise StorageError(_explained(path, error)) from error


def _code(error: BaseException) -> str | None:
    """Return the code of the store's own answer."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found and found[1]


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _explained(path: ObjectPath, error: BaseException) -> str:
    """Return what happened and what to do, without the library's dump of itself."""
    exceptions = _exceptions()
    endpoint = _without_password(os.environ.get("AWS_ENDPOINT_URL") or "AWS")
    where = f"bucket {path.bucket} at {endpoint}"
    code = _code(error)
    said = code or _without_password(" ".join(str(error).partition("Debug source")[0].split())[:300])
    if code == "NoSuchBucket":
        return f"{path}: there is no {where}; create it, or give another one"
    if "169.254.169.254" in str(error):  # where the library looks when it was given nothing
        return f"{path}: there are no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return (
            f"{path}: {where} refuses these credentials ({said}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, and that they may list, read, write and delete there"
        )
    if "error sending request" in said:
        return f"{path}: nothing answers for {where}; check AWS_ENDPOINT_URL and the network"
    return f"{path}: {where} says: {said}"

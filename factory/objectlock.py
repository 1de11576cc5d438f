"""The exclusive lock of one process on a run that lies on an object store, where nothing frees it at a process's end.

The lock is the object with the highest number in the run's `lock/`: taken by creating the next number, if absent, and
refreshed by writing it again. One that was not refreshed for ``EXPIRES_S`` by the store's own clock is free, as is one
whose process is seen to be dead on this machine. Numbers are never used again; the last holder's object stays and says
"released". A holder that slept through all this is stopped by what it writes: its segments are sealed, its manifests'
numbers taken.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from factory.objects import ObjectPath
from schemas.errors import RunLockedError, StoreError

REFRESH_S: Final = 10.0
EXPIRES_S: Final = 60.0  # several refreshes; the price of a kill on another machine
POLL_S: Final = 1.0
RELEASED: Final = "released"


class ObjectLock:
    """The lock of this process; a thread refreshes it."""

    def __init__(self, path: ObjectPath) -> None:
        """Take the lock; where one is held, wait until its holder shows that it lives, or it has expired.

        Raises:
            RunLockedError: If another living process holds it; names it.
        """
        self._run = path
        self._folder = replace(path, is_patient=False) / "lock"
        self._body: dict[str, Any] = {**_this_process(), "owner": secrets.token_hex(8)}
        number = self._wait_for_last_holder() + 1
        self._path = self._folder / f"{number:06d}"
        try:
            self._path.create(self._data(), owner=self._body["owner"])
        except FileExistsError:
            raise RunLockedError(self._refusal("another process")) from None
        numbers = self._numbers()
        if numbers[-1] != number:  # our listing was older than the last holder's
            self._path.unlink()
            raise RunLockedError(self._refusal("another process"))
        self._folder.delete_all([f"{old:06d}" for old in numbers[:-1]])
        self._is_released = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="lock", daemon=True)
        self._thread.start()

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._folder.sizes() if name.isdecimal())

    def _wait_for_last_holder(self) -> int:
        """Return the number of the last lock, which is free; 0 if there never was one."""
        numbers = self._numbers()
        if not numbers:
            return 0
        last = self._folder / f"{numbers[-1]:06d}"
        try:
            holder = json.loads(last.read_bytes())
            _, seen_at = last.head()
            while holder.get("state") != RELEASED and (lives := _is_seen_alive(holder)) is not False:
                now = self._store_time()
                _, written_at = last.head()
                if lives or written_at != seen_at:
                    raise RunLockedError(self._refusal(f"process {holder.get('pid')} on {holder.get('host')}"))
                if (now - written_at).total_seconds() > EXPIRES_S:
                    break
                time.sleep(POLL_S)
        except FileNotFoundError:  # the next holder deleted it
            raise RunLockedError(self._refusal("another process")) from None
        except ValueError:  # a holder writes it whole: somebody else did this
            raise RunLockedError(f"{last}: holds no lock; if nobody works on the run, delete it") from None
        return numbers[-1]

    def _store_time(self) -> Any:
        clock = self._folder / f"clock-{secrets.token_hex(4)}"
        clock.write_bytes(b"")
        _, now = clock.head()
        clock.unlink()
        return now

    def _refusal(self, holder: str) -> str:
        return f"{self._run}: {holder} works on this run; wait for it, end it, or give another --run folder"

    def _data(self, **more: str) -> bytes:
        return json.dumps(self._body | more | {"refreshed": secrets.token_hex(4)}).encode()

    def _refresh(self) -> None:
        while not self._is_released.wait(REFRESH_S):
            try:
                self._path.write_bytes(self._data())
            except StoreError:  # a store that is away: whoever takes the lock meanwhile may have it
                continue

    def release(self) -> None:
        """Free the lock; where the store does not answer, it expires."""
        self._is_released.set()
        self._thread.join()
        try:
            self._path.write_bytes(self._data(state=RELEASED))
        except StoreError:
            return

    def __enter__(self) -> ObjectLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _machine() -> str:
    """Return what tells machines, their boots and their process tables apart: a process id means nothing elsewhere."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None if there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _is_seen_alive(holder: dict[str, Any]) -> bool | None:
    """Return whether the process of a lock lives; None where that cannot be seen from here."""
    if holder.get("machine") != _machine():
        return None
    started: str | None = holder["started"]
    return _started(int(holder["pid"])) == started

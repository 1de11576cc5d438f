"""The Ray that a command works in: a cluster that is there, or a local one that ends with the command."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

import ray

from schemas.errors import ConfigError, FactoryError

PROBE_S: Final = 5.0  # to connect to a cluster's address
OBJECT_STORE_BYTES: Final = 256 << 20  # samples never pass through Ray, so a local one needs little


@contextmanager
def local_ray(address: str | None = None) -> Iterator[None]:
    """Connect to a cluster, or start a local one that ends with this process.

    Ray prints on stdout, which is for data, when a worker dies (whatever `log_to_driver` says): that is dropped, the
    driver says it in its own words.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "num_cpus": os.cpu_count(),
        }
    else:
        _probe(address)
        options["address"] = address
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local Ray of ours reports to nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about future defaults
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")  # nobody lists the tasks of a local Ray
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a local Ray: see factory/niceness.py
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of actors that end with this process, as they should
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises just that where a node does not start in time
        where = "a local Ray cannot be started" if address is None else f"no Ray cluster answers at {address}"
        raise FactoryError(f"{where}: {error}; nothing was begun, the same command can be run again") from error
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            yield
        finally:
            ray.shutdown()


def _probe(address: str) -> None:
    """Check that something listens at a Ray address: Ray itself would try for minutes.

    Raises:
        ConfigError: If nothing does. Addresses without a port, such as ``auto``, are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise ConfigError(
            f"Ray address {address}: nothing answers there: {error}; start Ray, or leave it out"
        ) from error

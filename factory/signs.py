"""By what an engine is known to live: by tokens while it has attempts in flight, else by its reports.

An engine that has nothing in flight reports every second (``feeder.HEARTBEAT_S``), and ends once it is told to stop.
One whose process is frozen does neither, and no run ends before its engines have. Plain code; the caller has the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Signs(NamedTuple):
    """What an engine has shown so far; by default, that it has not reported yet."""

    num_tokens: int = -1  # generated
    num_reports: int = 0
    has_leases: bool = False


def added(signs: Sequence[Signs]) -> Signs:
    """Return an engine's signs over all runs that it works for."""
    return Signs(
        num_tokens=sum(one.num_tokens for one in signs),
        num_reports=sum(one.num_reports for one in signs),
        has_leases=any(one.has_leases for one in signs),
    )


def shows_life(before: Signs, now: Signs) -> bool:
    """Return whether an engine has done something since; where it has attempts in flight, reports alone are nothing."""
    if (before.has_leases, before.num_tokens) != (now.has_leases, now.num_tokens):
        return True
    return not now.has_leases and before.num_reports != now.num_reports

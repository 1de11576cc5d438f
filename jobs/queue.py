"""The queue of runs that one start works on, over one set of engines: the tail of one is filled by those behind it.

All runs are there from the beginning; engines take attempts of the first, and of those behind only what it cannot fill
(``factory/sharing.py``). A run ends when it is complete, whatever the others still do, and one that fails takes no
other along. A single run is a queue of one. Holds nothing that matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray.exceptions import RayError

from jobs.engines import Engines
from jobs.signals import Notice
from jobs.supervisor import DRAIN_S, Supervisor
from schemas.errors import FactoryError, InterruptedRun, TerminatedRun

POLL_S: Final = 0.5  # of the supervising loop

Ended = Callable[[Supervisor], None]


class Queue:
    """Works on its runs until each has ended, well or not: then its ``error`` says why."""

    def __init__(self, runs: Sequence[Supervisor], engines: Engines, ended: Ended) -> None:
        """Start nothing yet; ``ended`` is called with each run that has, while the others go on."""
        self._runs = list(runs)  # that have not ended
        self._engines = engines
        self._ended = ended

    def work(self, notice: Notice, began_at: float) -> None:
        """Work on all runs; their time limits count from ``began_at``."""
        try:
            for run in self._runs:
                _guarded(run, run.start, began_at)
            self._let_go()
            self._engines.fill()
            while self._runs:
                self._step()
                self._let_go()
        except KeyboardInterrupt:
            self._stop(notice)
        except (FactoryError, RayError) as error:  # of the engines, or the cluster
            for run in self._runs:
                if not run.is_over:
                    run.fail(error)
        finally:
            with suppress(RayError):  # of a cluster that is gone
                self._let_go()
                self._engines.end()

    def _step(self) -> None:
        """Wait a moment for anything to end, then see to it, and to what is due."""
        owners = {ref: run for run in self._runs for ref in run.refs()}
        refs = [*self._engines.refs(), *owners]
        if not refs:  # such as while engines pause
            time.sleep(POLL_S)
        done, _ = ray.wait(refs, timeout=POLL_S, num_returns=1) if refs else ([], [])
        for ref in done:
            if ref in owners:
                _guarded(owners[ref], owners[ref].verifier_ended, ref)
            else:
                self._engines.moved(ref)
        self._let_go()
        self._engines.step()
        for run in self._runs:
            if run.error is None:
                _guarded(run, run.step)

    def _let_go(self) -> None:
        """See to runs that have ended."""
        for run in [run for run in self._runs if _has_ended(run)]:
            with suppress(RayError):
                run.end()
            self._runs.remove(run)
            self._ended(run)

    def _stop(self, notice: Notice) -> None:
        """Have all engines save what they have in flight of any run, and end."""
        said, kind = ("stopped by SIGTERM", TerminatedRun) if notice.has_come else ("interrupted", InterruptedRun)
        runs = [run for run in self._runs if not _has_ended(run)]
        for run in runs:
            _guarded(run, run.begin_drain)
        self._engines.wait_for(runs, DRAIN_S)
        for run in runs:
            _guarded(run, run.end_drain)
            run.fail(kind(run.how_to_go_on(said)))


def _has_ended(run: Supervisor) -> bool:
    return run.is_over or run.error is not None


def _guarded(run: Supervisor, act: Callable[..., None], *arguments: Any) -> None:
    """Do something for a run; what goes wrong is its own."""
    try:
        act(*arguments)
    except (FactoryError, RayError, OSError) as error:
        run.fail(error)

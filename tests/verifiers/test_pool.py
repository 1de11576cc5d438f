"""The pool ends every task in one of four ways, in time, and leaves no process behind. Real processes throughout."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verifiers.limits import MAX_MESSAGE_BYTES
from verifiers.pool import Died, Done, Pool, TimedOut, TooBig

DEADLINE_S = 0.5


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(num_workers=2, deadline_s=DEADLINE_S, memory_mb=256, max_tasks_per_worker=50) as made:
        made.call("probe", ["echo", 0])  # the zygote is up: deadlines below are of tasks alone
        yield made


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_dead(pids: list[int], timeout_s: float = 60.0) -> list[int]:
    give_up_at = time.monotonic() + timeout_s
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return alive


def wait_until_at_work(pid: int) -> None:
    """Return once a process uses CPU time: a worker that waits for a task uses none."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, give_up_at = ticks(), time.monotonic() + 60
    while ticks() < before + 5:  # 50 ms; to read a task takes less than one
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def value(result: object) -> object:
    assert isinstance(result, Done), result
    return result.value


@pytest.mark.parametrize("payload", [0, "", "é\ud800\0", [1, None, {"a": [True, 1.5]}], "x" * 300_000])
def test_a_json_value_goes_through_and_comes_back(pool: Pool, payload: object) -> None:
    assert value(pool.call("probe", ["echo", payload])) == payload


@pytest.mark.parametrize("task", ["loop", "big_power"])
def test_a_task_that_never_ends_is_killed_in_time(pool: Pool, task: str) -> None:
    start = time.monotonic()
    assert isinstance(pool.call("probe", [task]), TimedOut)
    assert time.monotonic() - start < DEADLINE_S + 10  # a busy machine lets everybody wait
    assert value(pool.call("probe", ["echo", 1])) == 1


def test_a_task_that_eats_memory_is_too_big_and_the_next_one_runs() -> None:
    with Pool(num_workers=1, deadline_s=10, memory_mb=256) as pool:  # filling 256 MB may take a second of CPU time
        assert isinstance(pool.call("probe", ["hog"]), TooBig)
        assert value(pool.call("probe", ["echo", 1])) == 1


def test_an_oversized_payload_is_too_big_without_a_worker(pool: Pool) -> None:
    assert isinstance(pool.call("probe", ["echo", "x" * MAX_MESSAGE_BYTES]), TooBig)


def test_an_unexpected_exception_is_died_with_its_traceback(pool: Pool) -> None:
    result = pool.call("probe", ["raise"])
    assert isinstance(result, Died)
    assert "KeyError" in result.detail


def test_a_worker_that_exits_is_died_with_its_status(pool: Pool) -> None:
    result = pool.call("probe", ["exit", 7])
    assert isinstance(result, Died)
    assert "exit status 7" in result.detail


def test_a_worker_cannot_write_files(pool: Pool, tmp_path: Path) -> None:
    assert isinstance(pool.call("probe", ["write", str(tmp_path / "x")]), Died)
    assert not (tmp_path / "x").exists() or not (tmp_path / "x").read_bytes()


def test_a_worker_killed_while_idle_is_replaced_unnoticed(pool: Pool) -> None:
    pid = value(pool.call("probe", ["pid"]))
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert wait_until_dead([pid]) == []
    assert value(pool.call("probe", ["pid"])) != pid


def test_a_worker_killed_at_work_is_died_and_the_pool_goes_on() -> None:
    with Pool(num_workers=1, deadline_s=20) as pool:
        pid = value(pool.call("probe", ["pid"]))
        assert isinstance(pid, int)
        with ThreadPoolExecutor() as threads:
            pending = threads.submit(pool.call, "probe", ["loop"])
            wait_until_at_work(pid)
            os.kill(pid, signal.SIGKILL)
            result = pending.result(timeout=60)
        assert isinstance(result, Died)
        assert "signal 9" in result.detail
        assert value(pool.call("probe", ["echo", 1])) == 1


def test_a_dead_zygote_is_replaced(pool: Pool) -> None:
    zygote, *workers = pool.pids()
    os.kill(zygote, signal.SIGKILL)
    assert wait_until_dead(workers) == []  # they follow it
    assert value(pool.call("probe", ["echo", 1])) == 1
    assert pool.pids()[0] != zygote


def test_workers_are_recycled_after_their_share_of_tasks() -> None:
    with Pool(num_workers=1, max_tasks_per_worker=3) as pool:
        pids = [value(pool.call("probe", ["pid"])) for _ in range(7)]
    assert Counter(Counter(pids).values()) == {3: 2, 1: 1}


def test_what_a_worker_started_dies_with_it(pool: Pool) -> None:
    grandchild = value(pool.call("probe", ["child"]))
    assert isinstance(grandchild, int)
    assert is_alive(grandchild)
    pool.call("probe", ["loop"])
    assert wait_until_dead([grandchild]) == []


def test_many_calls_from_many_threads_each_get_their_own_answer(pool: Pool) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda i: pool.call("probe", ["echo", i]), range(200)))
    assert [value(result) for result in results] == list(range(200))
    assert len(pool.pids()) <= 1 + pool.num_workers


def test_timeouts_and_answers_do_not_mix_under_threads(pool: Pool) -> None:
    tasks = [["loop"] if i % 7 == 0 else ["raise"] if i % 7 == 1 else ["echo", i] for i in range(28)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda task: pool.call("probe", task), tasks))
    kinds = {"loop": TimedOut, "raise": Died, "echo": Done}
    assert [type(result) for result in results] == [kinds[str(task[0])] for task in tasks]


def test_nothing_is_alive_after_close(pool: Pool) -> None:
    pool.call("math_verify", {"answer": "x+1", "reference": "1+x", "precision": None})
    pids = pool.pids()
    assert len(pids) >= 3
    pool.close()
    assert wait_until_dead(pids) == []
    with pytest.raises(ValueError, match="closed"):
        pool.call("probe", ["echo", 1])


def test_close_while_a_task_runs_ends_the_task() -> None:
    pool = Pool(num_workers=1, deadline_s=30)
    pid = value(pool.call("probe", ["pid"]))
    assert isinstance(pid, int)
    with ThreadPoolExecutor() as threads:
        pending = threads.submit(pool.call, "probe", ["loop"])
        wait_until_at_work(pid)
        pids = pool.pids()
        pool.close()
        assert isinstance(pending.result(timeout=60), Died)
    assert wait_until_dead(pids) == []


CALLER = """
import sys, threading, time
from verifiers.pool import default_pool
pool = default_pool()
pool.call("probe", ["echo", 1])
threading.Thread(target=pool.call, args=("probe", ["loop"]), daemon=True).start()
time.sleep(0.2)
print(*pool.pids(), flush=True)
time.sleep(60)
"""


def test_nothing_outlives_a_caller_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        pids = [int(word) for word in caller.stdout.readline().split()]
        assert len(pids) >= 2
        assert all(is_alive(pid) for pid in pids)
        caller.kill()
    assert wait_until_dead(pids) == []


FORKING_CALLER = """
import os, sys, time
from verifiers.pool import Done, default_pool
pool = default_pool()
first = pool.call("probe", ["pid"]).value
child = os.fork()
if child == 0:
    again = default_pool()
    ok = again is not pool and isinstance(again.call("probe", ["echo", 1]), Done)
    try:
        pool.call("probe", ["echo", 1])
        ok = False
    except ValueError:
        pass
    again.close()
    os._exit(0 if ok else 1)
status = os.waitpid(child, 0)[1]
assert status == 0, status
assert pool.call("probe", ["pid"]).value == first
print("fine")
"""


def test_a_fork_of_the_caller_gets_a_pool_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING_CALLER], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr


def test_the_callers_signals_threads_and_children_are_untouched(pool: Pool) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    num_threads, timer = threading.active_count(), signal.getitimer(signal.ITIMER_REAL)
    pool.call("probe", ["loop"])
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert timer[0] - 60 <= signal.getitimer(signal.ITIMER_REAL)[0] <= timer[0]  # pytest-timeout's own runs on
    assert threading.active_count() == num_threads


def test_a_library_that_cannot_load_is_died_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Pool(num_workers=1) as pool:
        result = pool.call("probe", ["echo", 1])
    assert isinstance(result, Died)


def test_unknown_tasks_and_bad_bounds_are_value_errors(pool: Pool) -> None:
    with pytest.raises(ValueError, match="task='eval'"):
        pool.call("eval", "1")
    with pytest.raises(ValueError, match="num_workers=0"):
        Pool(num_workers=0)

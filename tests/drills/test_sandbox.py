"""Hostile programs against every tier of isolation, with what is checked from outside, and what is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.bench import hostile
from jobs.bench.drill import wait_until
from schemas.problem import Limits, StdinTest
from schemas.verdict import CodeDetail, Outcome, Reason
from verifiers.code import judge_program
from verifiers.sandbox import Sandbox, SlotError, slots

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent.parent / "data"
PUBLIC = hostile.read_rows(DATA / "sandbox_abuse_public.jsonl")
# Of the larger set those that end soon; all of it: factory bench code --hostile tests/data/sandbox_abuse_blind.jsonl
WAITING = ("time", "memory", "disk", "output", "compile", "survive")
OTHERS = [
    row
    for row in hostile.read_rows(DATA / "sandbox_abuse_blind.jsonl")
    if row.category.split("/")[0] not in WAITING and row.language == "python"
]
NOBODY = 65_534
LIMITS = Limits(cpu_time_s=2.0, wall_time_s=4.5, memory_mb=256)

# Does to a process what a container's default profile does, and, with a user, what running as one does; then becomes
# the command. Refused: unshare, setns, mount and its family, and clone with namespaces.
CONFINE = """
import ctypes, os, struct, sys
user, command = int(sys.argv[1]), sys.argv[2:]
refused = [272, 308, 165, 166, 155, 428, 429, 430, 431, 432, 442]
if os.environ.get("CONFINE") == "all": refused.append(444)  # Landlock
steps = [(0x20, 0, 0, 0)] + [step for number in refused for step in ((0x15, 0, 1, number), (6, 0, 0, 0x50001))]
steps += [(0x15, 0, 3, 56), (0x20, 0, 0, 16), (0x45, 0, 1, 0x7E020080), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("=HBBI", *step) for step in steps)
libc = ctypes.CDLL(None, use_errno=True)
if os.environ.pop("CONFINE", ""):
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    assert libc.prctl(22, 2, header, 0, 0) == 0, ctypes.get_errno()
if user:
    os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
os.execv(command[0], command)
"""


def check(sandbox: Sandbox, rows: list[hostile.Row]) -> None:
    sandbox.probe()
    before = hostile.below(os.getpid())
    wrong = []
    with hostile.host() as host:
        for row in rows:
            wrong += [f"{row.name} {row.category}: {said}" for said in hostile.findings(row, sandbox, host)]
            if sandbox.num_replaced == 0:
                wrong += [f"{row.name} {row.category}: left {one}" for one in hostile.survivors(before)]
    assert not wrong
    assert sandbox.num_replaced == 0


@pytest.mark.parametrize("rows", [PUBLIC, OTHERS], ids=["public", "by another hand"])
@pytest.mark.parametrize("tier", ["A", "B", "C"])
def test_hostile_programs_are_held_in_each_tier(tier: slots.Tier, rows: list[hostile.Row]) -> None:
    with closing(Sandbox(tier=tier, num_slots=1)) as sandbox:
        found, why_not = sandbox.probe()
        if found != tier:
            pytest.skip(f"this machine has no tier {tier}: {why_not}")
        check(sandbox, rows)


@pytest.fixture
def confined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int, str], None]:
    """Return what makes every slot start as a user, with or without the right to namespaces."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    home = tmp_path / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(slots.sysconfig.get_path("stdlib"))
    shutil.copytree(
        library, home / "lib" / version, ignore=shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip")
    )
    (home / "bin").mkdir()
    shutil.copy(slots.interpreter(), home / "bin" / version)
    sandbox_code = tmp_path / "verifiers"
    shutil.copytree(Path(slots.__file__).parent, sandbox_code / "sandbox")
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    script = tmp_path / "confine.py"
    script.write_text(CONFINE)
    real = subprocess.Popen

    def setup(user: int, denied: str) -> None:
        def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            if command[0] != "/bin/sh":
                return real(command, **options)
            for part in command:
                if part.startswith("/") and "factory-slot-" in part and user:
                    os.chown(part, user, user)
            wrapped = [str(home / "bin" / version), "-I", "-S", str(script), str(user), *command]
            return real(wrapped, **{**options, "env": {"CONFINE": denied} if denied else {}})

        monkeypatch.setattr(slots.subprocess, "Popen", start)
        monkeypatch.setattr(slots, "interpreter", lambda: str(home / "bin" / version))
        monkeypatch.setattr(slots, "_FOLDER", sandbox_code / "sandbox")

    return setup


def _started_below(folder: Path) -> list[Path]:
    return [one for one in Path("/proc").iterdir() if one.name.isdigit() and str(folder).encode() in _command_of(one)]


def _command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it ended this moment
        return b""


@pytest.mark.parametrize(
    ("user", "denied", "tier"),
    [(0, "namespaces", "B"), (NOBODY, "", "A"), (NOBODY, "namespaces", "C")],
    ids=["root in a container", "a user", "a user in a container"],
)
def test_the_tier_is_the_best_that_a_place_allows_and_holds_there(
    user: int, denied: str, tier: str, confined: Callable[[int, str], None], tmp_path: Path
) -> None:
    confined(user, denied)
    with closing(Sandbox(num_slots=1)) as sandbox:
        found, why_not = sandbox.probe()
        if (tier, found) == ("A", "C") and "Operation not permitted" in why_not:
            pytest.skip("this machine lets nobody make user namespaces")
        assert found == tier, why_not
        assert bool(why_not) == (tier != "A")
        check(sandbox, PUBLIC)
    deadline = time.monotonic() + 10
    while _started_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _started_below(tmp_path)  # not even what only tried for a higher tier


@pytest.mark.parametrize("user", [0, NOBODY])
def test_without_walls_nothing_runs_unless_it_is_allowed(user: int, confined: Callable[[int, str], None]) -> None:
    confined(user, "all")
    test = [StdinTest(input="20\n", expected="21\n")]
    with closing(Sandbox(num_slots=1)) as sandbox:
        with pytest.raises(SlotError, match=r"Landlock .* only a lowest tier of D"):
            sandbox.probe()
        verdict = judge_program("print(int(input()) + 1)", test, sandbox=sandbox)
        assert verdict.reason is Reason.WORKER_DIED
        assert verdict.outcome is Outcome.UNJUDGED
    with closing(Sandbox(num_slots=1, lowest="D")) as sandbox:
        assert sandbox.probe()[0] == "D"
        verdict = judge_program("print(int(input()) + 1)", test, sandbox=sandbox)
        assert verdict.outcome is Outcome.CORRECT
        assert [check.detail.tier for check in verdict.checks if isinstance(check.detail, CodeDetail)] == ["D"]


@pytest.mark.alone
def test_nothing_is_left_after_many_hostile_runs() -> None:
    """A few hundred here; ten thousand: factory bench code --hostile FILE --endure 10000."""
    cores = len(os.sched_getaffinity(0))
    rows = [row for row in OTHERS if row.category.split("/")[0] != "forgery"]
    with closing(Sandbox()) as sandbox:
        hostile.endure(PUBLIC, 2 * cores, sandbox, cores, lambda _: None)  # slots are up before anything is counted
        before = hostile.remains()
        assert hostile.endure(rows, 300, sandbox, cores, lambda _: None) == 0
        left = hostile.remains().minus(before)
        assert max(left.values()) <= 0, left  # others may have closed a socket meanwhile
        assert sandbox.num_replaced == 0
    time.sleep(0.5)
    assert not [one for one in hostile.survivors([]) if "slot" in one]


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("tier", ["A", "B", "C"])
def test_a_caller_that_is_killed_takes_its_slots_along(tier: str, is_busy: bool, tmp_path: Path) -> None:
    code = (
        "import threading, time\nfrom schemas.problem import Limits\nfrom verifiers.sandbox import Sandbox\n"
        f"sandbox = Sandbox(num_slots=1, tier={tier!r})\nsandbox.probe()\n"
        "run = lambda: sandbox.run_script(b'import time; time.sleep(60)', b'', Limits(wall_time_s=60))\n"
        "print('up', flush=True)\ninput()\n"
        f"if {is_busy}: threading.Thread(target=run, daemon=True).start()\n"
        "time.sleep(600)"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"up\n"
    assert len([*tmp_path.glob("factory-slot-*")]) == (tier != "A")  # tier A gives its folder back
    idle = hostile.below(caller.pid)
    assert idle
    assert caller.stdin is not None
    caller.stdin.write(b"\n")
    caller.stdin.flush()
    wait_until(lambda: len(hostile.below(caller.pid)) >= len(idle) + is_busy, 60, "the program runs")
    below = hostile.below(caller.pid)
    caller.kill()
    caller.wait()
    caller.stdin.close()
    caller.stdout.close()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert not [*tmp_path.iterdir()]


def test_environment_and_descriptors_of_the_caller_do_not_reach_a_program(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("descriptor secret")
    fd = os.open(secret, os.O_RDONLY)
    os.set_inheritable(fd, True)
    os.environ["HF_TOKEN"] = hostile.TOKEN
    source = (
        "import os\nprint(dict(os.environ))\n"
        "for n in range(256):\n    try: print(n, os.read(n, 100))\n    except OSError: pass\n"
        "for name in ('environ', 'cmdline', 'maps', 'mountinfo'):\n"
        "    for who in ('self', '1', str(os.getppid())):\n"
        "        try: print(open(f'/proc/{who}/{name}').read())\n        except OSError as e: print(e)\n"
    )
    try:
        for tier in slots.TIERS[:3]:
            with closing(Sandbox(tier=tier, num_slots=1)) as sandbox:
                ran = sandbox.run_script(source.encode(), b"", LIMITS)
            assert ran.exit == 0
            said = ran.written + ran.stderr
            assert hostile.TOKEN.encode() not in said
            assert b"descriptor secret" not in said
    finally:
        del os.environ["HF_TOKEN"]
        os.close(fd)

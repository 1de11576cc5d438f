"""The contract of a teacher, held by every implementation: one set of tests, run against each."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from factory.teachers import Completion, EngineInfo, Request, TeacherEngine, make_engine
from jobs.demo_teacher import SHIPPED_MODELS
from schemas.config import EngineOptions, SamplingConfig, ScriptedTeacher, Teacher, VllmTeacher
from schemas.errors import RequestError, TeacherError
from schemas.trace import FinishReason
from tests.runs import children_of, is_alive, wait_until

T = TypeVar("T")
NUM_SLOTS = 16
CONTEXT = 1024
OPTIONS = EngineOptions(
    enforce_eager=True,
    max_num_seqs=NUM_SLOTS,
    max_num_batched_tokens=512,
    max_model_len=CONTEXT,
    cpu_kvcache_gib=1,
)
SAMPLING = SamplingConfig(max_tokens=96)


def _vllm() -> Teacher:
    return VllmTeacher(kind="vllm", model=str(SHIPPED_MODELS["demo"]), engine=OPTIONS)


def _scripted() -> Teacher:
    return ScriptedTeacher(kind="scripted", max_num_seqs=NUM_SLOTS, max_model_len=CONTEXT, tokens_per_s=5000)


@dataclass(slots=True)
class Running:
    """An engine and the one event loop in which it lives."""

    engine: TeacherEngine
    info: EngineInfo
    loop: asyncio.AbstractEventLoop
    encode: Callable[[str], tuple[int, ...]]
    names: Iterator[int] = field(default_factory=itertools.count)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end, in the engine's loop."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 120))

    def request(self, prompt: str = "What is 12 + 30?") -> Request:
        """Return a request with a name of its own."""
        return Request(request_id=f"request-{next(self.names)}", prompt_token_ids=self.encode(prompt))


def _encoder(teacher: Teacher) -> Callable[[str], tuple[int, ...]]:
    if isinstance(teacher, ScriptedTeacher):
        return lambda text: tuple(text.encode())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher.model)

    def encode(text: str) -> tuple[int, ...]:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        return tuple(tokenizer.encode(chat, add_special_tokens=False))

    return encode


def _running(teacher: Teacher, sampling: SamplingConfig) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    before = children_of(os.getpid())
    engine = make_engine(teacher, sampling, engine_id="engine-0-e1-1", incarnation=1)
    info = loop.run_until_complete(asyncio.wait_for(engine.start(), 300))
    yield Running(engine, info, loop, _encoder(teacher))
    started = children_of(os.getpid()) - before
    loop.run_until_complete(asyncio.wait_for(engine.close(), 60))
    loop.close()
    # The resource tracker of multiprocessing is Python's own, one per process, and ends with it.
    mine = {pid for pid in started if b"resource_tracker" not in _command(pid)}
    wait_until(lambda: not any(map(is_alive, mine)), 60, f"processes {mine} are left after close")


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


TEACHERS = [
    pytest.param(_scripted, id="scripted"),
    pytest.param(_vllm, id="vllm", marks=[pytest.mark.vllm, pytest.mark.slow]),
]


@pytest.fixture(scope="module", params=TEACHERS)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Return an engine with plain sampling; at the end it is closed, and nothing may be left of it."""
    yield from _running(request.param(), SAMPLING)


async def _all(running: Running, requests: list[Request]) -> list[Completion]:
    return await asyncio.gather(*map(running.engine.generate, requests))


def test_the_settings_are_those_that_were_asked_for(running: Running) -> None:
    assert running.info.max_num_seqs == NUM_SLOTS
    assert running.info.max_model_len == CONTEXT
    assert running.info.engine_version


def test_a_completion_has_as_many_tokens_as_it_says_and_no_more_than_allowed(running: Running) -> None:
    completions = running.do(_all(running, [running.request() for _ in range(24)]))
    for completion in completions:
        assert 1 <= len(completion.token_ids) <= SAMPLING.max_tokens
        if len(completion.token_ids) < SAMPLING.max_tokens:
            assert completion.finish_reason is FinishReason.STOP
        assert completion.text
        assert completion.text.encode().decode() == completion.text
        assert 0 < completion.submitted_at_us <= completion.finished_at_us
        assert completion.num_reasoning_tokens is None or completion.num_reasoning_tokens <= len(completion.token_ids)
    reasons = {completion.finish_reason for completion in completions}
    assert reasons <= {FinishReason.STOP, FinishReason.LENGTH}


def test_a_cut_completion_says_length_and_has_all_its_tokens(running: Running) -> None:
    # The prompt leaves room for three tokens only, and no answer of either teacher is as short.
    room = 3
    ask = running.request().prompt_token_ids
    filled = (ask * CONTEXT)[: CONTEXT - room - len(ask)] + ask
    completion = running.do(running.engine.generate(Request(request_id="cut", prompt_token_ids=filled)))
    assert len(completion.token_ids) == room
    assert completion.finish_reason is FinishReason.LENGTH


def test_more_requests_than_slots_all_return_each_to_its_own_prompt(running: Running) -> None:
    prompts = [f"What is {number} + {number + 1}?" for number in range(4 * NUM_SLOTS)]
    requests = [running.request(prompt) for prompt in prompts]
    done: list[str] = []

    async def one(request: Request) -> Completion:
        completion = await running.engine.generate(request)
        done.append(request.request_id)
        return completion

    async def everything() -> list[Completion]:
        return await asyncio.gather(*map(one, requests))

    completions = running.do(everything())
    assert sorted(done) == sorted(request.request_id for request in requests)
    if running.info.engine == "scripted":  # of a model, nobody knows what it will say
        whole = [(n, c.text) for n, c in enumerate(completions) if c.finish_reason is FinishReason.STOP]
        assert whole
        for number, text in whole:
            assert 0 <= int(text.split("boxed{")[1].split("}")[0]) - (2 * number + 1) <= 9


def test_tokens_are_counted_while_they_come(running: Running) -> None:
    before = running.engine.num_tokens_out
    completions = running.do(_all(running, [running.request() for _ in range(8)]))
    made = sum(len(completion.token_ids) for completion in completions)

    async def counted() -> None:
        while running.engine.num_tokens_out - before < 0.9 * made:
            await asyncio.sleep(0.05)

    running.do(counted())
    assert running.engine.num_tokens_out - before <= 1.5 * made


def test_an_aborted_request_returns_with_what_there_is(running: Running) -> None:
    async def abort_one() -> list[Completion]:
        requests = [running.request() for _ in range(NUM_SLOTS)]
        tasks = [asyncio.create_task(running.engine.generate(request)) for request in requests]
        before = running.engine.num_tokens_out
        while running.engine.num_tokens_out <= before:  # they are on their way
            await asyncio.sleep(0)
        await running.engine.abort(requests[3].request_id)
        return await asyncio.gather(*tasks)

    completions = running.do(abort_one())
    if completions[3].finish_reason is not FinishReason.ABORT:  # it was quicker
        assert completions[3].finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    others = {c.finish_reason for place, c in enumerate(completions) if place != 3}
    assert FinishReason.ABORT not in others


def test_a_request_that_waits_for_a_slot_can_be_aborted(running: Running) -> None:
    async def abort_last() -> Completion:
        requests = [running.request() for _ in range(3 * NUM_SLOTS)]
        tasks = [asyncio.create_task(running.engine.generate(request)) for request in requests]
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        await running.engine.abort(requests[-1].request_id)
        completion = await tasks[-1]
        await asyncio.gather(*tasks)
        return completion

    completion = running.do(abort_last())
    assert completion.finish_reason is FinishReason.ABORT
    assert len(completion.token_ids) < SAMPLING.max_tokens


def test_aborting_what_is_not_there_does_nothing(running: Running) -> None:
    running.do(running.engine.abort("nobody"))
    assert running.do(running.engine.generate(running.request())).text


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_prompt_without_room_is_refused_alone(running: Running, length: int) -> None:
    async def mixed() -> list[Completion | BaseException]:
        good = [running.request() for _ in range(4)]
        bad = Request(request_id=f"bad-{length}", prompt_token_ids=(good[0].prompt_token_ids * length)[:length])
        return await asyncio.gather(*map(running.engine.generate, [*good, bad]), return_exceptions=True)

    *good, bad = running.do(mixed())
    assert all(isinstance(completion, Completion) for completion in good)
    assert isinstance(bad, RequestError)
    assert str(length) in str(bad)


def test_an_empty_prompt_ends_alone_too(running: Running) -> None:
    async def mixed() -> list[Completion | BaseException]:
        empty = Request(request_id="empty", prompt_token_ids=())
        return await asyncio.gather(*map(running.engine.generate, [running.request(), empty]), return_exceptions=True)

    good, empty = running.do(mixed())
    assert isinstance(good, Completion)
    assert isinstance(empty, Completion | RequestError)


def test_a_cancelled_request_leaves_the_engine_working(running: Running) -> None:
    async def cancel_some() -> Completion:
        tasks = [asyncio.create_task(running.engine.generate(running.request())) for _ in range(2 * NUM_SLOTS)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await running.engine.generate(running.request())

    assert running.do(cancel_some()).text


@pytest.mark.parametrize("make", TEACHERS)
def test_a_stop_string_ends_a_completion_and_is_named(make: Callable[[], Teacher]) -> None:
    stop = "a"  # in nearly every text
    sampling = SamplingConfig(max_tokens=96, stop=(stop,))
    for running in _running(make(), sampling):
        completions = running.do(_all(running, [running.request() for _ in range(8)]))
        stopped = [c for c in completions if c.stop_token == stop]
        assert stopped
        assert all(c.finish_reason is FinishReason.STOP for c in stopped)
        assert all(stop not in c.text for c in completions)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_model_folder_that_cannot_be_loaded_is_a_teacher_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    teacher = VllmTeacher(kind="vllm", model=str(tmp_path), engine=OPTIONS)
    before = children_of(os.getpid())

    async def start() -> None:
        await make_engine(teacher, SAMPLING, engine_id="e", incarnation=1).start()

    with pytest.raises(TeacherError, match=tmp_path.name):
        asyncio.run(start())
    mine = {pid for pid in children_of(os.getpid()) - before if b"resource_tracker" not in _command(pid)}
    wait_until(lambda: not any(map(is_alive, mine)), 60, f"processes {mine} are left after a failed start")


ACTOR = """
import asyncio, sys
from factory.teachers import make_engine
from tests.factory.test_teachers import SAMPLING, _vllm
async def live():
    engine = make_engine(_vllm(), SAMPLING, engine_id="e", incarnation=1)
    await engine.start()
    print("ready", flush=True)
    await asyncio.sleep(600)
if __name__ == "__main__":
    asyncio.run(live())
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_an_engine_core_ends_when_its_actor_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "actor.py"  # a file, since vLLM starts its core by importing the main module again
    script.write_text(ACTOR)
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
        )
    cores: set[int] = set()
    try:
        assert child.stdout is not None
        while (line := child.stdout.readline()) != "ready\n":  # vLLM logs there too
            assert line, (tmp_path / "log").read_text()[-3000:]
        cores = children_of(child.pid)
        assert cores
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_until(lambda: not any(map(is_alive, cores)), 30, f"processes {cores} outlive their actor")
    finally:
        child.kill()
        child.wait()
        for pid in filter(is_alive, cores):
            os.kill(pid, signal.SIGKILL)

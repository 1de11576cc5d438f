"""The contract of a teacher, held by every implementation: one set of tests, run against each."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from factory.early import Rules
from factory.feeder import Feeder, Lease
from factory.sharing import Slots
from factory.teachers import Completion, EngineInfo, Request, TeacherEngine, Watch, make_engine
from factory.teachers.resolved import check_resolved
from jobs.bench.drill import is_alive, wait_until
from jobs.demo_teacher import SHIPPED_MODELS
from schemas.config import (
    EngineOptions,
    OpenaiTeacher,
    ReplayColumns,
    ReplayTeacher,
    SamplingConfig,
    ScriptedTeacher,
    StoreConfig,
    Teacher,
    VllmTeacher,
)
from schemas.errors import NotRecordedError, RequestError, TeacherError
from schemas.problem import Domain, Message, Problem
from schemas.readability import ReadabilitySettings
from schemas.trace import FinishReason, TraceFormat
from tests.factory.test_feeder import STAMP, Desk
from tests.runs import children_of
from tests.servers import KEY_VARIABLE, vllm_server

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
QUESTION = "What is 12 + 30?"
TAUGHT = (  # a question as the demo teacher has learnt it: it thinks first, nearly every time
    "State the final answer to the following arithmetic problem: 12 + 30 =\n\n"
    "Please reason step by step, and put your final answer within \\boxed{}."
)
PROBLEM = Problem(
    domain=Domain.MATH, messages=(Message(role="user", content=QUESTION),), source="tests", source_row_id="1"
)
CUT = 999  # the recorded attempt that ended for its length


def _vllm() -> Teacher:
    return VllmTeacher(kind="vllm", model=str(SHIPPED_MODELS["demo"]), engine=OPTIONS)


def _scripted() -> Teacher:
    return ScriptedTeacher(kind="scripted", max_num_seqs=NUM_SLOTS, max_model_len=CONTEXT, tokens_per_s=5000)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Return where the demo teacher is served by a real vLLM server, which splits its reasoning off."""
    with vllm_server(str(SHIPPED_MODELS["demo"]), OPTIONS, "--reasoning-parser", "deepseek_r1") as url:
        yield url


def _openai(base_url: str) -> Teacher:
    return OpenaiTeacher(
        kind="openai",
        model="demo",
        base_url=base_url,
        api_key_env=KEY_VARIABLE,
        api="chat",
        max_in_flight=NUM_SLOTS,
        extra_body={"skip_special_tokens": False, "return_token_ids": True},
    )


def _replay(path: Path) -> Teacher:
    """Return a recording of one problem with all the attempts that a test may ask for."""
    if not path.exists():
        text = "<think>\n12 + 30 = 42\n</think>\n\nIt is \\boxed{42}."
        rows = [{"question": QUESTION, "text": text, "ended": "stop"}] * 1000
        rows[CUT] = {"question": QUESTION, "text": text[:3], "ended": "length"}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ReplayColumns(problem="question", completion="text", finish_reason="ended")
    return ReplayTeacher(kind="replay", path=str(path), columns=columns, domains=(Domain.MATH,))


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

    @property
    def is_replay(self) -> bool:
        """True for the one teacher that has no context, and all its answers beforehand."""
        return self.info.engine == "replay"

    def request(self, question: str = QUESTION) -> Request:
        """Return a request with a name of its own."""
        number = next(self.names)
        text = json.dumps([{"role": "user", "content": question}])
        return request_of(f"request-{number}", text, self.encode(question), number)

    def long_request(self, length: int) -> Request:
        """Return a request whose prompt has as many tokens."""
        if self.info.engine == "openai":  # each `1` is a token of the demo teacher, beside those of the chat template
            around = self.encode("")
            return self.request("1" * (length - len(around)))
        ask = self.encode(QUESTION)
        return request_of(f"long-{length}", QUESTION, ((ask * length)[: max(0, length - len(ask))] + ask)[-length:], 0)


def request_of(name: str, text: str, token_ids: tuple[int, ...], sample_index: int) -> Request:
    """Return a request for the one problem of these tests."""
    return Request(
        request_id=name,
        problem_id=PROBLEM.problem_id,
        sample_index=sample_index,
        prompt_text=text,
        prompt_token_ids=token_ids,
    )


def _encoder(teacher: Teacher) -> Callable[[str], tuple[int, ...]]:
    if isinstance(teacher, ScriptedTeacher | ReplayTeacher):
        return lambda text: tuple(text.encode())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODELS["demo"])

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


REAL = [pytest.mark.vllm, pytest.mark.slow]
TEACHERS = [
    pytest.param("scripted", id="scripted"),
    pytest.param("replay", id="replay"),
    pytest.param("openai", id="openai", marks=REAL),
    pytest.param("vllm", id="vllm", marks=REAL),
]

RESUMING = [TEACHERS[0], TEACHERS[3]]
GENERATING = [teacher for teacher in TEACHERS if teacher.id != "replay"]  # with a context, and texts of their own


@pytest.fixture(scope="module")
def make_teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Teacher]:
    """Return a function that makes a teacher by its kind; a server is started when it is first asked for."""
    recorded = tmp_path_factory.mktemp("recorded") / "recorded.jsonl"
    return lambda kind: {
        "scripted": _scripted,
        "vllm": _vllm,
        "replay": lambda: _replay(recorded),
        "openai": lambda: _openai(request.getfixturevalue("base_url")),
    }[kind]()


@pytest.fixture(scope="module", params=TEACHERS)
def running(request: pytest.FixtureRequest, make_teacher: Callable[[str], Teacher]) -> Iterator[Running]:
    """Return an engine with plain sampling; at the end it is closed, and nothing may be left of it."""
    yield from _running(make_teacher(request.param), SAMPLING)


async def _all(running: Running, requests: list[Request]) -> list[Completion]:
    return await asyncio.gather(*map(running.engine.generate, requests))


def test_the_settings_are_those_that_were_asked_for(running: Running) -> None:
    if running.is_replay:
        assert running.info.max_model_len is None
    else:
        assert running.info.max_num_seqs == NUM_SLOTS
        assert running.info.max_model_len == CONTEXT
    if running.info.engine == "vllm":
        settings, seed = running.info.settings, running.info.settings["seed"]
        check_resolved(OPTIONS.model_dump() | {"seed": seed}, settings)
        with pytest.raises(TeacherError, match=r"watermark=0\.5 was asked for, vLLM resolved it to 0\.02"):
            check_resolved(OPTIONS.model_dump() | {"seed": seed, "watermark": 0.5}, settings)
        assert json.loads(json.dumps(settings)) == settings, "they go into the engine's log"
    assert running.info.engine_version
    loaded = running.info.loaded
    assert (loaded is not None) == (running.info.engine == "vllm"), "only who loads a model knows"
    if loaded is not None:
        assert (loaded.quantization, loaded.tensor_parallel_size, loaded.pipeline_parallel_size) == ("none", 1, 1)
        assert loaded.dtype == running.info.settings["dtype"]


def test_a_completion_has_as_many_tokens_as_it_says_and_no_more_than_allowed(running: Running) -> None:
    completions = running.do(_all(running, [running.request() for _ in range(24)]))
    for completion in completions:
        # A recording has no ids: its tokens are counted from the text, here in bytes.
        counted = completion.text.encode() if running.is_replay else completion.token_ids
        assert completion.num_tokens == len(counted) > 0
        assert completion.num_tokens <= SAMPLING.max_tokens
        if completion.num_tokens < SAMPLING.max_tokens:
            assert completion.finish_reason is FinishReason.STOP
        assert completion.text
        assert completion.text.encode().decode() == completion.text
        assert 0 < completion.submitted_at_us <= completion.finished_at_us
        assert completion.num_reasoning_tokens is None or completion.num_reasoning_tokens <= completion.num_tokens
    reasons = {completion.finish_reason for completion in completions}
    assert reasons <= {FinishReason.STOP, FinishReason.LENGTH}


def test_a_cut_completion_says_length_and_has_all_its_tokens(running: Running) -> None:
    # The prompt leaves room for three tokens only, and no answer of either teacher is as short.
    room = 3
    request = request_of("cut", "", (), CUT) if running.is_replay else running.long_request(CONTEXT - room)
    completion = running.do(running.engine.generate(request))
    assert completion.num_tokens == room
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
    made = sum(completion.num_tokens for completion in completions)

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
    assert completion.finish_reason is (FinishReason.STOP if running.is_replay else FinishReason.ABORT)
    assert completion.num_tokens < SAMPLING.max_tokens


def test_aborting_what_is_not_there_does_nothing(running: Running) -> None:
    running.do(running.engine.abort("nobody"))
    assert running.do(running.engine.generate(running.request())).text


@pytest.mark.parametrize("running", GENERATING, indirect=True, scope="module")
@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_prompt_without_room_is_refused_alone(running: Running, length: int) -> None:
    async def mixed() -> list[Completion | BaseException]:
        good = [running.request() for _ in range(4)]
        bad = running.long_request(length)
        return await asyncio.gather(*map(running.engine.generate, [*good, bad]), return_exceptions=True)

    *good, bad = running.do(mixed())
    assert all(isinstance(completion, Completion) for completion in good)
    assert isinstance(bad, RequestError)
    assert ("answered 400" if running.info.engine == "openai" else str(length)) in str(bad)


def test_an_empty_prompt_ends_alone_too(running: Running) -> None:
    async def mixed() -> list[Completion | BaseException]:
        empty = request_of("empty", "[]", (), 0)
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


@pytest.mark.parametrize("running", ["replay"], indirect=True, scope="module")
def test_an_attempt_that_was_not_recorded_is_refused_alone(running: Running) -> None:
    known = running.request()
    unknown = [replace(known, sample_index=1000), replace(known, problem_id="of no such problem")]

    async def mixed() -> list[Completion | BaseException]:
        return await asyncio.gather(*map(running.engine.generate, [known, *unknown]), return_exceptions=True)

    good, *bad = running.do(mixed())
    assert isinstance(good, Completion)
    assert all(isinstance(error, NotRecordedError) for error in bad)


@pytest.mark.parametrize("kind", GENERATING)
def test_a_stop_string_ends_a_completion_and_is_named(kind: str, make_teacher: Callable[[str], Teacher]) -> None:
    stop = "a"  # in nearly every text
    sampling = SamplingConfig(max_tokens=96, stop=(stop,))
    with closing(_running(make_teacher(kind), sampling)) as generator:
        running = next(generator)
        completions = running.do(_all(running, [running.request() for _ in range(8)]))
        stopped = [c for c in completions if c.stop_token == stop]
        assert stopped
        assert all(c.finish_reason is FinishReason.STOP for c in stopped)
        assert all(stop not in c.text for c in completions)
        assert next(generator, None) is None, "closed, and nothing is left"


# Going on from what another engine made

STRADDLED = "left to right.\n1"  # many tokens long, and the demo teacher says it when it is greedy


@pytest.fixture(scope="module", params=RESUMING)
def greedy(request: pytest.FixtureRequest, make_teacher: Callable[[str], Teacher]) -> Iterator[Running]:
    """Return an engine whose text for a request is always the same, and ends at a stop string of many tokens."""
    stop = "box" if request.param == "scripted" else STRADDLED
    yield from _running(make_teacher(request.param), SamplingConfig(max_tokens=96, temperature=0, stop=(stop,)))


def _undisturbed(greedy: Running, question: str) -> tuple[Request, Completion]:
    request = greedy.request(question)
    return request, greedy.do(greedy.engine.generate(request))


def test_only_those_can_resume_that_say_so(running: Running) -> None:
    assert running.info.can_resume == (running.info.engine in ("scripted", "vllm"))


@pytest.mark.parametrize("question", [QUESTION, TAUGHT], ids=["one that goes on", "one that meets a stop string"])
def test_a_completion_gone_on_with_from_any_token_is_the_one_that_was_never_broken_off(
    greedy: Running, question: str
) -> None:
    request, whole = _undisturbed(greedy, question)
    assert whole.num_tokens > 8

    async def from_everywhere() -> list[Completion]:
        # The scripted teacher's text hangs on the request's name; vLLM refuses a name that is in flight.
        at_once = greedy.info.engine == "vllm"
        cuts = [
            replace(request, request_id=f"{request.request_id}{f'-{cut}' * at_once}", saved=whole.token_ids[:cut])
            for cut in range(1, whole.num_tokens)
        ]
        return await asyncio.gather(*map(greedy.engine.generate, cuts))

    for cut, completion in enumerate(greedy.do(from_everywhere()), start=1):
        assert (completion.token_ids, completion.text) == (whole.token_ids, whole.text)
        assert completion.num_tokens == whole.num_tokens
        assert (completion.finish_reason, completion.stop_token) == (whole.finish_reason, whole.stop_token)
        assert completion.num_reasoning_tokens == whole.num_reasoning_tokens
        assert completion.resumed_at is None or completion.resumed_at <= cut


@pytest.mark.parametrize("num_saved", [95, 96, 500])
def test_more_saved_than_may_be_made_still_ends_within_the_limit(greedy: Running, num_saved: int) -> None:
    request = replace(greedy.request(), saved=greedy.encode(QUESTION)[:1] * num_saved)
    completion = greedy.do(greedy.engine.generate(request))
    assert completion.num_tokens <= 96


def test_a_watch_takes_every_token_once_and_in_order_until_the_end_is_near(greedy: Running) -> None:
    every = 8
    told: list[tuple[int, tuple[int, ...]]] = []
    texts: list[str] = []

    def take(offset: int, token_ids: Sequence[int], text: str) -> None:
        told.append((offset, tuple(token_ids)))
        texts.append(text)

    watch = Watch(num_tokens=every, take=take)
    request = greedy.request()
    whole = greedy.do(greedy.engine.generate(replace(request, watch=watch)))
    taken = [token_id for _, token_ids in told for token_id in token_ids]
    assert [offset for offset, _ in told] == list(itertools.accumulate((len(ids) for _, ids in told), initial=0))[:-1]
    assert all(len(token_ids) >= every for _, token_ids in told)
    assert tuple(taken) == whole.token_ids[: len(taken)]
    assert whole.num_tokens - len(taken) <= 2 * every
    assert whole.text.startswith("".join(texts))
    assert texts[0]

    told.clear()
    texts.clear()
    again = replace(request, request_id=request.request_id, saved=whole.token_ids[:20], watch=watch)
    assert greedy.do(greedy.engine.generate(again)).token_ids == whole.token_ids
    assert told[0][0] == 20
    assert told[0][1] == whole.token_ids[20 : 20 + len(told[0][1])]
    assert "".join(texts) in whole.text


@pytest.mark.parametrize("first", [1, 20, 40])
def test_an_attempt_that_its_own_limit_cut_goes_on_to_the_text_that_was_never_cut(greedy: Running, first: int) -> None:
    request, whole = _undisturbed(greedy, QUESTION)
    assert whole.num_tokens > 40
    cut = greedy.do(greedy.engine.generate(replace(request, max_tokens=first)))
    assert (cut.finish_reason, cut.token_ids) == (FinishReason.LENGTH, whole.token_ids[:first])
    again = greedy.do(greedy.engine.generate(replace(request, saved=cut.token_ids)))
    assert (again.text, again.token_ids, again.finish_reason) == (whole.text, whole.token_ids, whole.finish_reason)


def test_an_abort_gives_what_was_saved_and_what_came_after(greedy: Running) -> None:
    request, whole = _undisturbed(greedy, QUESTION)
    saved = whole.token_ids[:10]

    async def abort_all() -> list[Completion]:
        again = [replace(request, request_id=f"{request.request_id}-{turn}", saved=saved) for turn in range(40)]
        tasks = [asyncio.create_task(greedy.engine.generate(one)) for one in again]
        await asyncio.sleep(0.02)
        await asyncio.gather(*(greedy.engine.abort(one.request_id) for one in again))
        return await asyncio.gather(*tasks)

    completions = greedy.do(abort_all())
    assert FinishReason.ABORT in {completion.finish_reason for completion in completions}
    assert all(completion.token_ids[:10] == saved for completion in completions)
    assert all(completion.num_tokens == len(completion.token_ids) for completion in completions)


LOOPING = "What is 999999 * 888888?"  # the demo teacher, when it is greedy, writes 9999 without end


@dataclass(slots=True)
class LongDesk(Desk):
    """A desk that lets attempts become long."""

    def _lease(self, number: int) -> Lease:
        return replace(Desk._lease(self, number), max_tokens=900)


@pytest.mark.parametrize("greedy", RESUMING[1:], indirect=True, scope="module")
def test_a_real_model_that_loops_is_ended_and_its_text_is_kept(greedy: Running, tmp_path: Path) -> None:
    desk = LongDesk(tmp_path, num_leases=3, prompt=greedy.encode(LOOPING))
    feeder = Feeder(
        engine=greedy.engine,
        info=greedy.info,
        stamp=STAMP,
        store=StoreConfig(fsync_interval_s=0.05),
        journal=tmp_path,
        slots=Slots.of(greedy.info, 0.1),
        pull=desk.pull,
        rules=Rules(loop_tokens=128, format=TraceFormat.PLAIN, settings=ReadabilitySettings()),
    )
    greedy.do(feeder.run())
    traces = desk.traces()
    assert len(traces) == 3
    for trace in traces:
        assert trace.finish_reason is FinishReason.ABORT
        assert (trace.finish_detail or "").startswith("repetition_loop: ")
        assert 128 <= trace.num_completion_tokens == len(trace.token_ids) < 900
        assert "9999\n9999\n9999" in trace.text[-40:]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.drill
def test_a_thinking_is_closed_at_its_budget() -> None:
    budget = 12
    sampling = SamplingConfig(max_tokens=96, temperature=0, thinking_budget=budget)
    with closing(_running(_vllm(), sampling)) as generator:
        running = next(generator)
        completions = running.do(_all(running, [running.request(question) for question in (TAUGHT, QUESTION)]))
        for completion in completions:
            assert completion.num_reasoning_tokens is not None
            assert completion.num_reasoning_tokens <= budget + 2  # and its tags
            assert completion.num_tokens > completion.num_reasoning_tokens
        (whole,) = completions[:1]
        again = running.do(running.engine.generate(replace(running.request(TAUGHT), saved=whole.token_ids[:8])))
        assert again.text == whole.text, "what another engine thought counts"
        assert next(generator, None) is None


@pytest.mark.parametrize("greedy", RESUMING[1:], indirect=True, scope="module")
def test_what_was_saved_may_end_inside_a_character(greedy: Running) -> None:
    said = "\u4e2d\u6587 and \U0001f600 \u00e8"  # the demo teacher has tokens for their bytes only
    from transformers import AutoTokenizer

    saved = tuple(AutoTokenizer.from_pretrained(SHIPPED_MODELS["demo"]).encode(said, add_special_tokens=False))
    assert len(saved) > len(said)
    requests = [replace(greedy.request(), saved=saved[:cut]) for cut in range(1, len(saved) + 1)]
    dropped = 0
    for request, completion in zip(requests, greedy.do(_all(greedy, requests)), strict=True):
        kept = completion.resumed_at or 0
        assert len(request.saved) - kept <= 3  # bytes of a character, but its last
        assert completion.token_ids[:kept] == saved[:kept]
        assert "\ufffd" not in completion.text[:kept]
        assert kept == 0 or completion.text[0] == said[0]
        dropped += kept < len(request.saved)
    assert dropped
    assert completion.text.startswith(said)


@pytest.mark.vllm
@pytest.mark.slow
def test_reasoning_that_a_real_server_splits_off_is_kept_with_its_tags(base_url: str) -> None:
    with closing(_running(_openai(base_url), SAMPLING)) as generator:
        running = next(generator)
        completions = running.do(_all(running, [running.request(TAUGHT) for _ in range(16)]))
        split = [completion.text for completion in completions if "</think>" in completion.text]
        assert split
        assert all(text.startswith("<think>\n") and text.count("</think>") == 1 for text in split)
        assert next(generator, None) is None


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_server_refuses_an_unknown_model_and_a_wrong_key(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(teacher: Teacher) -> None:
        engine = make_engine(teacher, SAMPLING, engine_id="e", incarnation=1)
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(TeacherError, match=r"teacher.model='dem'.*did you mean 'demo'\? it has demo"):
        asyncio.run(start(_openai(base_url).model_copy(update={"model": "dem"})))
    monkeypatch.setenv(KEY_VARIABLE, "another-key")
    with pytest.raises(TeacherError, match=f"answered 401.*refuses the key in {KEY_VARIABLE}"):
        asyncio.run(start(_openai(base_url)))


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
def test_an_engine_core_ends_when_its_actor_is_killed_though_it_is_frozen(tmp_path: Path) -> None:
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
        for pid in cores:
            os.kill(pid, signal.SIGSTOP)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_until(lambda: not any(map(is_alive, cores)), 30, f"processes {cores} outlive their actor")
    finally:
        child.kill()
        child.wait()
        for pid in filter(is_alive, cores):
            os.kill(pid, signal.SIGKILL)

"""The openai teacher against endpoints that misbehave, each a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.teachers import Completion, Request, Watch
from factory.teachers.openai import BURST_S, OpenaiEngine, Pace
from schemas.config import OpenaiTeacher, SamplingConfig
from schemas.errors import EngineDeadError, RequestError, TeacherError
from schemas.trace import FinishReason
from tests.servers import KEY_VARIABLE, Exchange, free_port, odd_server

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture(scope="module")
def short_pauses() -> Iterator[None]:
    """Let a failed request be tried again after a twentieth of a second: the servers here get well at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("factory.teachers.openai.FIRST_PAUSE_S", 0.05)
        yield


Behaviour = Callable[[Exchange], None]
SAMPLING = SamplingConfig(max_tokens=64)


def engine_of(base_url: str, sampling: SamplingConfig = SAMPLING, **options: Any) -> OpenaiEngine:
    body = {"model": "odd", "patience_s": 3, "idle_timeout_s": 1, "start_timeout_s": 2, **options}
    return OpenaiEngine(OpenaiTeacher(kind="openai", base_url=base_url, **body), sampling)


def request(number: int = 0) -> Request:
    text = json.dumps([{"role": "user", "content": "What is 40 + 2?"}])
    return Request(
        request_id=f"r{number}", problem_id="p", sample_index=number, prompt_text=text, prompt_token_ids=(), seed=None
    )


def using(engine: OpenaiEngine, work: Callable[[], Awaitable[T]]) -> T:
    """Start an engine, do the work, close it."""

    async def live() -> T:
        try:
            await engine.start()
            return await work()
        finally:
            await engine.close()

    return asyncio.run(live())


def ask(behave: Behaviour, *, count: int = 1, **options: Any) -> list[Completion | BaseException]:
    """Return what comes of so many requests to a server that behaves so."""
    with odd_server(behave) as (base_url, _):
        engine = engine_of(base_url, **options)

        async def all_of_them() -> list[Completion | BaseException]:
            return await asyncio.gather(*(engine.generate(request(n)) for n in range(count)), return_exceptions=True)

        return using(engine, all_of_them)


def ask_one(behave: Behaviour, **options: Any) -> Completion:
    (found,) = ask(behave, **options)
    if isinstance(found, BaseException):
        raise found
    return found


def failing(times: int, fail: Behaviour) -> Behaviour:
    """Return a behaviour that fails so many times, then answers well."""
    return lambda exchange: fail(exchange) if exchange.number <= times else exchange.answer()


# What the endpoint is at the start.


def start_error(base_url: str, **options: Any) -> str:
    with pytest.raises(TeacherError) as error:
        using(engine_of(base_url, **options), lambda: asyncio.sleep(0))
    return str(error.value)


def test_an_endpoint_that_is_down_is_named_with_what_to_look_at() -> None:
    base_url = f"http://127.0.0.1:{free_port()}/v1"
    message = start_error(base_url)
    assert base_url in message
    assert "nothing answers" in message
    assert "is the server up" in message


def test_a_model_that_it_does_not_have_is_named_with_the_nearest_and_all_others() -> None:
    with odd_server(Exchange.answer, models=("deepseek-r1", "qwen3-32b")) as (base_url, _):
        message = start_error(base_url, model="deepseek-r2")
    assert "teacher.model='deepseek-r2'" in message
    assert "did you mean 'deepseek-r1'?" in message
    assert "qwen3-32b" in message


@pytest.mark.parametrize("rubbish", ["<html>It works!</html>", "[]", '{"data": 3}', '{"data": [{}]}', "[" * 100_000])
def test_a_server_that_is_no_such_endpoint_is_told_apart_from_one_that_is_down(rubbish: str) -> None:
    with odd_server(Exchange.answer, models=rubbish) as (base_url, _):
        message = start_error(base_url)
    assert "not with a list of models" in message
    assert "/v1" in message
    assert len(message) < 1000


def test_an_endpoint_that_lists_no_models_is_used_all_the_same() -> None:
    with odd_server(Exchange.answer, models="no such page", status=404) as (base_url, _):
        engine = engine_of(base_url)
        assert "42" in using(engine, lambda: engine.generate(request())).text


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel"])
def test_a_key_that_is_not_there_or_is_none_is_named_by_its_variable_only(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)
    message = start_error("http://127.0.0.1:1/v1", api_key_env=KEY_VARIABLE)
    assert KEY_VARIABLE in message
    assert not value or value not in message


def test_a_wrong_key_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-wrong-key")
    with odd_server(Exchange.answer, models='{"error":"Unauthorized"}', status=401) as (base_url, _):
        message = start_error(base_url, api_key_env=KEY_VARIABLE)
    assert f"refuses the key in {KEY_VARIABLE}" in message
    assert "a-wrong-key" not in message


# Trouble while it is used.


@pytest.mark.parametrize(
    "fail",
    [
        lambda x: x.status(500, "oops"),
        lambda x: x.status(503, "overloaded"),
        lambda x: x.status(429, "slow down", Retry_After="0.2"),
        lambda x: x.status(200, "<html>rubbish</html>"),
        lambda x: x.status(200, "[1, 2]"),
        lambda x: (x.begin(), x.raw(b"data: {not json\n\n")),
        lambda x: (x.begin(), x.event(delta={"content": "half an ans"}, finish_reason=None)),  # and no end
        lambda x: (x.begin(), x.raw(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')),
        lambda x: (x.begin(), x.event(delta={}, finish_reason="abort")),
        lambda x: time.sleep(1.5),  # longer than idle_timeout_s
        lambda x: None,  # hangs up without a word
    ],
    ids=["500", "503", "429", "html", "list", "no json", "breaks off", "error event", "abort", "slow", "hangs up"],
)
def test_trouble_that_passes_costs_time_and_no_attempt(fail: Behaviour) -> None:
    completion = ask_one(failing(2, fail), patience_s=30)
    assert completion.text == "It is \\boxed{42}."
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.num_tokens, completion.num_prompt_tokens) == (3, 5)


def test_a_lasting_outage_kills_the_engine_and_blames_no_attempt() -> None:
    began = time.monotonic()
    found = ask(lambda x: x.status(503, "down for the day"), count=4, patience_s=2)
    assert 2 < time.monotonic() - began < 20
    assert all(isinstance(error, EngineDeadError) for error in found)
    assert "patience_s=2" in str(found[0])
    assert "down for the day" in str(found[0])


def asking(number: int) -> Request:
    """Return a request with a question of its own."""
    return replace(request(number), prompt_text=json.dumps([{"role": "user", "content": f"What is {number} + 2?"}]))


def ask_each(behave: Behaviour, count: int, **options: Any) -> list[Completion | BaseException]:
    """Return what comes of requests with questions of their own, all at once."""
    with odd_server(behave) as (base_url, _):
        engine = engine_of(base_url, **options)

        async def all_of_them() -> list[Completion | BaseException]:
            return await asyncio.gather(*(engine.generate(asking(n)) for n in range(count)), return_exceptions=True)

        return using(engine, all_of_them)


def test_answers_that_all_break_off_are_an_outage_and_blame_no_attempt() -> None:
    def behave(exchange: Exchange) -> None:
        if exchange.number <= 5:
            exchange.answer()
        else:  # some tokens, then nothing
            exchange.begin()
            exchange.event(delta={"content": "It"}, finish_reason=None)

    with odd_server(behave) as (base_url, _):
        engine = engine_of(base_url, patience_s=2, max_in_flight=4, max_tries=2)

        async def first_the_good_ones() -> list[Completion | BaseException]:
            found: list[Completion | BaseException] = []
            for some in (range(5), range(5, 12)):  # else one that breaks off may be heard before the last good one
                asked = (engine.generate(asking(n)) for n in some)
                found += await asyncio.gather(*asked, return_exceptions=True)
            return found

        found = using(engine, first_the_good_ones)
    assert sum(isinstance(item, Completion) for item in found) == 5
    assert sum(isinstance(item, EngineDeadError) for item in found) == 7


def test_a_long_answer_that_still_streams_keeps_the_engine_alive_while_others_fail() -> None:
    def behave(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.status(503, "full")
            return
        exchange.begin()
        for _ in range(20):
            exchange.event(delta={"content": "so "}, finish_reason=None)
            time.sleep(0.2)
        exchange.event(delta={}, finish_reason="stop")
        exchange.end(20)

    found = ask_each(behave, 3, patience_s=1.5, idle_timeout_s=5)
    assert sum(isinstance(item, Completion) for item in found) == 1  # though nothing was answered for 4 s


def test_an_endpoint_that_refuses_everything_is_set_up_wrongly_and_no_attempt_fails() -> None:
    found = ask_each(lambda exchange: exchange.status(400, "unknown key: max_tokens"), 6)
    assert all(isinstance(item, EngineDeadError) for item in found)
    assert "refuses every request, 6 prompts" in str(found[0])
    assert "unknown key: max_tokens" in str(found[0])


def test_bad_requests_fail_alone_once_another_is_answered_even_if_they_came_first() -> None:
    def behave(exchange: Exchange) -> None:
        if exchange.number <= 5:
            exchange.status(400, "too long")
        else:
            time.sleep(3)  # longer than it takes to think that all are refused
            exchange.answer()

    found = ask_each(behave, 6, idle_timeout_s=10)
    assert sum(isinstance(item, RequestError) for item in found) == 5
    assert sum(isinstance(item, Completion) for item in found) == 1


@pytest.mark.parametrize("asked", ["nan", "inf", "0", "-5", "soon", ""])
def test_a_pause_that_is_none_does_not_make_requests_hail(asked: str) -> None:
    began, times = time.monotonic(), []

    def behave(exchange: Exchange) -> None:
        times.append(exchange.at - began)
        exchange.status(429, "slow down", Retry_After=asked)

    ask(behave, patience_s=1)
    assert len(times) < 40  # at least half of the 0.05 s of these tests between two


def test_a_request_on_which_alone_the_endpoint_fails_is_refused_alone() -> None:
    def behave(exchange: Exchange) -> None:
        if exchange.body["seed"] == 3:
            exchange.status(500, "this one again")
        else:
            exchange.answer()

    with odd_server(behave) as (base_url, _):
        engine = engine_of(base_url, max_tries=2, patience_s=60)

        async def work() -> Completion | BaseException:
            bad = asyncio.create_task(engine.generate(replace(request(3), seed=3)))
            while not bad.done():
                await engine.generate(replace(request(1), seed=1))
                await asyncio.sleep(0.05)
            return (await asyncio.gather(bad, return_exceptions=True))[0]

        error = using(engine, work)
    assert isinstance(error, RequestError)
    assert "this one again" in str(error)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 302])
def test_an_answer_that_no_request_will_change_kills_the_engine_at_once(status: int) -> None:
    with pytest.raises(EngineDeadError, match=f"answered {status}: go away"):
        ask_one(lambda x: x.status(status, "go away"))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_refused_alone_with_what_the_endpoint_said(status: int) -> None:
    with pytest.raises(RequestError, match=f"answered {status}: the prompt is too long"):
        ask_one(lambda x: x.status(status, "the prompt is too long"))


def test_a_content_filter_is_a_refusal_and_no_completion() -> None:
    with pytest.raises(RequestError, match="content_filter"):
        ask_one(lambda x: x.answer(finish_reason="content_filter"))


def test_a_pause_that_the_endpoint_asks_for_holds_for_all_requests() -> None:
    times: list[float] = []

    def behave(exchange: Exchange) -> None:
        times.append(exchange.at)
        if exchange.number == 1:
            exchange.status(429, "wait", Retry_After="1.5")
        else:
            exchange.answer()

    found = ask(behave, count=6, max_in_flight=1, patience_s=30)
    assert all(isinstance(completion, Completion) for completion in found)
    assert times[1] - times[0] >= 1.4


# What it says.


def test_reasoning_that_the_server_splits_off_is_put_back_with_its_tags() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in ("40 + 2", " = 42"):
            exchange.event(delta={"reasoning_content": part}, finish_reason=None)
        exchange.event(delta={"content": "\n\nIt is \\boxed{42}."}, finish_reason="stop")
        exchange.end(9)

    assert ask_one(behave).text == "<think>\n40 + 2 = 42\n</think>\n\nIt is \\boxed{42}."


def test_a_watch_sees_the_text_as_it_will_be_and_from_its_beginning_where_an_answer_broke_off() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for part in ("one ", "two ", "three ", "four ", "five "):
            exchange.event(delta={"reasoning_content": part}, finish_reason=None)
        if exchange.number == 1:
            return
        for part in ("It ", "is ", "\\boxed{5}."):
            exchange.event(delta={"content": part}, finish_reason=None)
        exchange.event(delta={"content": ""}, finish_reason="stop")
        exchange.end(8)

    told: list[tuple[int, str]] = []
    watch = Watch(num_tokens=2, take=lambda offset, token_ids, text: told.append((offset, text)))
    with odd_server(behave) as (base_url, exchanges):
        engine = engine_of(base_url)
        completion = using(engine, lambda: engine.generate(replace(request(), watch=watch)))
    assert len(exchanges) == 2
    assert [offset for offset, _ in told] == [0, 2, 0, 2, 4, 6]
    assert told[0] == told[2] == (0, "<think>\none two ")
    assert "".join(text for _, text in told[2:]) == completion.text


def test_a_hopeless_answer_is_ended_and_a_request_may_have_its_own_limit() -> None:
    """As the feeder does: an abort out of the watch."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(2_000):
            exchange.event(delta={"content": "again "}, finish_reason=None)
        exchange.event(delta={"content": ""}, finish_reason="length")
        exchange.end(2_000)

    aborts: list[asyncio.Task[None]] = []
    with odd_server(behave) as (base_url, exchanges):
        engine = engine_of(base_url)
        end = lambda *_: aborts.append(asyncio.create_task(engine.abort("r0")))  # noqa: E731
        asked = replace(request(), watch=Watch(num_tokens=50, take=end), max_tokens=33)
        completion = using(engine, lambda: engine.generate(asked))
    assert exchanges[0].body["max_tokens"] == 33
    assert completion.finish_reason is FinishReason.ABORT
    assert completion.text.startswith("again again")


def test_reasoning_that_was_cut_off_has_no_closing_tag() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(delta={"reasoning": "40 + 2 is"}, finish_reason="length")
        exchange.end(4)

    completion = ask_one(behave)
    assert completion.text == "<think>\n40 + 2 is"
    assert completion.finish_reason is FinishReason.LENGTH


def test_an_answer_in_one_piece_is_taken_too() -> None:
    body = {
        "choices": [{"message": {"content": "42", "reasoning_content": None}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 1, "prompt_tokens": 8},
    }
    completion = ask_one(lambda x: x.status(200, json.dumps(body), Content_Type="application/json"))
    assert (completion.text, completion.num_tokens, completion.num_prompt_tokens) == ("42", 1, 8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["choices", "delta", "usage", "x"]), inner),
    )
)
def test_no_event_however_odd_raises_anything_but_trouble_or_a_refusal(value: object) -> None:
    from factory.teachers.openai import Attempt, Trouble

    attempt = Attempt(submitted_at_us=1)
    engine = engine_of("http://127.0.0.1:1/v1")
    for event in (
        value,
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"delta": value}], "usage": value},
        {"choices": [{"delta": {"content": value, "reasoning": value}, "finish_reason": value, "token_ids": value}]},
        {"usage": {"completion_tokens": value}},
    ):
        if isinstance(event, dict):
            try:
                engine._take_in(event, attempt)
            except (Trouble, RequestError):
                continue
    assert isinstance(attempt.text, str)
    assert attempt.tokens_so_far >= 0


def test_a_lone_surrogate_becomes_text_that_arrow_takes() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.raw(b'data: {"choices": [{"delta": {"content": "x\\ud800y"}, "finish_reason": "stop"}]}\n\n')
        exchange.end(1)

    assert ask_one(behave).text == "x?y"


def test_what_is_sent_is_the_sampling_of_the_job_and_nothing_that_hosted_models_refuse() -> None:
    with odd_server(Exchange.answer) as (base_url, exchanges):
        plain = engine_of(base_url)
        using(plain, lambda: plain.generate(request()))
        sampling = SamplingConfig(max_tokens=7, temperature=0.6, top_p=0.95, top_k=20, stop=("END",), thinking_budget=5)
        full = engine_of(base_url, sampling, max_tokens_key="max_completion_tokens", extra_body={"think": True})
        using(full, lambda: full.generate(request()))
        raw = engine_of(base_url, api="completions")
        using(raw, lambda: raw.generate(request()))
    first, second, third = (exchange.body for exchange in exchanges)
    assert set(first) == {"model", "messages", "temperature", "top_p", "max_tokens", "stream", "stream_options"}
    assert first["messages"] == [{"role": "user", "content": "What is 40 + 2?"}]
    assert (second["max_completion_tokens"], second["top_k"], second["stop"]) == (7, 20, ["END"])
    assert second["think"] is True
    assert second["thinking_token_budget"] == 5
    assert third["prompt"] == request().prompt_text


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    here = [0, 0]

    def behave(exchange: Exchange) -> None:
        here[0] += 1
        here[1] = max(here)
        time.sleep(0.05)
        here[0] -= 1
        exchange.answer()

    assert all(isinstance(found, Completion) for found in ask(behave, count=20, max_in_flight=3))
    assert here[1] == 3


# Limits per minute.


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(6, 6000))
def test_a_pace_never_lets_more_through_than_its_limit_and_a_burst(gaps: list[float], per_min: float) -> None:
    pace, now, taken = Pace(per_min), 0.0, 0
    for gap in gaps:
        now += gap
        if pace.wait_s(now) == 0:
            pace.take(1, now)
            taken += 1
    assert taken <= (now + BURST_S) * per_min / 60 + 1


@given(st.floats(6, 6000))
def test_a_pace_lets_through_what_its_limit_allows(per_min: float) -> None:
    pace, now = Pace(per_min), 0.0
    for _ in range(50):
        now += pace.wait_s(now)
        pace.take(1, now)
    assert now <= 50 * 60 / per_min


def test_requests_per_minute_are_kept() -> None:
    times: list[float] = []

    def behave(exchange: Exchange) -> None:
        times.append(exchange.at)
        exchange.answer()

    start = time.monotonic()
    found = ask(behave, count=8, requests_per_min=300)  # one every 0.2 s, after a burst of one second
    assert all(isinstance(completion, Completion) for completion in found)
    for number, at in enumerate(sorted(times)):  # one that comes late lets the next come early: a burst is allowed
        assert at - start >= 0.9 * (number * 0.2 - BURST_S)


def test_tokens_per_minute_are_kept_by_what_requests_really_use() -> None:
    times: list[float] = []

    def behave(exchange: Exchange) -> None:
        times.append(exchange.at)
        exchange.begin()
        exchange.event(delta={"content": "42"}, finish_reason="stop")
        exchange.end(95, num_prompt_tokens=5)

    # A hundred tokens each, ten thousand a minute: 0.6 s a request.
    start = time.monotonic()
    found = ask(behave, count=5, tokens_per_min=10_000, max_in_flight=1)
    assert all(isinstance(completion, Completion) for completion in found)
    assert times[-1] - start >= 0.9 * (4 * 0.6 - BURST_S)

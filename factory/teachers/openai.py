"""The openai teacher: any endpoint that speaks OpenAI's HTTP interface, such as a vLLM server or a hosted model.

Answers are streamed, so that life is seen token by token and an aborted request returns what there is. An endpoint in
trouble (down, slow, 429, 5xx, rubbish) is asked again with growing pauses; one that fails for ``patience_s`` without
any success is given up as dead, so that its attempts stay open for the next start. What it says is data: every field
is checked, every size bounded, and its key is never logged.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import math
import os
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from factory.teachers import Completion, EngineInfo, Request, Watch
from schemas.config import OpenaiTeacher, SamplingConfig
from schemas.errors import EngineDeadError, RequestError, TeacherError
from schemas.trace import THINK_CLOSE, THINK_OPEN, FinishReason

MAX_ANSWER_BYTES: Final = 64 << 20  # of one answer with its JSON; far above a context of a million tokens
MAX_EVENT_BYTES: Final = 8 << 20  # of one event; a few tokens each, but the last may hold all of a text
MAX_SAID_BYTES: Final = 1 << 20  # of an error or of a list of models
MAX_SHOWN_CHARS: Final = 300  # of what an endpoint said, in a message
CONNECT_TIMEOUT_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.5  # before a request is tried again; doubles each time ...
LONGEST_PAUSE_S: Final = 60.0  # ... up to this, unless the endpoint asks for more
BURST_S: Final = 1.0  # of a rate limit that may be spent at once: limits are per minute, endpoints count in less
MIN_REFUSED: Final = 4  # prompts that an endpoint refuses, all it was given, until it is taken to refuse any
SETTLE_S: Final = 2.0  # in which more requests would have come
MAX_MODELS_SHOWN: Final = 20
AUTH_STATUS: Final = (401, 402, 403)
TRANSIENT_STATUS: Final = (408, 409, 425, 429)  # and all from 500 on
_FINISH_REASONS: Final = {str(reason): reason for reason in FinishReason if reason is not FinishReason.ABORT}

log = logging.getLogger(__name__)


class Trouble(Exception):
    """The endpoint could not answer now; never leaves this module."""

    def __init__(self, detail: str, *, pause_s: float | None = None, is_limit: bool = False) -> None:
        super().__init__(detail)
        self.pause_s = pause_s  # that the endpoint asks for
        self.is_limit = is_limit  # it was asked too often


class Pace:
    """A rate limit as a pure decision: amounts and times in, waiting times out. None: no limit."""

    def __init__(self, per_min: float | None) -> None:
        self._per_s = None if per_min is None else per_min / 60
        self._paid_until = float("-inf")  # what was taken is worth the time up to here

    def wait_s(self, now: float) -> float:
        """Return how long to wait before something may be taken."""
        return max(0.0, self._paid_until - now)

    def take(self, amount: float, now: float) -> None:
        """Take note that ``amount`` is used."""
        if self._per_s is not None:
            self._paid_until = max(self._paid_until, now - BURST_S) + amount / self._per_s

    def give_back(self, amount: float) -> None:
        """Correct an estimate that was too high (or, negative, too low)."""
        if self._per_s is not None:
            self._paid_until -= amount / self._per_s


@dataclass(slots=True)
class Attempt:
    """One request: what has come of its answer so far."""

    submitted_at_us: int
    work: asyncio.Task[None] | None = None
    is_aborted: bool = False
    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    num_chunks: int = 0
    num_tokens: int | None = None  # by the endpoint's own count
    num_prompt_tokens: int | None = None
    finish_reason: FinishReason | None = None
    stop_token: str | None = None
    first_token_at_us: int | None = None
    began_at: float | None = None  # monotonic time of the first token
    num_told: int = 0  # tokens that the request's watch has taken
    num_chars_told: int = 0

    def begin_again(self) -> None:
        """Forget an answer that broke off."""
        self.began_at, self.num_told, self.num_chars_told = None, 0, 0
        self.reasoning, self.content, self.token_ids, self.num_chunks = [], [], [], 0
        self.num_tokens = self.num_prompt_tokens = self.finish_reason = self.stop_token = self.first_token_at_us = None

    @property
    def tokens_so_far(self) -> int:
        """Tokens received: as the endpoint counts them, else one for each chunk."""
        return self.num_tokens if self.num_tokens is not None else len(self.token_ids) or self.num_chunks

    @property
    def text(self) -> str:
        """The completion. Where the endpoint splits the reasoning off, the tags that it took away are put back."""
        content = "".join(self.content)
        if not self.reasoning:
            return content
        reasoning = "".join(self.reasoning).strip("\n")
        if not content:  # cut off inside the reasoning: there was no closing tag
            return f"{THINK_OPEN}\n{reasoning}"
        return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n{content.lstrip(chr(10))}"

    def tell(self, watch: Watch) -> None:
        """Let the watch take what is new, if it is enough."""
        num_tokens = self.tokens_so_far
        if num_tokens - self.num_told >= watch.num_tokens:
            text = self.text
            watch.take(self.num_told, self.token_ids[self.num_told :], text[self.num_chars_told :])
            self.num_told, self.num_chars_told = num_tokens, len(text)


class OpenaiEngine:
    """A client of one endpoint; all calls come from the event loop in which ``start`` ran."""

    def __init__(self, config: OpenaiTeacher, sampling: SamplingConfig) -> None:
        self._config = config
        self._sampling = sampling
        self._base_url = config.base_url.rstrip("/")
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._turn = asyncio.Lock()  # requests wait for their turn one behind the other
        self._requests = Pace(config.requests_per_min)
        self._tokens = Pace(config.tokens_per_min)
        self._paused_until = float("-inf")
        self._expected_tokens: float | None = None  # of a request, prompt included: a running mean
        self._failing_since: float | None = None  # first failure after the last whole answer
        self._answered_at: float | None = None  # when the last whole answer ended
        self._longest_broken_s = 0.0  # of the answers that broke off since then: how long they had gone well
        self._refused: set[str] = set()  # prompts, while nothing was ever answered
        self._num_held = 0  # requests that were refused, and wait to see whether others are answered
        self._max_model_len = config.max_model_len
        self._attempts: dict[str, Attempt] = {}
        self._num_tokens_out = 0

    async def start(self) -> EngineInfo:
        """Ask the endpoint which models it has.

        Raises:
            TeacherError: If nothing answers there, the key is refused, or it has no such model.
        """
        limits = httpx.Limits(max_connections=self._config.max_in_flight + 1)
        timeout = httpx.Timeout(self._config.idle_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
        self._client = httpx.AsyncClient(headers=self._headers(), limits=limits, timeout=timeout)
        model = await self._find_model()
        served_len = model.get("max_model_len")
        if self._max_model_len is None and isinstance(served_len, int):
            self._max_model_len = served_len
        version = await self._server_version() if model.get("owned_by") == "vllm" else None
        return EngineInfo(
            engine="openai",
            engine_version=version or "unknown",
            max_model_len=self._max_model_len,
            max_num_seqs=self._config.max_in_flight,
            max_num_batched_tokens=None,
            settings=self._config.model_dump(),
        )

    async def generate(self, request: Request) -> Completion:
        """Return one completion; see the protocol for errors."""
        attempt = Attempt(submitted_at_us=time.time_ns() // 1000)
        self._attempts[request.request_id] = attempt
        attempt.work = asyncio.create_task(self._serve(request, attempt))
        try:
            await attempt.work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not attempt.is_aborted or (current is not None and current.cancelling()):
                raise
            attempt.finish_reason, attempt.stop_token = FinishReason.ABORT, None
        finally:
            self._attempts.pop(request.request_id, None)
            self._num_tokens_out += attempt.tokens_so_far
        return _completion(attempt)

    async def abort(self, request_id: str) -> None:
        """End a request early; closing the connection tells the endpoint."""
        attempt = self._attempts.get(request_id)
        if attempt is not None and attempt.work is not None and not attempt.work.done():
            attempt.is_aborted = True
            attempt.work.cancel()

    @property
    def num_tokens_out(self) -> int:
        """Tokens received so far, finished or not."""
        return self._num_tokens_out + sum(attempt.tokens_so_far for attempt in self._attempts.values())

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # Starting.

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        key = os.environ.get(name, "")
        if not key or not key.isascii() or not key.isprintable():
            problem = "is not set, or empty" if not key else "holds characters that no key has"
            raise TeacherError(
                f"teacher.api_key_env={name!r}: this environment variable {problem}; "
                "export it where the command runs (on a cluster: where its engines run)"
            )
        return {"Authorization": f"Bearer {key}"}

    async def _find_model(self) -> Mapping[str, Any]:
        """Return what the endpoint says of the model; empty where it does not list its models."""
        assert self._client is not None
        url = f"{self._base_url}/models"
        what = f"teacher.base_url={self._config.base_url!r}"
        try:
            status, said = await self._get(url)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise TeacherError(
                f"{what}: nothing answers at {url}: {_shown(error)}; is the server up, and the address right?"
            ) from error
        if status in (404, 405, 501):
            log.warning("%s does not list its models (%d); going on", url, status)
            return {}
        if status != 200:
            raise TeacherError(self._status_text(status, said, url))
        try:
            models = {entry["id"]: entry for entry in json.loads(said)["data"]}
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise TeacherError(
                f"{what}: {url} answers, but not with a list of models: {_shown(said)!r}; "
                "base_url must be that of an OpenAI-compatible interface, mostly ending in /v1"
            ) from error
        if self._config.model not in models:
            raise TeacherError(_no_such_model(self._config, [str(name) for name in models]))
        return dict(models[self._config.model])

    async def _server_version(self) -> str | None:
        """Return the version of a vLLM server, for the traces; None where it does not say."""
        try:
            _, said = await self._get(f"{self._base_url.removesuffix('/v1')}/version")
            return f"vllm-{json.loads(said)['version']}"[:64]
        except (httpx.RequestError, ValueError, LookupError, TypeError, RecursionError):
            return None

    async def _get(self, url: str) -> tuple[int, str]:
        """Return status and text of a page."""
        assert self._client is not None
        async with self._client.stream("GET", url, timeout=self._config.start_timeout_s) as response:
            said = b"".join([chunk async for chunk in _bounded(response, MAX_SAID_BYTES)])
            return response.status_code, said.decode("utf-8", "replace")

    # One request.

    async def _serve(self, request: Request, attempt: Attempt) -> None:
        """Ask until there is an answer.

        Raises:
            RequestError: If the endpoint refuses the request, or fails on it alone again and again.
            EngineDeadError: If the endpoint refuses all requests, or fails for ``patience_s`` on end.
        """
        try:
            await self._ask_until_answered(request, attempt)
        except RequestError as refusal:
            await self._check_that_others_are_answered(request, refusal)
            raise

    async def _check_that_others_are_answered(self, request: Request, refusal: RequestError) -> None:
        """Wait until a refusal is known to be this request's own: another was answered, or few were asked.

        Raises:
            EngineDeadError: If nothing was ever answered: the setting is wrong, not the prompts; none of them fails.
        """
        self._num_held += 1
        self._refused.add(request.prompt_text)
        try:
            since = time.monotonic()
            while self._answered_at is None and time.monotonic() - since < SETTLE_S:
                await asyncio.sleep(SETTLE_S / 20)
                if self._num_held < len(self._attempts):  # others may still be answered
                    since = time.monotonic()
            if self._answered_at is None and len(self._refused) >= MIN_REFUSED:
                raise EngineDeadError(
                    f"{self._base_url} refuses every request, {len(self._refused)} prompts: {refusal}"
                )
        finally:
            self._num_held -= 1

    async def _ask_until_answered(self, request: Request, attempt: Attempt) -> None:
        async with self._slots:
            failures, first_failure = 0, float("inf")
            while True:
                expected = await self._wait_for_turn(request)
                try:
                    await self._ask(request, attempt)
                except Trouble as trouble:
                    now = time.monotonic()
                    failures += not trouble.is_limit
                    first_failure = min(first_failure, now)
                    self._lose(attempt, expected, now)
                    self._check_patience(trouble, failures, first_failure, now)
                    await self._pause(trouble, failures)
                else:
                    self._settle(attempt, expected)
                    return

    async def _wait_for_turn(self, request: Request) -> float:
        """Wait until the limits allow a request; return how many tokens were set aside for it."""
        async with self._turn:
            while (wait_s := self._wait_s()) > 0:
                await asyncio.sleep(wait_s)
            expected = self._expected_tokens
            if expected is None:  # nothing known yet: four characters a token (guess), and all it may write
                expected = len(request.prompt_text) / 4 + (request.sampling or self._sampling).max_tokens
            now = time.monotonic()
            self._requests.take(1, now)
            self._tokens.take(expected, now)
            return expected

    def _wait_s(self) -> float:
        now = time.monotonic()
        return max(self._requests.wait_s(now), self._tokens.wait_s(now), self._paused_until - now)

    def _settle(self, attempt: Attempt, expected: float) -> None:
        """Count what a request really used, and that the endpoint answers."""
        self._answered_at, self._failing_since, self._longest_broken_s = time.monotonic(), None, 0.0
        used = attempt.tokens_so_far + (attempt.num_prompt_tokens or 0)
        self._tokens.give_back(expected - used)
        mean = self._expected_tokens
        self._expected_tokens = used if mean is None else 0.9 * mean + 0.1 * used  # about the last ten; guess

    def _lose(self, attempt: Attempt, expected: float, now: float) -> None:
        """Count the tokens of an answer that broke off, and forget it."""
        if attempt.began_at is not None:
            self._longest_broken_s = max(self._longest_broken_s, now - attempt.began_at)
        self._tokens.give_back(expected - attempt.tokens_so_far)
        self._num_tokens_out += attempt.tokens_so_far
        attempt.begin_again()

    def _check_patience(self, trouble: Trouble, failures: int, first_failure: float, now: float) -> None:
        """Decide whether to go on after a failure; returns if so.

        Only a whole answer is a success. An answer that has streamed for longer than any that broke off may become one.
        """
        if self._failing_since is None:
            self._failing_since = now
        others_succeeded = self._answered_at is not None and self._answered_at > first_failure
        if failures >= self._config.max_tries and others_succeeded:
            raise RequestError(f"the endpoint failed on this request {failures} times: {trouble}")
        failing_s = now - self._failing_since
        streams_s = (now - found.began_at for found in self._attempts.values() if found.began_at is not None)
        if failing_s > self._config.patience_s and max(streams_s, default=0.0) <= self._longest_broken_s:
            raise EngineDeadError(
                f"{self._base_url} has not answered one request in {failing_s:.0f} s (limit teacher.patience_s="
                f"{self._config.patience_s:g}); the last time: {trouble}"
            )

    async def _pause(self, trouble: Trouble, failures: int) -> None:
        """Wait before the request is tried again; what the endpoint asks for holds for all requests."""
        own_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 16)) * random.uniform(0.5, 1.5)
        asked_s = 0.0 if trouble.pause_s is None else min(trouble.pause_s, self._config.patience_s)
        pause_s = max(own_s if asked_s == 0.0 else FIRST_PAUSE_S, asked_s)
        if trouble.is_limit:
            self._paused_until = max(self._paused_until, time.monotonic() + pause_s)
        log.warning("%s; asking again in %.1f s", trouble, pause_s)
        await asyncio.sleep(pause_s)

    async def _ask(self, request: Request, attempt: Attempt) -> None:
        """Send the request and take in its answer."""
        assert self._client is not None
        path = "completions" if self._config.api == "completions" else "chat/completions"
        url = f"{self._base_url}/{path}"
        try:
            async with self._client.stream("POST", url, json=self._body(request)) as response:
                if response.status_code != 200:
                    said = b"".join([chunk async for chunk in _bounded(response, MAX_SAID_BYTES)])
                    raise self._refusal(response, said.decode("utf-8", "replace"), url)
                async for event in _events(response):
                    self._take_in(event, attempt)
                    if request.watch is not None and attempt.finish_reason is None:
                        attempt.tell(request.watch)
        except httpx.RequestError as error:
            raise Trouble(f"{url}: {type(error).__name__}: {_shown(error) or 'no answer'}") from error
        if attempt.finish_reason is None:
            raise Trouble(f"{url}: the answer broke off after {attempt.tokens_so_far} tokens")

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling or self._sampling
        most = request.max_tokens or sampling.max_tokens
        most = most if self._max_model_len is None else min(most, self._max_model_len)
        asked = (
            {"prompt": request.prompt_text}
            if self._config.api == "completions"
            else {"messages": json.loads(request.prompt_text)}
        )
        optional = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # vLLM's own: named only where they are used
        return {
            "model": self._config.model,
            **asked,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._config.max_tokens_key: most,
            **{name: value for name, off in optional.items() if (value := getattr(sampling, name)) != off},
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **({"thinking_token_budget": budget} if (budget := sampling.thinking_budget) is not None else {}),
            **({"seed": request.seed} if request.seed is not None else {}),
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._config.extra_body,
        }

    def _take_in(self, event: Mapping[str, Any], attempt: Attempt) -> None:
        """Add one event of the stream to the attempt; a whole answer, where an endpoint does not stream, is one too."""
        if event.get("error"):
            raise Trouble(f"{self._base_url} ended an answer with an error: {_shown(json.dumps(event['error']))}")
        usage = event.get("usage")
        if isinstance(usage, Mapping):
            attempt.num_tokens = _count(usage.get("completion_tokens"), attempt.num_tokens)
            attempt.num_prompt_tokens = _count(usage.get("prompt_tokens"), attempt.num_prompt_tokens)
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return
        choice = choices[0]
        delta = choice.get("delta", choice.get("message", choice))
        if isinstance(delta, Mapping) and _take_text(delta, choice, attempt):
            attempt.began_at = attempt.began_at or time.monotonic()
            attempt.first_token_at_us = attempt.first_token_at_us or time.time_ns() // 1000
        _take_ending(choice, attempt)

    def _refusal(self, response: httpx.Response, said: str, url: str) -> Exception:
        """Return what an answer other than 200 means."""
        status = response.status_code
        text = self._status_text(status, said, url)
        if status in TRANSIENT_STATUS or status >= 500:
            return Trouble(text, pause_s=_retry_after_s(response.headers), is_limit=status == 429)
        if status in AUTH_STATUS or status == 404 or status < 400:
            return EngineDeadError(text)
        return RequestError(text)

    def _status_text(self, status: int, said: str, url: str) -> str:
        """Return a message for an HTTP status: what the endpoint said, and what to do."""
        text = f"{url} answered {status}: {_shown(said)}"
        name = self._config.api_key_env
        if status in (401, 403):
            key = f"the key in {name}" if name else "a request without a key (give its variable: teacher.api_key_env)"
            return f"{text}; it refuses {key}"
        if status == 404:
            return f"{text}; is teacher.model={self._config.model!r} its name there, and base_url right?"
        return text


# What an endpoint says.


def _take_text(delta: Mapping[str, Any], choice: Mapping[str, Any], attempt: Attempt) -> bool:
    """Add text and token ids; return whether there were any."""
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    content = delta.get("content", delta.get("text"))
    token_ids = choice.get("token_ids")
    has_text = False
    for part, parts in ((reasoning, attempt.reasoning), (content, attempt.content)):
        if isinstance(part, str) and part:
            parts.append(part)
            has_text = True
    if isinstance(token_ids, list) and all(isinstance(item, int) and 0 <= item < 1 << 31 for item in token_ids):
        attempt.token_ids += token_ids
    attempt.num_chunks += has_text
    return has_text


def _take_ending(choice: Mapping[str, Any], attempt: Attempt) -> None:
    if choice.get("finish_reason") is None:
        return
    reason = str(choice["finish_reason"])
    if reason in ("abort", "error"):
        raise Trouble(f"the endpoint gave the request up ({reason})")
    if reason not in _FINISH_REASONS:
        raise RequestError(f"the endpoint ended the request with {_shown(reason)!r}")
    attempt.finish_reason = _FINISH_REASONS[reason]
    stop = choice.get("stop_reason")
    attempt.stop_token = stop if isinstance(stop, str) else None


def _completion(attempt: Attempt) -> Completion:
    assert attempt.finish_reason is not None, "only what has ended is a completion"
    return Completion(
        text=attempt.text.encode("utf-8", "replace").decode(),  # a lone surrogate fits into no Arrow string
        token_ids=tuple(attempt.token_ids),
        num_tokens=attempt.tokens_so_far,
        num_prompt_tokens=attempt.num_prompt_tokens,
        finish_reason=attempt.finish_reason,
        stop_token=attempt.stop_token,
        num_reasoning_tokens=None,
        submitted_at_us=attempt.submitted_at_us,
        first_token_at_us=attempt.first_token_at_us,
        finished_at_us=time.time_ns() // 1000,
    )


async def _bounded(response: httpx.Response, limit: int) -> AsyncIterator[bytes]:
    """Yield the body up to a limit of bytes."""
    seen = 0
    async for chunk in response.aiter_bytes():
        seen += len(chunk)
        if seen > limit:
            return
        yield chunk


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects of a stream of server-sent events, or of a plain JSON body.

    Source: WHATWG HTML, section 9.2.6, of which only ``data`` fields matter here.
    """
    if "text/event-stream" not in response.headers.get("content-type", ""):
        body = b"".join([chunk async for chunk in _bounded(response, MAX_ANSWER_BYTES)])
        yield _parse(body, response)
        return
    rest = b""
    async for chunk in _bounded(response, MAX_ANSWER_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise Trouble(f"{response.url} answered with a line of more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield _parse(data, response)


def _parse(data: bytes, response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        shown = _shown(data[:1000].decode("utf-8", "replace"))
        raise Trouble(f"{response.url} answered with something else than JSON: {shown!r}") from error
    if not isinstance(body, dict):
        raise Trouble(f"{response.url} answered with a JSON {type(body).__name__}, must be an object")
    return body


def _count(value: object, otherwise: int | None) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else otherwise


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return the pause that an endpoint asks for: seconds or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _shown(said: object) -> str:
    """Return what was said as one short printable line."""
    line = " ".join(str(said).split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= MAX_SHOWN_CHARS else line[:MAX_SHOWN_CHARS] + "..."


def _no_such_model(config: OpenaiTeacher, names: list[str]) -> str:
    near = difflib.get_close_matches(config.model, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - MAX_MODELS_SHOWN} more" if len(names) > MAX_MODELS_SHOWN else ""
    listed = _shown(", ".join(names[:MAX_MODELS_SHOWN])) or "no model at all"
    return f"teacher.model={config.model!r}: {config.base_url} has no such model; {hint}it has {listed}{more}"

"""A teacher that makes up its completions at a given speed: for drills, tests and simulations of many engines.

Shipped, and held to the same contract as the real ones. Tokens are UTF-8 bytes. It adds the whole numbers of the
prompt, rightly with chance ``correct_rate``; lengths vary around ``mean_tokens``; with chance ``loop_rate`` it says the
same until a limit ends it; all requests in flight share ``tokens_per_s`` equally. Death, stalls and slow starts come to
order, in the first incarnation only. A text depends on the request alone, so one that another engine went on with is
the same, byte for byte.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import os
import random
import re
import signal
import time
from collections import deque
from dataclasses import dataclass, field

from factory.teachers import Completion, EngineInfo, Request
from schemas.config import SamplingConfig, ScriptedTeacher
from schemas.errors import RequestError
from schemas.trace import THINK_CLOSE, FinishReason

_LOOP = "I add the numbers one after the other and check the sum. "
_INTEGER = re.compile(r"\d{1,18}")


@dataclass(slots=True)
class _Running:
    """A request; it ends when the engine's shared progress has grown by the number of tokens that it has to make."""

    request: Request
    token_ids: bytes
    finish_reason: FinishReason
    stop_token: str | None
    submitted_at_us: int
    done: asyncio.Future[Completion] = field(repr=False)
    num_given: int = 0  # tokens that another engine made
    num_told: int = 0  # tokens, those given included, that the request's watch has taken
    began_at: float = 0.0  # shared progress when it got its slot

    @property
    def due(self) -> int:
        """Tokens of the completion at which something is to be done next: its end, or the watch's next turn."""
        watch = self.request.watch
        return len(self.token_ids) if watch is None else min(len(self.token_ids), self.num_told + watch.num_tokens)

    @property
    def due_at(self) -> float:
        """Shared progress at which that is."""
        return self.began_at + self.due - self.num_given

    def tell(self) -> None:
        """Let the watch take the tokens up to ``due``."""
        assert self.request.watch is not None, "nobody wants to know"
        begin, self.num_told = self.num_told, self.due
        told = self.token_ids[begin : self.num_told]
        self.request.watch.take(begin, tuple(told), told.decode("utf-8", "replace"))


class ScriptedEngine:
    """One scripted engine: processor sharing among at most ``max_num_seqs`` requests, the rest waits in order."""

    def __init__(self, config: ScriptedTeacher, sampling: SamplingConfig, *, engine_id: str, incarnation: int) -> None:
        self._config = config
        self._sampling = sampling
        self._engine_id = engine_id
        self._is_first = incarnation == 1
        self._heap: list[tuple[float, int, _Running]] = []
        self._tie = itertools.count()
        self._waiting: deque[_Running] = deque()
        self._progress = 0.0  # tokens that a request in flight since the start would have
        self._progress_at = time.monotonic()
        self._tokens_out = 0.0
        self._num_finished = 0
        self._wake = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> EngineInfo:
        """Wait ``start_s``, then serve."""
        await asyncio.sleep(self._config.start_s)
        self._clock = asyncio.create_task(self._run())
        return EngineInfo(
            engine="scripted",
            engine_version="1",
            max_model_len=self._config.max_model_len,
            max_num_seqs=self._config.max_num_seqs,
            max_num_batched_tokens=None,
            settings=self._config.model_dump(),
            can_resume=True,
        )

    async def generate(self, request: Request) -> Completion:
        """Return a made-up completion after the time that its tokens take."""
        room = self._config.max_model_len - len(request.prompt_token_ids)
        if room < 1:
            raise RequestError(f"prompt of {len(request.prompt_token_ids)} tokens leaves no room for an answer")
        written = self._write(request, min(room, request.max_tokens or self._of(request).max_tokens))
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        given = max(0, min(len(request.saved), len(written[0]) - 1))  # something is left to do, whatever was saved
        self._waiting.append(_Running(request, *written, time.time_ns() // 1000, done, given, given))
        self._advance()
        self._fill_slots()
        self._wake.set()
        try:
            return await done
        except asyncio.CancelledError:
            await self.abort(request.request_id)  # or it would keep its slot
            raise

    async def abort(self, request_id: str) -> None:
        """End a request with the tokens that it has by now; none if it still waits for a slot."""
        self._advance()
        for running in [*self._waiting, *(entry[2] for entry in self._heap)]:
            if running.request.request_id == request_id:
                made = 0 if running in self._waiting else max(0, int(self._progress - running.began_at))
                running.token_ids = running.token_ids[: running.num_given + made]
                running.finish_reason, running.stop_token = FinishReason.ABORT, None
                self._waiting = deque(item for item in self._waiting if item is not running)
                self._heap = [entry for entry in self._heap if entry[2] is not running]
                heapq.heapify(self._heap)
                self._complete(running)
                self._fill_slots()
                return

    @property
    def num_tokens_out(self) -> int:
        """Tokens generated so far, finished or not."""
        self._advance()
        return int(self._tokens_out)

    async def close(self) -> None:
        """Stop the clock; requests in flight never end."""
        if self._clock is not None:
            self._clock.cancel()

    def _of(self, request: Request) -> SamplingConfig:
        return request.sampling or self._sampling

    def _write(self, request: Request, max_tokens: int) -> tuple[bytes, FinishReason, str | None]:
        """Return the bytes of a completion, cut at a stop string or ``max_tokens``; how it ends; the stop string."""
        prompt = bytes(request.prompt_token_ids).decode("utf-8", "replace")
        chance = random.Random(f"{self._config.seed}/{request.problem_id}-{request.sample_index}/{request.seed}")
        total = sum(map(int, _INTEGER.findall(prompt)))
        if chance.random() >= self._config.correct_rate:
            total += chance.randint(1, 9)
        length = max(1, round(chance.gammavariate(2.0, self._config.mean_tokens / 2)))
        text = f"<think>\n{_thinking(length)}\n{THINK_CLOSE}\n\nThe sum is \\boxed{{{total}}}."
        if self._config.loop_rate and chance.random() < self._config.loop_rate:
            text = f"<think>\n{_LOOP * (max_tokens // len(_LOOP) + 1)}"
        found = [(text.index(stop), stop) for stop in self._of(request).stop if stop in text]
        end, stop_token = min(found) if found else (len(text), None)
        token_ids = text[:end].encode()
        if len(token_ids) > max_tokens:
            return token_ids[:max_tokens], FinishReason.LENGTH, None
        return token_ids, FinishReason.STOP, stop_token

    def _fill_slots(self) -> None:
        """Let waiting requests begin where there is room."""
        while self._waiting and len(self._heap) < self._config.max_num_seqs:
            running = self._waiting.popleft()
            running.began_at = self._progress
            self._push(running)

    def _push(self, running: _Running) -> None:
        heapq.heappush(self._heap, (running.due_at, next(self._tie), running))

    def _is_stalled(self) -> bool:
        return (
            self._is_first and self._config.stalls_after is not None and self._num_finished >= self._config.stalls_after
        )

    @property
    def _rate(self) -> float:
        """Tokens per second of each request that has a slot."""
        return min(self._config.tokens_per_s / len(self._heap), self._config.tokens_per_s_each or math.inf)

    def _advance(self) -> None:
        """Bring shared progress up to now; a stalled engine makes none."""
        now = time.monotonic()
        elapsed, self._progress_at = now - self._progress_at, now
        if self._heap and not self._is_stalled():
            self._progress += elapsed * self._rate
            self._tokens_out += elapsed * self._rate * len(self._heap)

    async def _run(self) -> None:
        """Complete requests as shared progress reaches their ends; tell their watches on the way."""
        while True:
            self._wake.clear()
            self._advance()
            while self._heap and self._heap[0][0] <= self._progress and not self._is_stalled():
                self._reach(heapq.heappop(self._heap)[2])
            self._fill_slots()
            if not self._heap or self._is_stalled():
                await self._wake.wait()
                continue
            due_s = (self._heap[0][0] - self._progress) / self._rate
            try:
                await asyncio.wait_for(self._wake.wait(), timeout=max(due_s, 0.0005))
            except TimeoutError:
                continue

    def _reach(self, running: _Running) -> None:
        """See to a request that has come as far as it was due."""
        if running.due == len(running.token_ids):
            self._complete(running)
        else:
            running.tell()
            self._push(running)

    def _complete(self, running: _Running) -> None:
        text = running.token_ids.decode("utf-8", "replace")
        close = running.token_ids.find(THINK_CLOSE.encode())
        self._num_finished += 1
        if not running.done.done():
            running.done.set_result(
                Completion(
                    text=text,
                    token_ids=tuple(running.token_ids),
                    num_tokens=len(running.token_ids),
                    finish_reason=running.finish_reason,
                    stop_token=running.stop_token,
                    num_reasoning_tokens=None if close < 0 else close + len(THINK_CLOSE),
                    submitted_at_us=running.submitted_at_us,
                    first_token_at_us=None,
                    finished_at_us=time.time_ns() // 1000,
                    resumed_at=running.num_given or None,
                )
            )
        if self._is_first and self._num_finished == self._config.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)


def _thinking(num_chars: int) -> str:
    """Return so many characters of sentences that differ by a number: no loop."""
    sentences = (f"Step {number}: I add one of the numbers to the sum. " for number in itertools.count(1))
    text = ""
    while len(text) < num_chars:
        text += next(sentences)
    return text[:num_chars]

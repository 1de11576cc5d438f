"""The vLLM teacher: one ``AsyncLLM`` in the process of its actor. The only factory module that imports vLLM.

Both batch limits are set, since ``AsyncLLM`` alone falls back to 128 sequences and 2,048 tokens
(vllm-project/vllm#37393), and all settings are read back (`resolved`). One request per sample; only its final output,
or deltas at long intervals where somebody watches. Every incarnation has a random engine seed: with a fixed one, a run
that is extended would sample the same texts again.

What another engine made is put behind the prompt, and its text is made of its tokens as vLLM itself would have. vLLM
looks for stop strings in new text only, and its detokenizer takes a prompt that ends inside a character for new text;
so an attempt goes on from the last place that is neither inside a character nor inside what may become a stop string.
A seeded request goes on with another seed, since its first random numbers would come again. Detection of loops by vLLM
itself would see the new tokens only; no job switches it on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from factory.minder import mind
from factory.teachers import Completion, EngineInfo, Loaded, Request, Watch
from factory.teachers.resolved import check_resolved, read_settings
from schemas.config import SamplingConfig, VllmTeacher
from schemas.errors import EngineDeadError, RequestError, TeacherError
from schemas.trace import THINK_CLOSE, THINK_OPEN, FinishReason

ABORT_AGAIN_S = 0.05
MAX_SEED: Final = (1 << 63) - 1
_FINISH_REASONS = {str(reason): reason for reason in FinishReason}


@dataclass(slots=True)
class _Answer:
    """The whole of a completion: what another engine made, and what has come of this one's so far."""

    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    num_given: int = 0
    num_told: int = field(init=False)  # tokens that the request's watch has taken
    num_texts_told: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_told, self.num_texts_told = self.num_given, len(self.texts)

    def add(self, token_ids: Sequence[int], text: str) -> None:
        """Take what vLLM gave since it gave last."""
        self.token_ids += token_ids
        self.texts.append(text)

    def tell(self, watch: Watch) -> None:
        """Let the watch take what is new, if it is enough."""
        if len(self.token_ids) - self.num_told >= watch.num_tokens:
            watch.take(self.num_told, self.token_ids[self.num_told :], "".join(self.texts[self.num_texts_told :]))
            self.num_told, self.num_texts_told = len(self.token_ids), len(self.texts)


class VllmEngine:
    """One AsyncLLM; all calls come from the event loop in which ``start`` ran."""

    def __init__(self, config: VllmTeacher, sampling: SamplingConfig) -> None:
        self._config = config
        self._sampling = sampling
        self._engine: Any = None
        self._tokenizer: Any = None
        self._max_model_len = 0
        self._close_id: int | None = None
        self._num_tokens_out = 0
        self._in_flight: set[str] = set()

    async def start(self) -> EngineInfo:
        """Load the model.

        Raises:
            TeacherError: If vLLM is not installed, cannot load the model, or resolved a setting to something else.
        """
        mind()
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive vLLM's forks
        if self._config.engine.cpu_kvcache_gib is not None:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(self._config.engine.cpu_kvcache_gib)
        if (num_ranks := self._config.engine.num_gpus) > 1:  # vLLM's CPU build wants a NUMA node for each, or this
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores_by_rank(num_ranks))
        try:
            import vllm
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise TeacherError(
                f"vLLM is not usable here: {error}; install the extra `cpu` or `gpu` of distillation-factory"
            ) from error
        try:
            arguments = engine_arguments(self._config)
            args = AsyncEngineArgs(**arguments, **self._reasoning_arguments())
            self._engine = AsyncLLM.from_engine_args(args, stat_loggers=[self._token_counter()])
        except (RuntimeError, ValueError, OSError, ImportError, KeyError, AttributeError) as error:
            raise TeacherError(f"teacher.model={self._config.model!r} cannot be loaded: {error}") from error
        self._tokenizer = self._engine.get_tokenizer()
        return self._resolved(vllm.__version__, arguments["seed"])

    async def generate(self, request: Request) -> Completion:
        """Return one completion; see the protocol for errors."""
        from vllm.exceptions import VLLMError
        from vllm.inputs import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError as VllmEngineDead

        room = self._max_model_len - len(request.prompt_token_ids)
        if room < 1:
            raise RequestError(
                f"prompt of {len(request.prompt_token_ids)} tokens leaves no room in a context of {self._max_model_len}"
            )
        submitted_at_us = time.time_ns() // 1000
        sampling = request.sampling or self._sampling
        max_tokens = min(room, request.max_tokens or sampling.max_tokens)
        saved = request.saved[: max_tokens - 1]  # something is left to do, whatever was saved
        final = None
        self._in_flight.add(request.request_id)
        try:
            answer = await asyncio.to_thread(self._go_on, request, saved) if saved else _Answer()
            prompt = TokensPrompt(prompt_token_ids=[*request.prompt_token_ids, *answer.token_ids])
            watch = request.watch
            if watch is not None and max_tokens - answer.num_given <= watch.num_tokens:
                watch = None  # the end comes first
            seed = None if request.seed is None else (request.seed + answer.num_given) & MAX_SEED
            params = _sampling_params(sampling, max_tokens, answer.num_given, seed, watch)
            async for output in self._engine.generate(prompt, params, request.request_id):
                final = output
                answer.add(output.outputs[0].token_ids, output.outputs[0].text)
                if watch is not None and not output.finished:
                    answer.tell(watch)
        except VllmEngineDead as error:
            raise EngineDeadError(f"the vLLM engine died: {error}") from error
        except (VLLMError, ValueError) as error:
            raise RequestError(f"vLLM refused the request: {error}") from error
        finally:
            self._in_flight.discard(request.request_id)
        if final is None or not final.finished:
            raise RequestError("vLLM ended the request without an output")
        return self._completion(answer, final, submitted_at_us)

    async def abort(self, request_id: str) -> None:
        """End a request early.

        vLLM ignores an abort of a request that it has not taken in yet, as happens in the first moments of a busy
        engine: the abort is said again until the request has ended.
        """
        while request_id in self._in_flight:
            await self._engine.abort(request_id)
            await asyncio.sleep(ABORT_AGAIN_S)

    @property
    def num_tokens_out(self) -> int:
        """Tokens generated so far, finished or not, by vLLM's own counter."""
        return self._num_tokens_out

    async def close(self) -> None:
        """End the engine core and its workers."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    def _reasoning_arguments(self) -> dict[str, Any]:
        """Return what vLLM has to know of the tags, to end a thinking at its budget."""
        if self._sampling.thinking_budget is None:
            return {}
        from vllm.config.reasoning import ReasoningConfig

        return {"reasoning_config": ReasoningConfig(reasoning_start_str=THINK_OPEN, reasoning_end_str=THINK_CLOSE)}

    def _go_on(self, request: Request, saved: tuple[int, ...]) -> _Answer:
        """Return what the answer begins with: the saved tokens up to the last place where one can go on."""
        texts = self._detokenize(request, saved)
        text = "".join(texts)
        while texts and (not texts[-1] or _may_become_stop(text, (request.sampling or self._sampling).stop)):
            text = text[: len(text) - len(texts.pop())]
        return _Answer(list(saved[: len(texts)]), [text], len(texts))

    def _detokenize(self, request: Request, token_ids: Sequence[int]) -> list[str]:
        """Return what each token adds to the text, by vLLM's own detokenizer: nothing inside a character."""
        from vllm import SamplingParams
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        behind = EngineCoreRequest(
            request_id=request.request_id,
            prompt_token_ids=list(request.prompt_token_ids),
            mm_features=None,
            sampling_params=SamplingParams(skip_special_tokens=False),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        detokenizer = IncrementalDetokenizer.from_new_request(self._tokenizer, behind)
        texts = []
        for token_id in token_ids:
            detokenizer.update([token_id], False)
            texts.append(detokenizer.get_next_output_text(finished=False, delta=True))
        return texts

    def _resolved(self, version: str, seed: int) -> EngineInfo:
        """Return what vLLM made of the settings; a silent fallback is an error.

        Raises:
            TeacherError: If one is not what was asked for.
        """
        settings = read_settings(self._engine.vllm_config)
        check_resolved(self._config.engine.model_dump() | {"seed": seed}, settings)
        self._max_model_len = settings["max_model_len"]
        close_ids = self._tokenizer.encode(THINK_CLOSE, add_special_tokens=False)
        self._close_id = close_ids[0] if len(close_ids) == 1 else None
        return EngineInfo(
            engine="vllm",
            engine_version=version,
            max_model_len=self._max_model_len,
            max_num_seqs=settings["max_num_seqs"],
            max_num_batched_tokens=settings["max_num_batched_tokens"],
            can_resume=True,
            loaded=Loaded(
                dtype=settings["dtype"],
                quantization=settings["quantization"] or "none",
                tensor_parallel_size=settings["tensor_parallel_size"],
                pipeline_parallel_size=settings["pipeline_parallel_size"],
                host_class=_host_class(),
            ),
            settings=settings,
        )

    def _completion(self, answer: _Answer, output: Any, submitted_at_us: int) -> Completion:
        sample = output.outputs[0]
        finish_reason = _FINISH_REASONS.get(sample.finish_reason)
        if finish_reason is None:
            raise RequestError(f"vLLM ended the request with {sample.finish_reason!r}")
        token_ids = tuple(answer.token_ids)
        text = "".join(answer.texts)
        return Completion(
            text=text.encode("utf-8", "replace").decode(),  # a lone surrogate fits into no Arrow string
            token_ids=token_ids,
            num_tokens=len(token_ids),
            finish_reason=finish_reason,
            stop_token=self._stop_token(finish_reason, sample.stop_reason, token_ids),
            num_reasoning_tokens=self._count_reasoning(text, token_ids),
            submitted_at_us=submitted_at_us,
            first_token_at_us=first_token_at_us(output, submitted_at_us),
            finished_at_us=time.time_ns() // 1000,
            resumed_at=answer.num_given or None,
        )

    def _stop_token(
        self, reason: FinishReason, stop_reason: int | str | None, token_ids: tuple[int, ...]
    ) -> str | None:
        """Return the stop string or the text of the end token; vLLM names the model's own end token by None."""
        if reason is not FinishReason.STOP:
            return None
        if isinstance(stop_reason, str):
            return stop_reason
        end = stop_reason if stop_reason is not None else token_ids[-1] if token_ids else None
        return None if end is None else str(self._tokenizer.convert_ids_to_tokens(end))

    def _count_reasoning(self, text: str, token_ids: tuple[int, ...]) -> int | None:
        """Return how many tokens end with the last closing tag; exact where the tag is one token."""
        end = text.rfind(THINK_CLOSE)
        if end < 0:
            return None
        if self._close_id is not None and self._close_id in token_ids:
            return len(token_ids) - token_ids[::-1].index(self._close_id)
        return len(self._tokenizer.encode(text[: end + len(THINK_CLOSE)], add_special_tokens=False))

    def _token_counter(self) -> Any:
        """Return a stat logger class that counts generated tokens in this object."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        owner = self

        class TokenCounter(StatLoggerBase):  # type: ignore[misc]
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(
                self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
            ) -> None:
                if iteration_stats is not None:
                    owner._num_tokens_out += iteration_stats.num_generation_tokens

            def log_engine_initialized(self) -> None:
                pass

        return TokenCounter


def _host_class() -> str | None:
    """Return the name of the GPU as vLLM sees it, by a library that makes no CUDA context here; else of the CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return cpu_name(Path("/proc/cpuinfo"))
    from vllm.third_party.pynvml import NVMLError

    try:
        return str(current_platform.get_device_name())
    except (
        NVMLError,
        RuntimeError,
        ValueError,
        LookupError,
    ):  # one that its library cannot name: no reason to end an engine
        return None


def cpu_name(path: Path) -> str | None:
    """Return the model name of the first processor that Linux lists there; None where it gives none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() or None for line in lines if line.startswith("model name")), None)


def cores_by_rank(num_ranks: int) -> str:
    """Return the cores of this process in as many parts, as vLLM's CPU build reads them: ``0,1|2,3``."""
    cores = sorted(os.sched_getaffinity(0))
    parts = [cores[rank::num_ranks] or [cores[rank % len(cores)]] for rank in range(num_ranks)]
    return "|".join(",".join(map(str, part)) for part in parts)


def sampling_arguments(sampling: SamplingConfig) -> dict[str, Any]:
    """Return the arguments of ``SamplingParams`` that all requests of a job have in common, but for their lengths."""
    return {
        "n": 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "stop": list(sampling.stop),
        "skip_special_tokens": False,  # the raw text is the truth: a stray control token must be seen by the checks
    }


def _sampling_params(
    sampling: SamplingConfig, max_tokens: int, num_given: int, seed: int | None, watch: Watch | None
) -> Any:
    """Return what vLLM is told of a request of which so many tokens are there already."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        **sampling_arguments(sampling),
        min_tokens=max(0, min(sampling.min_tokens, max_tokens) - num_given),
        max_tokens=max_tokens - num_given,
        seed=seed,
        thinking_token_budget=sampling.thinking_budget,
        # Not CUMULATIVE: vLLM 0.32 heeds the interval for deltas only, and would copy the text at every token.
        output_kind=RequestOutputKind.FINAL_ONLY if watch is None else RequestOutputKind.DELTA,
        stream_interval=None if watch is None else watch.num_tokens,
    )


def engine_arguments(teacher: VllmTeacher) -> dict[str, Any]:
    """Return the arguments of ``AsyncEngineArgs``; what a job leaves out has the factory's default, not vLLM's."""
    options = teacher.engine
    arguments = options.model_dump(exclude={"cpu_kvcache_gib", "speculation"})
    if options.speculation is not None:
        arguments["speculative_config"] = {
            "method": options.speculation.method,
            "num_speculative_tokens": options.speculation.num_tokens,
        }
    return arguments | {
        "model": teacher.model,
        "tokenizer": teacher.tokenizer,
        "revision": teacher.revision,
        "seed": secrets.randbits(31),
        "disable_log_stats": True,
    }


def _may_become_stop(text: str, stops: Sequence[str]) -> bool:
    """Return whether a text ends with what a stop string begins with."""
    return any(text.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))


def first_token_at_us(output: Any, submitted_at_us: int) -> int | None:
    """Return when the first token came, from vLLM's own latency of it; None where it keeps no statistics."""
    latency_s = getattr(output.metrics, "first_token_latency", None)
    return None if not latency_s else submitted_at_us + int(latency_s * 1e6)

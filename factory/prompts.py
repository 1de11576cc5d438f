"""Prompts: a problem becomes exactly the text and the token ids that the teacher is given.

Second step of the flow. Invariant: the same problem, prompt config and tokenizer give the same bytes, on any day; all
that decides them is in ``Renderer.identity``. A question is data: it is put into a template once and never read as one.
Reads no problems and asks no teacher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from schemas.config import PromptConfig
from schemas.errors import ConfigError
from schemas.problem import Message, Problem, Prompt, Tests
from schemas.trace import THINK_OPEN, TraceFormat

# Source: DeepSeek-R1, arXiv:2501.12948v1, table 1, where `prompt` stands for the question. Quoted as it is printed,
# full stop after the question included.
ZERO_BEFORE: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: "
)
ZERO_AFTER: Final = ". Assistant:"
# Source: model card of deepseek-ai/DeepSeek-R1, "Usage Recommendations", for mathematical problems.
BOXED_AFTER: Final = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
BUILTIN_TEMPLATES: Final = {"zero": (ZERO_BEFORE, ZERO_AFTER), "boxed": ("", BOXED_AFTER), "plain": ("", "")}

# Some chat templates write today's date into the system turn (Llama 3 does); a run that is resumed tomorrow must render
# the same text. The date is the one that Llama 3.1's own template falls back to.
RENDER_DATE: Final = date(2024, 7, 26)
TOKENIZER: Final = "tokenizer.json"  # the one file by which a fast tokenizer can be told from another
PROBE: Final = (Message(role="user", content="What is 1 + 1?"),)  # rendered once, to see what a template does


class PromptTokenizer(Protocol):
    """What rendering needs of a teacher's tokenizer."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def chat_template(self) -> str | None:
        """Text of the chat template; None where there is none."""

    @property
    def sha256(self) -> str | None:
        """Digest of its tokenizer.json; None where it has no such file, or only the teacher has it."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the token ids; with ``add_special_tokens`` also those that the model expects around raw text."""

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return the conversation as text, up to where the assistant's turn begins.

        Raises:
            ValueError: If there is no chat template, or it refuses the conversation.
        """


class HfTokenizer:
    """The tokenizer of a folder or a Hub name, loaded by ``transformers``."""

    def __init__(self, path_or_name: str, revision: str | None = None, *, key: str = "teacher.model") -> None:
        """Load it; ``key`` of the job file named it.

        Raises:
            ConfigError: If there is none that can be loaded.
        """
        from transformers import AutoTokenizer

        self.name, self._revision = path_or_name, revision
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path_or_name, revision=revision)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            raise ConfigError(
                f"{key}={path_or_name!r} (revision {revision}): its tokenizer cannot be loaded: {error}; "
                "give a folder with tokenizer files, or a name on the Hub (this needs a network)"
            ) from error
        template = self._tokenizer.chat_template
        self.chat_template: str | None = template.get("default") if isinstance(template, dict) else template

    @property
    def sha256(self) -> str | None:
        """Digest of its tokenizer.json, as `sha256sum` gives it: in the folder, or where the Hub's library put it."""
        path: Path | str | None = Path(self.name) / TOKENIZER
        if not Path(self.name).is_dir():
            from huggingface_hub import try_to_load_from_cache

            found = try_to_load_from_cache(self.name, TOKENIZER, revision=self._revision)
            path = found if isinstance(found, str) else None  # else an object that stands for: known not to be there
        if path is None or not Path(path).is_file():
            return None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the token ids; a chat template writes its own special tokens, so for it add none."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return the conversation in the tokenizer's own chat template, generation prompt included.

        Raises:
            ValueError: If there is no chat template, or it refuses the conversation.
        """
        if self.chat_template is None:
            raise ValueError(f"{self.name} has no chat template")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, strftime_now=RENDER_DATE.strftime
            )
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            raise ValueError(f"the chat template of {self.name} refuses the conversation: {error}") from error
        return text


class ByteTokenizer:
    """A tokenizer without a vocabulary, for the scripted teacher: token ids are the bytes of UTF-8."""

    name = "bytes"
    sha256: str | None = None
    chat_template: str | None = "<|role|>content for each turn, then <|assistant|>"

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the bytes; there are no special tokens to add."""
        return list(text.encode("utf-8"))

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return the turns, each after a tag with its role."""
        return "".join(f"<|{message.role}|>{message.content}\n" for message in messages) + "<|assistant|>"


class EndpointTokenizer:
    """Stands for a tokenizer that only the teacher has: a conversation is given as its JSON, and tokens are unknown."""

    sha256: str | None = None
    chat_template: str | None = "applied by the endpoint"

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return nothing: nobody here knows."""
        return []

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return the turns as a JSON list of objects with `role` and `content`."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return json.dumps(turns, ensure_ascii=False)


def load_counter(name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text: by a tokenizer's folder or Hub name, or its ``bytes``.

    Raises:
        ConfigError: If there is no such tokenizer.
    """
    tokenizer: PromptTokenizer = ByteTokenizer() if name == ByteTokenizer.name else HfTokenizer(name)
    return lambda text: len(tokenizer.encode(text))


class Template(NamedTuple):
    """Rewrites the last user turn; ``text`` is all that decides how."""

    text: str
    apply: Callable[[Sequence[Message]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Makes prompts. ``format`` says how the teacher's completions will be laid out."""

    template: Template
    system: str | None
    is_chat: bool
    format: TraceFormat
    tokenizer: PromptTokenizer

    def render(self, problem: Problem) -> Prompt:
        """Return the prompt of a problem.

        Raises:
            ValueError: If a custom template or the chat template refuses this problem's turns.
        """
        # Chat control tokens inside a question stay: what they mean is the tokenizer's matter, a question about
        # them is a legal question, and cutting text would ask something else than the reference answers.
        asks_for_program = isinstance(problem.reference, Tests)  # whose answer stands in no box
        template = NO_BOX if asks_for_program and self.template.text == BOXED else self.template
        text = _render(problem.messages, template, self.system, self.tokenizer if self.is_chat else None)
        token_ids = self.tokenizer.encode(text, add_special_tokens=not self.is_chat)
        return Prompt(problem_id=problem.problem_id, text=text, sha256=_sha256(text), token_ids=tuple(token_ids))

    def identity(self) -> dict[str, str | bool | None]:
        """Return all that decides the rendered text, as JSON values for the run's fingerprint."""
        chat_template = self.tokenizer.chat_template if self.is_chat else None
        return {
            "template": self.template.text,
            "system": self.system,
            "is_chat": self.is_chat,
            "chat_template_sha256": None if chat_template is None else _sha256(chat_template),
        }


def make_renderer(prompt: PromptConfig, tokenizer: PromptTokenizer) -> Renderer:
    """Return the renderer of a job, tried once on a question of its own.

    Raises:
        ConfigError: If the template cannot be used, or a chat template is asked for and the tokenizer has none.
    """
    builtin = BUILTIN_TEMPLATES.get(prompt.template)
    template = _jinja_template(prompt.template) if builtin is None else _builtin_template(*builtin)
    is_chat = prompt.template != "zero" if prompt.chat_template is None else prompt.chat_template
    if is_chat and tokenizer.chat_template is None:
        raise ConfigError(
            f"prompt.template={prompt.template!r} needs a chat template; the tokenizer of {tokenizer.name} has none: "
            "set prompt.chat_template to false to give the teacher the raw text, or take another teacher"
        )
    try:
        rendered = _render(PROBE, template, prompt.system, tokenizer if is_chat else None)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"prompt.template={prompt.template!r}, prompt.system={prompt.system!r}: {error}") from error
    trace_format = prompt.format or _format_of(prompt.template, rendered)
    return Renderer(template=template, system=prompt.system, is_chat=is_chat, format=trace_format, tokenizer=tokenizer)


def _format_of(template: str, rendered: str) -> TraceFormat:
    if template == "zero":
        return TraceFormat.ZERO
    return TraceFormat.R1_PREFILLED if rendered.rstrip().endswith(THINK_OPEN) else TraceFormat.R1


def _render(messages: Sequence[Message], template: Template, system: str | None, chat: PromptTokenizer | None) -> str:
    """Return the text for the teacher; without ``chat`` the turns follow one another, a blank line between."""
    turns = [] if system is None else [Message(role="system", content=system)]
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    for i, message in enumerate(messages):
        turns.append(Message(role="user", content=template.apply(messages)) if i == last else message)
    return "\n\n".join(turn.content for turn in turns) if chat is None else chat.render_chat(turns)


def _question(messages: Sequence[Message]) -> str:
    return next(message.content for message in reversed(messages) if message.role == "user")


def _builtin_template(before: str, after: str) -> Template:
    # Joined, not formatted: a question may hold braces.
    return Template(f"{before}{{{{ problem }}}}{after}", lambda messages: before + _question(messages) + after)


NO_BOX: Final = _builtin_template(*BUILTIN_TEMPLATES["plain"])
BOXED: Final = _builtin_template(*BUILTIN_TEMPLATES["boxed"]).text

# Custom templates.


def _jinja_template(name: str) -> Template:
    path = Path(name).expanduser()
    source = _read_template(path)
    # Sandboxed: a template comes with a job file from elsewhere. It has no loader, so `include` reaches no other file,
    # and the text hashed in the fingerprint is all there is.
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    _check_variables(environment, source, path)
    compiled = jinja2.Template.from_code(
        environment, environment.compile(source, filename=str(path)), environment.make_globals(None)
    )

    def apply(messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return compiled.render(problem=_question(messages), messages=turns)
        # What a template's own expressions may raise is Python's: a wrong index, a division by zero, ...
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"prompt.template={path}, line {_line_of(error, path)}: {error}") from error

    return Template(source, apply)


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        words = ", ".join(BUILTIN_TEMPLATES)
        raise ConfigError(
            f"prompt.template={str(path)!r} must be one of {words}, or the path of a Jinja file: no such file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt.template={str(path)!r}: cannot be read: {error}") from error


def _check_variables(environment: jinja2.Environment, source: str, path: Path) -> None:
    try:
        tree = environment.parse(source, filename=str(path))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"prompt.template={path}, line {error.lineno}: {error.message}") from error
    used = jinja2.meta.find_undeclared_variables(tree)
    for variable in sorted(used - {"problem", "messages"} - set(environment.globals)):
        line = next(node.lineno for node in tree.find_all(jinja2.nodes.Name) if node.name == variable)
        raise ConfigError(
            f"prompt.template={path}, line {line}: {variable!r} is no variable of a prompt; use `problem` (the text of "
            "the last user turn) and `messages` (all turns, each with `role` and `content`)"
        )
    if not used & {"problem", "messages"}:
        raise ConfigError(f"prompt.template={path}: uses neither `problem` nor `messages`, so all prompts are the same")


def _line_of(error: BaseException, path: Path) -> str:
    """Return the line of the template that raised: Jinja writes it into the traceback."""
    line, trace = "?", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = str(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

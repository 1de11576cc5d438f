"""Rows: read from a selection folder or a published dataset, and encoded as a student will learn them.

The one place where text becomes tokens: guards look at what is made here, training takes it as it is. A prompt and its
completion are encoded apart and joined, so that no token spans both: in training a student sees exactly the tokens that
it is asked with later. Files are read, never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import TemplateError

from jobs.students.recipe import Family, Recipe
from schemas.errors import ConfigError, CorruptRunError, GuardError
from schemas.tables import SCHEMAS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED: Final = -100  # label that PyTorch's cross entropy leaves out
BATCH_ROWS: Final = 64  # read and encoded together: enough for a tokenizer's threads, little memory
# Of a sample: groups of rows that are read at least, bytes of text that are read, and bytes that are picked of them.
SAMPLE_GROUPS: Final = 64
SAMPLE_READ_BYTES: Final = 240_000_000
SAMPLE_BYTES: Final = 12_000_000
FOOTER_BYTES: Final = 1 << 16  # of a Parquet file, that stand for it: its end holds sizes and statistics of all columns

ROWS_SCHEMA: Final = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_MARK: Final = "qzxvkw"  # stands for a content where a template's own words are looked for: no word, nothing to trim
_REPO: Final = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SHARD: Final = re.compile(r"(?P<split>\w+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question and what is to be learnt as its answer."""

    row_id: str
    problem_id: str
    prompt: Sequence[Mapping[str, str]]  # turns before the answer
    completion: str  # text of the answer, as the table has it


class Encoded(NamedTuple):
    """A row as tokens."""

    row: Row
    asked: str  # the prompt as text, written by the template
    asked_ids: list[int]  # the prompt, as the student is asked with
    token_ids: list[int]  # what it is shown: prompt, completion, end
    labels: list[int]  # the token where it is learnt, else IGNORED


class Frame(NamedTuple):
    """What a template writes around the contents of a prompt's turns."""

    pieces: list[str]  # before, between and behind them; none where it does not write each content once, in order
    added: str  # the first that is no token of the family, role or white space; empty if there is nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """Who learns: a tokenizer with its template, and what its family's tokens are."""

    tokenizer: PreTrainedTokenizerBase
    family: Family
    max_length: int  # tokens
    end_id: int  # of the token that ends a turn
    start_id: int | None  # of the token that starts a text; null in families without one
    control_ids: frozenset[int]  # of tokens that mean something to a server, and are never text
    _frames: dict[tuple[str, ...], Frame] = field(default_factory=dict, init=False, repr=False)

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Return the rows as tokens.

        A template that writes the prompt otherwise once it is answered is encoded as TRL would: what both have in
        common is the prompt. The guards then say what is wrong with it.
        """
        asked = self._render([list(row.prompt) for row in rows], is_asked=True)
        whole = self._render(
            [[*row.prompt, {"role": "assistant", "content": row.completion}] for row in rows], is_asked=False
        )
        fits = [text.startswith(start) for start, text in zip(asked, whole, strict=True)]
        asked_ids = self._token_ids(asked)
        rest_ids = self._token_ids(
            [text[len(start) :] if fit else text for start, text, fit in zip(asked, whole, fits, strict=True)]
        )
        return [_join(*parts) for parts in zip(rows, asked, asked_ids, rest_ids, fits, strict=True)]

    def frame(self, roles: Sequence[str]) -> Frame:
        """Return what the template writes around the contents of a prompt with these roles."""
        key = tuple(roles)
        if key not in self._frames:
            pieces = self._pieces(key)
            words = {*key, "assistant", *(self.decode([token]) for token in self.control_ids)}
            plain = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))
            self._frames[key] = Frame(
                pieces, next(filter(None, (plain.sub("", piece).strip() for piece in pieces)), "")
            )
        return self._frames[key]

    def control_tokens(self, text: str) -> list[str]:
        """Return the tokens that mean something to a server and that a text would become."""
        (token_ids,) = self._token_ids([text])
        return [self.decode([token]) for token in token_ids if token in self.control_ids]

    def decode(self, token_ids: list[int]) -> str:
        """Return tokens as text, special ones too."""
        # transformers' own looks at the type of every single token first
        return str(self.tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=False))

    def _pieces(self, roles: Sequence[str]) -> list[str]:
        marks = [f"{_MARK}{place}{_MARK}" for place in range(len(roles))]
        turns: list[Mapping[str, str]] = [
            {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
        ]
        (rest,) = self._render([turns], is_asked=True)
        pieces = []
        for mark in marks:
            before, found, rest = rest.partition(mark)
            if not found:
                return []
            pieces.append(before)
        pieces.append(rest)
        return [] if any(_MARK in piece for piece in pieces) else pieces

    def _render(self, turns: list[list[Mapping[str, str]]], *, is_asked: bool) -> list[str]:
        try:
            texts = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=is_asked)
        except (TemplateError, TypeError) as error:  # what it raises itself, and what it does to a content
            raise GuardError(
                f"guard template: {self.family.template} cannot write these turns: {error}; mend it, or leave out "
                "base.template for the family's own"
            ) from error
        return list(texts)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        # verbose: that a row is longer than the model's context is counted by us, not warned of
        return list(self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])


def _join(row: Row, asked: str, asked_ids: list[int], rest: list[int], is_prefix: bool) -> Encoded:
    token_ids = asked_ids + rest if is_prefix else rest
    num_prompt = len(asked_ids)
    if not is_prefix:
        pairs = zip(asked_ids, rest, strict=False)
        num_prompt = next(
            (place for place, (one, other) in enumerate(pairs) if one != other), min(len(asked_ids), len(rest))
        )
    return Encoded(row, asked, asked_ids, token_ids, [IGNORED] * num_prompt + token_ids[num_prompt:])


def load_student(folder: Path, recipe: Recipe) -> Student:
    """Return the student of a prepared model folder."""
    from transformers import AutoTokenizer

    tokenizer, family = AutoTokenizer.from_pretrained(folder), recipe.base.of
    return Student(
        tokenizer=tokenizer,
        family=family,
        max_length=recipe.train.max_length,
        end_id=tokenizer.convert_tokens_to_ids(family.end),
        start_id=None if family.start is None else tokenizer.convert_tokens_to_ids(family.start),
        control_ids=_control_ids(tokenizer, family, folder),
    )


def _control_ids(tokenizer: PreTrainedTokenizerBase, family: Family, folder: Path) -> frozenset[int]:
    """Return the ids of special tokens, of what the template is written with, and of where generation stops.

    `<think>` and its like, added tokens that are not special, are text.
    """
    from transformers import GenerationConfig

    # Llama 3's files name start and end alone as special; the others say it only of themselves.
    found = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = tokenizer.get_vocab()
    found |= {known[token] for token in (family.end, family.pad, family.start, *family.others) if token in known}
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    found |= {*tokenizer.all_special_ids, *(ends if isinstance(ends, list) else [ends])}
    return frozenset(found - {None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The shards of one table and split."""

    name: str
    files: tuple[Path, ...]

    @property
    def num_rows(self) -> int:
        """How many rows there are, by the files' own words."""
        return sum(pq.read_metadata(path).num_rows for path in self.files)

    @property
    def digest(self) -> str:
        """Hash of sizes and ends of the files: another table has another one, a copy the same."""
        found = sha256()
        for path in self.files:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - FOOTER_BYTES))
                found.update(f"{path.name} {size} ".encode() + file.read())
        return found.hexdigest()

    def read(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows in their order, some at a time."""
        for path in self.files:
            # buffered before, a file's columns would stay in memory as a whole
            for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(batch_rows, columns=list(columns)):
                yield batch.to_pylist()

    def sample(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield rows evenly spread over the table, the same each time, and read little more; all of a small table.

        A Parquet file is read by groups of rows, from their beginning on: of a table with more text than
        SAMPLE_READ_BYTES, only the first rows of some groups are read.
        """
        groups = [group for path in self.files for group in _groups(path, columns)]
        total = max(1, sum(group.num_bytes for group in groups))
        wanted = min(len(groups), max(SAMPLE_GROUPS, len(groups) * SAMPLE_READ_BYTES // total))
        groups = [groups[(2 * n + 1) * len(groups) // (2 * wanted)] for n in range(wanted)]
        share = SAMPLE_READ_BYTES // max(1, len(groups))
        every = max(1, -(-sum(min(share, group.num_bytes) for group in groups) // SAMPLE_BYTES))
        place = 0  # of a batch among all that is read
        for group in groups:
            num_read = num_picked = 0
            # with a buffer a group is read as far as it is wanted, without one as a whole
            file = pq.ParquetFile(group.path, metadata=group.metadata, buffer_size=1 << 20, pre_buffer=False)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group.place], columns=list(columns)):
                picked = batch.take(pa.array(range(-place % every, batch.num_rows, every), pa.int32()))
                place += batch.num_rows
                if picked.num_rows:
                    yield picked.to_pylist()
                num_read, num_picked = num_read + batch.nbytes, num_picked + picked.nbytes
                # what repeats takes less room in the file, so that its own words do not bound what comes out of it
                if num_read >= share or num_picked >= SAMPLE_BYTES // len(groups):
                    break

    def ids(self, key: str) -> Iterator[list[Row]]:
        """Yield all rows with their ids alone, some at a time; the id of a row is in the column ``key``."""
        for batch in self.read((key, "problem_id"), 4096):
            yield [row_of({**row, "prompt": ()}, key, "") for row in batch]

    def rows(self, *, is_sample: bool = False) -> Iterator[list[Row]]:
        """Yield the rows of `sft_prompt_completion`, some at a time; all, or those of ``sample``."""
        columns = ("trace_id", "problem_id", "prompt", "completion")
        for batch in self.sample(columns) if is_sample else self.read(columns):
            yield [
                row_of(row, "trace_id", only_turn(row["completion"], f"row {row['trace_id']}: completion"))
                for row in batch
            ]


class _Group(NamedTuple):
    """A group of rows in a Parquet file."""

    path: Path
    metadata: pq.FileMetaData  # of the file
    place: int  # in the file
    num_bytes: int  # of some columns, by the file's own words


def _groups(path: Path, columns: Sequence[str]) -> Iterator[_Group]:
    metadata = pq.read_metadata(path)
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        chunks = [group.column(place) for place in range(metadata.num_columns)]
        sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
        yield _Group(path, metadata, index, sum(sizes))


def row_of(raw: Mapping[str, Any], key: str, completion: str) -> Row:
    """Return a row of a table, whose id is in the column ``key``.

    Raises:
        ConfigError: If an id or a content of its prompt is null.
    """
    nulls = [name for name in (key, "problem_id", "prompt") if raw[name] is None]
    nulls += [f"prompt[{n}].content" for n, turn in enumerate(raw["prompt"] or ()) if turn["content"] is None]
    if nulls:
        raise ConfigError(
            f"row {raw[key]} (problem {raw['problem_id']}): column {', '.join(nulls)} is null; write the table again"
        )
    return Row(row_id=raw[key], problem_id=raw["problem_id"], prompt=raw["prompt"], completion=completion)


def only_turn(turns: Sequence[Mapping[str, str]] | None, where: str) -> str:
    """Return the text of the one turn of an answer.

    Raises:
        ConfigError: If there are none or several, or it is not the assistant's.
    """
    if turns is None or [turn["role"] for turn in turns] != ["assistant"] or turns[0]["content"] is None:
        roles = "nothing" if not turns else ", ".join(str(turn["role"]) for turn in turns)
        raise ConfigError(
            f"{where}: holds {roles}, must be one turn of the assistant; earlier turns belong to the prompt"
        )
    return turns[0]["content"]


def open_data(data: str) -> Path:
    """Return the folder of a selection: one that is given, or a published dataset's, downloaded (`org/name@revision`).

    Raises:
        ConfigError: If it is neither.
    """
    folder = Path(data).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigError(f"--data {data}: is a file; give the folder that holds its table: RUN/tables/SELECTION")
    if not _REPO.fullmatch(data):
        raise ConfigError(
            f"--data {data}: no such folder; give RUN/tables/SELECTION, or org/name[@revision] on the Hub"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    repo, _, revision = data.partition("@")
    wanted = [*(f"{name}/*.parquet" for name in ("sft_prompt_completion", "preference")), "manifest.json"]
    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=revision or None, allow_patterns=wanted))
    except RevisionNotFoundError as error:
        raise ConfigError(
            f"--data {data}: {repo} has no tag, branch or commit {revision}; its tags are {_tags(repo)}"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"--data {data}: neither a folder, nor to be had from the Hub: {' '.join(str(error).split())[:300]}"
        ) from error


def _tags(repo: str) -> str:
    """Return the tags of a dataset on the Hub for a message."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        tags = [tag.name for tag in HfApi().list_repo_refs(repo, repo_type="dataset").tags]
    except (HfHubHTTPError, httpx2.HTTPError):
        return "not known"
    return ", ".join(tags) or "none"


def open_table(folder: Path, name: str, split: str = "train") -> Table | None:
    """Return a table of a selection folder; None if it has no such split.

    Raises:
        ConfigError: If the folder has no such table, or its columns are others.
        CorruptRunError: If a shard is missing, or is no Parquet file.
    """
    if not (folder / name).is_dir():
        raise ConfigError(
            f"--data {folder}: has no table {name}; {_nearby(folder, name)} `factory select RUN` writes it, if "
            "select.configs names it"
        )
    shards = [(match, path) for path in sorted((folder / name).iterdir()) if (match := _SHARD.fullmatch(path.name))]
    shards = [(match, path) for match, path in shards if match["split"] == split]
    if not shards:
        return None
    count = int(shards[0][0]["count"])
    if [int(match["index"]) for match, _ in shards] != list(range(count)):
        raise CorruptRunError(
            f"{folder / name}: has {len(shards)} shards of split {split}, their names say {count}; restore the others"
        )
    table = Table(name=name, files=tuple(path for _, path in shards))
    for path in table.files:
        _check_columns(path, name)
    return table


def _nearby(folder: Path, name: str) -> str:
    """Return where a table may be that a folder has not, or what it has."""
    inside = sorted(str(path) for path in folder.glob("tables/*") if path.is_dir())
    if inside:
        return f"did you mean {inside[0]}?"
    if (folder.parent / name).is_dir():
        return f"did you mean {folder.parent}?"
    there = dict.fromkeys(path.parent.name for path in sorted(folder.glob("*/*.parquet")))
    return f"it has: {', '.join(there) or 'no tables'}."


def _check_columns(path: Path, name: str) -> None:
    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise CorruptRunError(f"{path}: cannot be read as Parquet: {error}; put it back from a copy") from error
    missing = [column for column in _needed(name) if column not in found.names]
    if missing:
        raise ConfigError(
            f"{path}: has no column {', '.join(missing)}; a table {name} has {', '.join(_needed(name))}; it has "
            f"{', '.join(found.names)}"
        )
    for column in _needed(name):
        seen, wanted = found.field(column).type, SCHEMAS[name].field(column).type
        if not _reads_as(seen, wanted):
            raise ConfigError(f"{path}: column {column} is {seen}, must be {wanted}; write the table again")


def _reads_as(seen: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether values of a type become the same Python values as those of the schema: large or not, say."""
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(seen) or pa.types.is_large_string(seen))
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(seen) or pa.types.is_large_list(seen)
        return bool(is_list) and _reads_as(seen.value_type, wanted.value_type)
    names = [field.name for field in seen] if pa.types.is_struct(seen) else []
    return all(part.name in names and _reads_as(seen.field(part.name).type, part.type) for part in wanted)


def _needed(name: str) -> tuple[str, ...]:
    own = {"preference": ("pair_id", "problem_id", "prompt", "chosen", "rejected")}
    columns = own.get(name, ("trace_id", "problem_id", "prompt", "completion"))
    assert set(columns) <= set(SCHEMAS[name].names)
    return columns

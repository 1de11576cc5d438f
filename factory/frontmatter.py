"""The metadata of a dataset's card: YAML that the Hub and `load_dataset` read, written by their own libraries.

Invariant: whatever names a run holds, the YAML says what was put into it; names that the Hub would refuse are left to
the card's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

from factory.facts import Facts
from factory.visible import visible
from schemas.tables import SCHEMAS

DEFAULT_CONFIG: Final = "sft"
# What the Hub takes as `license`. Source: huggingface/hub-docs, docs/hub/repositories-licenses.md.
LICENSES: Final = frozenset(
    {
        *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigcode-openrail-m"),
        *("bigscience-bloom-rail-1.0", "openrail++", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause"),
        *("bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0"),
        *("cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
        *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "wtfpl"),
        *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0", "epl-1.0", "epl-2.0", "isc"),
        *("etalab-2.0", "eupl-1.1", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0"),
        *("lgpl-lr", "lppl-1.3c", "ms-pl", "mpl-2.0", "odc-by", "odbl", "osl-3.0", "postgresql", "ofl-1.1", "ncsa"),
        *("unlicense", "zlib", "pddl", "deepfloyd-if-license", "llama2", "gemma", "unknown"),
    }
)
SIZES: Final = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
TAGS: Final = ("reasoning", "chain-of-thought", "distillation", "synthetic")
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def front_matter(facts: Facts) -> str:
    """Return the YAML block with its marks and a line end."""
    data = {
        "pretty_name": visible(facts.run["name"]),
        "language": [code for code in sorted(facts.tally.languages) if _LANGUAGE.fullmatch(code)],
        **license_of(origin.license for origin in facts.tally.rows),
        "task_categories": ["text-generation"],
        "tags": [*TAGS, *(name for name in facts.tally.domains if _TAG.fullmatch(name))],
        "size_categories": [size_of(facts.rows_of(default_config(facts.selection)))],
        "annotations_creators": ["machine-generated"],
        "source_datasets": source_datasets(facts.config["sources"]),
        "configs": [_config(name, splits, facts) for name, splits in loadable(facts.selection).items()],
        "dataset_info": _infos(facts.selection),
    }
    return block({key: value for key, value in data.items() if value})


def block(data: Mapping[str, Any]) -> str:
    """Return a mapping as the YAML block at the top of a card."""
    return f"---\n{yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=1_000)}---\n"


def default_config(selection: Mapping[str, Any]) -> str:
    """Return the table that is loaded where none is named: ``sft``, or the first that has rows (`runs` always does)."""
    return DEFAULT_CONFIG if DEFAULT_CONFIG in loadable(selection) else next(iter(loadable(selection)))


def loadable(selection: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables that have rows, in the order of their definition, each with the splits that have some.

    `datasets` cannot load a split without rows, nor the other splits of a table that names one.
    """
    configs = selection["configs"]
    found = {
        name: {split: sizes for split, sizes in configs[name]["splits"].items() if sizes["rows"]}
        for name in SCHEMAS
        if name in configs
    }
    return {name: splits for name, splits in found.items() if splits}


def _config(name: str, splits: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
    is_default = name == default_config(facts.selection)
    return {"config_name": name, "data_files": files, **({"default": True} if is_default else {})}


def _infos(selection: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return features and sizes of each table: bytes to download are of files, those of a split as Arrow."""
    from datasets import DatasetInfo, Features
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    infos = DatasetInfosDict()
    for name, splits in loadable(selection).items():
        rows = [
            {"name": split, "num_bytes": sizes["text_bytes"], "num_examples": sizes["rows"]}
            for split, sizes in splits.items()
        ]
        infos[name] = DatasetInfo(
            features=Features.from_arrow_schema(SCHEMAS[name]),
            splits=rows,
            download_size=sum(sizes["num_bytes"] for sizes in splits.values()),
            dataset_size=sum(sizes["text_bytes"] for sizes in splits.values()),
        )
    card = DatasetCardData()
    infos.to_dataset_card_data(card)
    listed: list[dict[str, Any]] | dict[str, Any] = card["dataset_info"]  # of one table alone it is no list
    return listed if isinstance(listed, list) else [listed]


def license_of(names: Iterable[str]) -> dict[str, str]:
    """Return what the Hub takes for these licences: one that it knows, or ``other`` with a name."""
    ids = sorted({name.strip().lower().replace(" ", "-") for name in names})
    if not ids:
        return {"license": "unknown"}
    if len(ids) > 1:
        return {"license": "other", "license_name": "several-licenses"}
    if ids[0] in LICENSES:
        return {"license": ids[0]}
    slug = re.sub(r"[^a-z0-9.]+", "-", ids[0]).strip("-.")[:64]
    return {"license": "other", "license_name": slug or "unnamed"}


def size_of(num_rows: int) -> str:
    """Return the Hub's word for so many rows."""
    low = ""
    for place, high in enumerate(SIZES):
        if num_rows < 10 ** (place + 3):
            return f"{low}<n<{high}" if low else f"n<{high}"
        low = high
    return f"n>{SIZES[-1]}"


def source_datasets(sources: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the datasets that problems come from, where that is certain: a path alone may be a folder's."""
    found = set()
    for source in sources:
        if source["kind"] == "reasoning_gym":
            found.add("original")
        elif source["kind"] == "dataset" and source.get("revision") and _HUB_ID.fullmatch(source["path"]):
            found.add(source["path"])
    return sorted(found)

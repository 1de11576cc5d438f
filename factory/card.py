"""Stub of the dataset card, until the branch of the card is merged: it takes this file's place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from factory.storage import AnyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """README.md, and its figures by their names (``figures/….png``)."""

    readme: str
    figures: Mapping[str, bytes] = field(default_factory=dict)


def build_card(path: AnyPath, selection: str, *, repo: str | None = None) -> Card:
    """Return a card that makes the tables load."""
    manifest = json.loads((path / "tables" / selection / "manifest.json").read_text(encoding="utf-8"))
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in body["splits"]],
            **({"default": True} if name == "sft" else {}),
        }
        for name, body in manifest["configs"].items()
    ]
    front = yaml.safe_dump({"license": "other", "configs": configs}, sort_keys=False)
    return Card(readme=f"---\n{front}---\n\n# {repo or selection}\n", figures={"figures/a.png": b"\x89PNG stub"})

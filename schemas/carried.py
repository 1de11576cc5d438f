"""Records that go between processes by the thousand, pickled quickly.

Python asks a frozen dataclass with slots for its fields whenever one is pickled, and again whenever one is read: with a
thousand engines that took much of the coordinator's time.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def carried(cls: type[Record]) -> type[Record]:
    """Have a frozen dataclass with slots give and take the values of its fields in their order, by names found once."""
    names = tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # a dataclass by its decorator

    def getstate(self: Record) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in names])

    def setstate(self: Record, state: tuple[Any, ...]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    cls.__getstate__ = getstate  # type: ignore[method-assign,assignment]
    cls.__setstate__ = setstate  # type: ignore[attr-defined]
    return cls

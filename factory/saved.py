"""What is saved of attempts that go on: which frames of the journal, and which segments are needed for them.

Kept by the coordinator. Plain code on places, never tokens: the engine that goes on reads them itself. Invariant: the
pieces of a chain are one engine's and follow each other from offset 0, so what they amount to was never put together
from two attempts at the same tokens. Of several engines' chains the longest counts; a shorter one is forgotten once
another has overtaken it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from factory.dispatch import Key
from factory.journal import Piece, Position


class Chain(NamedTuple):
    """What one engine saved of an attempt."""

    positions: tuple[Position, ...]
    num_tokens: int


NOTHING: Final = Chain((), 0)


@dataclass(slots=True)
class SavedAttempts:
    """The chains of all attempts that have not ended. Not thread-safe."""

    _chains: dict[Key, dict[str, Chain]] = field(default_factory=dict)  # by engine
    _uses: Counter[str] = field(default_factory=Counter)  # pieces of chains by segment

    def add(self, key: Key, engine_id: str, piece: Piece) -> bool:
        """Take note of a piece; return whether more is saved of the attempt now than ever before.

        A piece that is known, or does not go on from the engine's last, is ignored. One at offset 0 begins anew: the
        engine was given the attempt another time.
        """
        chains = self._chains.get(key, {})
        old = chains.get(engine_id, NOTHING)
        if piece.position in old.positions or piece.offset not in (0, old.num_tokens):
            return False
        most = max(other.num_tokens for other in (NOTHING, *chains.values()))
        kept = old.positions if piece.offset else ()
        self._release(old.positions[len(kept) :])
        self._uses[piece.position.file] += 1
        chain = Chain((*kept, piece.position), piece.offset + piece.num_tokens)
        others = {name: other for name, other in chains.items() if name != engine_id}
        if all(chain.num_tokens >= other.num_tokens for other in others.values()):
            for other in others.values():
                self._release(other.positions)
            others = {}
        self._chains[key] = others | {engine_id: chain}
        return chain.num_tokens > most

    def drop(self, key: Key) -> None:
        """Forget an attempt: it has ended, or begins anew."""
        for chain in self._chains.pop(key, {}).values():
            self._release(chain.positions)

    def positions(self, key: Key) -> tuple[Position, ...]:
        """Return the frames from which an attempt goes on; none where it begins."""
        chains = self._chains.get(key, {}).values()
        return max(chains, key=lambda chain: chain.num_tokens, default=NOTHING).positions

    def num_tokens(self, key: Key) -> int:
        """Return how many tokens an attempt has to go on from."""
        return max((chain.num_tokens for chain in self._chains.get(key, {}).values()), default=0)

    def keys(self) -> Iterator[Key]:
        """Yield the attempts that have something to go on from."""
        yield from self._chains

    def needs(self, segment: str) -> bool:
        """True while a segment holds what an attempt may go on from."""
        return self._uses[segment] > 0

    def _release(self, positions: Iterable[Position]) -> None:
        for position in positions:
            self._uses[position.file] -= 1
            if not self._uses[position.file]:
                del self._uses[position.file]

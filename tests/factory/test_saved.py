"""What is saved of attempts in flight: only whole chains of one engine are given, and no segment goes too early."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from factory.dispatch import Key
from factory.journal import Piece, Position
from factory.saved import SavedAttempts

KEYS = [Key(0, 0), Key(0, 1), Key(1, 0)]


def _piece(engine: str, segment: int, place: int, offset: int, num_tokens: int) -> Piece:
    return Piece("p", 0, Position(f"{engine}-{segment:06d}.seg", place), offset, num_tokens)


@st.composite
def _journals(draw: st.DrawFn, *, refuses: bool = True) -> list[tuple[Key, str, Piece]]:
    """Return pieces as engines write them, each its own in order; an attempt that one refuses it may begin anew."""
    pieces: list[tuple[Key, str, Piece]] = []
    lengths: Counter[tuple[Key, str]] = Counter()
    for place in range(draw(st.integers(0, 24))):
        key, engine = draw(st.sampled_from(KEYS)), draw(st.sampled_from(["e1", "e2", "e3"]))
        offset = 0 if refuses and draw(st.integers(0, 7)) == 0 else lengths[key, engine]
        num_tokens = draw(st.integers(1, 9))
        lengths[key, engine] = offset + num_tokens
        pieces.append((key, engine, _piece(engine, place // 5, place, offset, num_tokens)))
    return pieces


def _is_chain(positions: tuple[Position, ...], by_position: dict[Position, Piece]) -> bool:
    pieces = [by_position[position] for position in positions]
    ends = [piece.offset + piece.num_tokens for piece in pieces]
    starts = [piece.offset for piece in pieces]
    return starts == [0, *ends[:-1]] if pieces else True


@given(_journals())
def test_what_is_given_is_one_engines_chain_and_its_segments_are_needed(
    journal: list[tuple[Key, str, Piece]],
) -> None:
    saved = SavedAttempts()
    by_position = {piece.position: piece for _, _, piece in journal}
    for key, engine, piece in journal:
        saved.add(key, engine, piece)
        saved.add(key, engine, piece)  # reported, and read again after a death
        for other in KEYS:
            positions = saved.positions(other)
            assert _is_chain(positions, by_position)
            assert len({position.file.partition("-")[0] for position in positions}) <= 1
            assert all(saved.needs(position.file) for position in positions)
    for key in KEYS:
        saved.drop(key)
        assert saved.positions(key) == ()
    assert not any(saved.needs(piece.position.file) for _, _, piece in journal)


@given(_journals(refuses=False))
def test_an_engine_that_goes_on_never_gets_less_than_the_longest_chain_there_is(
    journal: list[tuple[Key, str, Piece]],
) -> None:
    saved = SavedAttempts()
    lengths: dict[tuple[Key, str], int] = {}
    by_position = {piece.position: piece for _, _, piece in journal}
    for engine in ("e1", "e2", "e3"):  # as a start reads what a kill left behind: one engine after the other
        for key, name, piece in journal:
            if name == engine:
                saved.add(key, engine, piece)
                lengths[key, engine] = piece.offset + piece.num_tokens
    for key in KEYS:
        given_tokens = sum(by_position[position].num_tokens for position in saved.positions(key))
        assert given_tokens == max((length for (other, _), length in lengths.items() if other == key), default=0)


def test_a_piece_behind_a_gap_is_ignored_and_a_segment_without_use_may_go() -> None:
    saved = SavedAttempts()
    saved.add(KEYS[0], "e1", _piece("e1", 1, 0, 0, 4))
    saved.add(KEYS[0], "e1", _piece("e1", 2, 0, 5, 4))
    assert saved.positions(KEYS[0]) == (Position("e1-000001.seg", 0),)
    assert not saved.needs("e1-000002.seg")
    saved.add(KEYS[0], "e2", _piece("e2", 1, 0, 0, 6))  # the next engine has overtaken it
    assert not saved.needs("e1-000001.seg")
    assert saved.positions(KEYS[0]) == (Position("e2-000001.seg", 0),)

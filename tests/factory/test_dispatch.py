"""Dispatch: whatever engines do, every attempt is in one place, ends once, and all end."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factory.dispatch import MAX_SUSPECTS, SUSPECT_DEATHS, Dispatch, FailReason, Key
from factory.order import LongFirst

MAX_DEATHS = 3
MAX_ERRORS = 2
NUM_ENGINES = 3


class Engines(RuleBasedStateMachine):
    """Engines that lease, finish, refuse and die at random; a model beside it knows where every attempt has to be."""

    @initialize(
        num_problems=st.integers(0, 30),
        num_samples=st.integers(1, 3),
        num_had_turn=st.integers(0, 9),
        max_tail=st.none() | st.sampled_from([1, 4, 99]),
        missing=st.sets(st.integers(0, 89), max_size=30),
    )
    def start(
        self, num_problems: int, num_samples: int, num_had_turn: int, max_tail: int | None, missing: set[int]
    ) -> None:
        keys = [Key(place, index) for place in range(num_problems) for index in range(num_samples)]
        self.keys = [key for number, key in enumerate(keys) if number not in missing]
        self.order = None if max_tail is None else LongFirst(self.keys, max_tail)
        self.dispatch = Dispatch(self.order or self.keys, max_deaths=MAX_DEATHS, max_errors=MAX_ERRORS)
        self.dispatch.had_turn(self.keys[1 : num_had_turn + 1])
        self.engines: dict[str, set[Key]] = {f"e{number}": set() for number in range(NUM_ENGINES)}
        self.dead: dict[str, set[Key]] = {}  # what each had in flight when it died
        self.ended: set[Key] = set()
        self.given: set[Key] = set()
        self.deaths: Counter[Key] = Counter()  # that count towards being a suspect
        self.under: Counter[Key] = Counter()  # all engines that died while they held it
        self.refusals: Counter[Key] = Counter()
        self.blamed: set[int] = set()  # problems
        self.incarnations = NUM_ENGINES

    def _leased(self) -> set[Key]:
        return set().union(*self.engines.values())

    def _suspects(self, keys: set[Key]) -> set[Key]:
        return {key for key in keys if self.deaths[key] >= SUSPECT_DEATHS}

    def _lease(self, engine_id: str, capacity: int) -> list[Key]:
        before = self._leased()
        keys = self.dispatch.lease(engine_id, capacity)
        assert len(keys) == len(set(keys)) <= max(0, capacity)
        assert not set(keys) & (before | self.ended), "leased twice, or again after its end"
        self.engines[engine_id] |= set(keys)
        self.given |= set(keys)
        assert len(self._suspects(self.engines[engine_id])) <= MAX_SUSPECTS
        return keys

    def _end(self, keys: set[Key], *, num_tokens: int | None = None) -> None:
        assert not keys & self.ended, "ended twice"
        self.ended |= keys
        for key in sorted(keys) if self.order is not None else ():
            if num_tokens is None:
                self.order.ended(key)
            else:
                self.order.made(key, num_tokens)
        for held in self.engines.values():
            held -= keys

    @rule(number=st.integers(0, NUM_ENGINES - 1), capacity=st.integers(0, 12))
    def lease(self, number: int, capacity: int) -> None:
        self._lease(sorted(self.engines)[number], capacity)

    @rule(number=st.integers(0, NUM_ENGINES - 1), data=st.data(), num_tokens=st.integers(0, 9))
    def finish(self, number: int, data: st.DataObject, num_tokens: int) -> None:
        engine_id = sorted(self.engines)[number]
        if not self.keys:
            return
        # Its own attempts, mostly; but also those of others, and those that have ended.
        own = sorted(self.engines[engine_id])
        keys = data.draw(st.lists(st.sampled_from(own or self.keys) | st.sampled_from(self.keys), max_size=6))
        ended = self.dispatch.finish(engine_id, keys)
        assert len(ended) == len(set(ended)), "one report ends an attempt twice"
        assert set(ended) == set(keys) & self.engines[engine_id]
        self._end(set(ended), num_tokens=num_tokens)

    @rule(
        number=st.integers(0, NUM_ENGINES - 1),
        data=st.data(),
        reason=st.sampled_from([FailReason.ENGINE_ERROR, FailReason.ENGINE_ERROR, FailReason.NOT_RECORDED]),
    )
    def refuse(self, number: int, data: st.DataObject, reason: FailReason) -> None:
        engine_id = sorted(self.engines)[number]
        if not self.keys:
            return
        own = sorted(self.engines[engine_id])
        key = data.draw(st.sampled_from(own or self.keys) | st.sampled_from(self.keys))
        is_own = key in self.engines[engine_id]
        failure = self.dispatch.refuse(engine_id, key, reason, "no")
        if not is_own:
            assert failure is None
            return
        self.refusals[key] += 1
        self.engines[engine_id].discard(key)
        if self.refusals[key] == MAX_ERRORS or reason is FailReason.NOT_RECORDED:
            assert failure is not None
            assert (failure.key, failure.reason) == (key, reason)
            self._end({key})
        else:
            assert failure is None

    def _replace(self, engine_id: str) -> None:
        self.dead[engine_id] = self.engines.pop(engine_id)
        self.incarnations += 1
        self.engines[f"e{self.incarnations}"] = set()

    @rule(number=st.integers(0, NUM_ENGINES - 1), data=st.data(), is_cancelled=st.booleans())
    def cut_or_cancel(self, number: int, data: st.DataObject, is_cancelled: bool) -> None:
        engine_id = sorted(self.engines)[number]
        if not self.keys:
            return
        own = sorted(self.engines[engine_id])
        key = data.draw(st.sampled_from(own or self.keys) | st.sampled_from(self.keys))
        if is_cancelled and key in own:
            self.dispatch.cancel(engine_id, key)
            self._end({key})
        elif not is_cancelled:
            self.dispatch.cut(engine_id, key)
            self.engines[engine_id].discard(key)

    def _die(self, engine_id: str) -> None:
        held = self.engines[engine_id]
        suspects = self._suspects(held)
        failures = self.dispatch.engine_died(engine_id)
        failed = {failure.key for failure in failures}
        assert all(failure.reason is FailReason.ENGINE_DIED for failure in failures)
        if known := {key for key in held if key.problem in self.blamed}:
            assert failed == known, "what is known to kill engines is to blame, and nothing else"
        else:
            for key in held:
                self.deaths[key] += key not in suspects or len(suspects) == 1  # among several nobody is blamed
                self.under[key] += 1
        if failed and not known:
            culprit = failures[0].key
            assert held == {culprit}, "blamed, though it was not alone"
            assert self.under[culprit] >= MAX_DEATHS
            self.blamed.add(culprit.problem)
            elsewhere = self._leased() - held
            siblings = {key for key in self.keys if key.problem == culprit.problem} - elsewhere - self.ended
            assert siblings & self.given <= failed <= siblings, "all that are queued have the same prompt, and no other"
        self._replace(engine_id)
        self.dead[engine_id] = set(held)
        self._end(failed)

    @rule(number=st.integers(0, NUM_ENGINES - 1), data=st.data())
    def advance(self, number: int, data: st.DataObject) -> None:
        engine_id = sorted(self.engines)[number]
        if own := sorted(self.engines[engine_id]):
            key = data.draw(st.sampled_from(own))
            self.dispatch.advance(engine_id, key)
            assert self.dispatch.has_progressed(engine_id)
            self.deaths[key] = self.under[key] = 0

    @rule(number=st.integers(0, NUM_ENGINES - 1))
    def leave(self, number: int) -> None:
        engine_id = sorted(self.engines)[number]
        self.dispatch.engine_left(engine_id)
        self._replace(engine_id)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Nobody needs an attempt that was given out: who has it is told, or it ends at once."""
        known = sorted(self.given - self.ended)
        if not known:
            return
        key = data.draw(st.sampled_from(known))
        holder = next((engine_id for engine_id, held in self.engines.items() if key in held), None)
        assert self.dispatch.give_up(key) == holder
        if holder is None:
            self._end({key})

    @rule(number=st.integers(0, NUM_ENGINES - 1), data=st.data())
    def take_back(self, number: int, data: st.DataObject) -> None:
        engine_id = sorted(self.engines)[number]
        if self.keys:
            key = data.draw(st.sampled_from(sorted(self.engines[engine_id]) or self.keys))
            self.dispatch.take_back(engine_id, key)
            self.engines[engine_id].discard(key)

    @rule(number=st.integers(0, NUM_ENGINES - 1))
    def die(self, number: int) -> None:
        self._die(sorted(self.engines)[number])

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), capacity=st.integers(0, 8))
    def late_report(self, data: st.DataObject, capacity: int) -> None:
        engine_id = data.draw(st.sampled_from(sorted(self.dead)))
        held = sorted(self.dead[engine_id])
        assert self.dispatch.is_dead(engine_id)
        assert self.dispatch.finish(engine_id, held) == []
        assert all(self.dispatch.refuse(engine_id, key, FailReason.ENGINE_ERROR, "late") is None for key in held)
        assert self.dispatch.lease(engine_id, capacity) == [], "work for the dead never comes back"
        assert self.dispatch.engine_died(engine_id) == []

    @invariant()
    def every_attempt_is_in_one_place(self) -> None:
        leased = self._leased()
        assert self.dispatch.num_leased == len(leased)
        assert self.dispatch.num_queued == len(self.keys) - len(leased) - len(self.ended)
        assert self.dispatch.is_done == (len(self.ended) == len(self.keys))
        for engine_id, held in self.engines.items():
            assert self.dispatch.has_leases(engine_id) == bool(held)

    def teardown(self) -> None:
        """Whatever happened before, engines that only finish what they lease end every attempt."""
        if not hasattr(self, "dispatch"):
            return
        for _ in range(10 * len(self.keys) + 10):
            if self.dispatch.is_done:
                break
            for engine_id, held in self.engines.items():
                self._lease(engine_id, 4)
                self._end(set(self.dispatch.finish(engine_id, sorted(held))))
        assert self.dispatch.is_done


TestEngines = Engines.TestCase
TestEngines.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 8]), st.integers(0, 60), st.sampled_from([8, 64, 256]))
@settings(max_examples=60)
def test_a_prompt_that_kills_engines_at_once_fails_before_its_engine_has_died_seven_times_in_a_row(
    num_samples: int, num_engines: int, killer: int, capacity: int
) -> None:
    """As at the defaults: ``max_deaths_per_attempt`` 3, ``max_engine_restarts`` 6. Other attempts take many turns."""
    keys = [Key(place, index) for place in range(64) for index in range(num_samples)]
    dispatch = Dispatch(keys, max_deaths=3)
    engines = {slot: (f"{slot}-0", dict[Key, int]()) for slot in range(num_engines)}
    in_a_row: Counter[int] = Counter()
    failed: list[Key] = []
    for turn in range(1, 20_000):
        if dispatch.is_done:
            break
        for slot, (engine_id, held) in engines.items():
            for key in dispatch.lease(engine_id, capacity - len(held)):
                if dispatch.is_blamed(key):
                    failure = dispatch.refuse(engine_id, key, FailReason.ENGINE_DIED, "as the coordinator does")
                    assert failure is not None
                    failed.append(failure.key)
                else:
                    held[key] = turn + 20
            if any(key.problem == killer for key in held):
                has_progressed = dispatch.has_progressed(engine_id)
                failures = dispatch.engine_died(engine_id)
                failed += [failure.key for failure in failures]
                in_a_row[slot] = 1 if has_progressed or failures else in_a_row[slot] + 1
                assert in_a_row[slot] <= 6, "the whole run would end"
                engines[slot] = (f"{slot}-{turn}", {})
            else:
                done = [key for key, end in held.items() if end <= turn]
                dispatch.finish(engine_id, done)
                for key in done:
                    del held[key]
    assert dispatch.is_done
    assert sorted(failed) == [key for key in keys if key.problem == killer], "its prompt, and no other attempt"


@given(st.lists(st.integers(0, 199), unique=True, min_size=1, max_size=4), st.integers(1, 3), st.integers(4, 40))
def test_prompts_that_kill_engines_fail_and_take_no_innocent_attempt_with_them(
    places: list[int], num_engines: int, capacity: int
) -> None:
    keys = [Key(place, 0) for place in range(200)]
    killers = {Key(place, 0) for place in places}
    dispatch = Dispatch(keys, max_deaths=MAX_DEATHS)
    engines: dict[int, tuple[str, set[Key]]] = {slot: (f"{slot}-0", set()) for slot in range(num_engines)}
    failed: list[Key] = []
    for turn in range(1, 5_000):
        if dispatch.is_done:
            break
        for slot, (engine_id, held) in engines.items():
            held |= set(dispatch.lease(engine_id, capacity - len(held)))
            if held & killers:
                failed += [failure.key for failure in dispatch.engine_died(engine_id)]
                engines[slot] = (f"{slot}-{turn}", set())
            else:
                done = set(sorted(held)[: capacity // 2])
                dispatch.finish(engine_id, sorted(done))
                held -= done
    assert dispatch.is_done
    assert sorted(failed) == sorted(killers)


def test_attempts_of_a_dead_engine_come_back_first_and_in_their_order() -> None:
    keys = [Key(place, 0) for place in range(6)]
    dispatch = Dispatch(keys, max_deaths=MAX_DEATHS)
    assert dispatch.lease("a", 3) == keys[:3]
    assert dispatch.engine_died("a") == []
    assert dispatch.lease("b", 6) == keys


def test_what_was_in_flight_at_a_death_goes_first_and_what_was_refused_last() -> None:
    keys = [Key(place, 0) for place in range(6)]
    dispatch = Dispatch(keys, max_deaths=MAX_DEATHS, max_errors=MAX_ERRORS)
    assert dispatch.lease("a", 2) == keys[:2]
    assert dispatch.refuse("a", keys[0], FailReason.ENGINE_ERROR, "no") is None
    assert dispatch.engine_died("a") == []
    assert dispatch.num_queued == 6
    assert dispatch.lease("b", 9) == [keys[1], *keys[2:], keys[0]]


def test_what_had_its_turn_goes_on_behind_the_fresh_and_before_the_refused() -> None:
    keys = [Key(place, 0) for place in range(6)]
    dispatch = Dispatch(keys, max_deaths=MAX_DEATHS, max_errors=MAX_ERRORS)
    dispatch.had_turn([keys[0]])
    assert dispatch.lease("a", 2) == keys[1:3]
    dispatch.cut("a", keys[1])
    assert dispatch.refuse("a", keys[2], FailReason.ENGINE_ERROR, "no") is None
    assert dispatch.num_queued == 6
    assert dispatch.lease("b", 9) == [*keys[3:], keys[0], keys[1], keys[2]]


@pytest.mark.parametrize("max_deaths", [3, 4, 6])
def test_an_attempt_fails_after_as_many_deaths_as_allowed(max_deaths: int) -> None:
    dispatch = Dispatch([Key(0, 0)], max_deaths=max_deaths)
    for death in range(1, max_deaths + 1):
        assert dispatch.lease(f"e{death}", 1) == [Key(0, 0)]
        failures = dispatch.engine_died(f"e{death}")
        assert [failure.key for failure in failures] == ([Key(0, 0)] if death == max_deaths else [])
    assert dispatch.is_done

"""What was learned of an object lives as long as the object, and as it is built."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cfcam_core import remembered as module
from cfcam_core.remembered import MOST, Parts, remembered


class Thing:
    """Has parts, and is equal to nothing."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("things are not compared")


class Asked:
    """Counts how often something has to be found out."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        return self.times


def test_it_is_found_out_once() -> None:
    thing, other, ask = Thing(), Thing(), Asked()
    assert [remembered(thing, Parts([]), "a", ask) for _ in range(3)] == [1, 1, 1]
    assert remembered(thing, Parts([]), "b", ask) == 2
    assert remembered(other, Parts([]), "a", ask) == 3
    assert remembered(thing, Parts([]), "a", ask) == 1


@pytest.mark.parametrize("nothing", [None, False, 0])
def test_nothing_is_a_fact_too(nothing: Any) -> None:
    thing, told = Thing(), iter([nothing])
    found = [remembered(thing, Parts([]), "a", lambda: next(told)) for _ in range(2)]
    assert found == [nothing, nothing]


def test_other_parts_or_another_order_are_another_thing() -> None:
    one, two, three = Thing(), Thing(), Thing()
    thing, ask = Thing(one, two), Asked()

    def now(how: Any = None) -> Any:
        return remembered(thing, Parts(thing.parts, how), "a", ask)

    assert [now(), now()] == [1, 1]
    for number, parts in enumerate([(two, one), (two,), (two, three), (three, two)], 2):
        thing.parts = parts
        assert [now(), now()] == [number, number]
    assert [now(["x"]), now(["x"]), now(["y"])] == [6, 6, 7]
    thing.parts = (one, two)
    assert now() == 8, "what was known of it before is forgotten"


def test_parts_that_died_fit_nothing() -> None:
    first = Parts([Thing()])
    gc.collect()
    assert not first.fits(Parts([Thing()]))
    assert not first.fits(first)


def test_parts_without_weak_references_count_by_their_type() -> None:
    assert Parts([None, 3]).fits(Parts([None, 4]))
    assert not Parts([None]).fits(Parts([3]))
    assert not Parts([None, 3]).fits(Parts([None]))


def test_what_was_not_asked_for_longest_goes_first() -> None:
    thing, ask = Thing(), Asked()

    def of(key: int) -> Any:
        return remembered(thing, Parts([]), key, ask)

    for key in range(MOST):
        of(key)
    of(0)
    of(MOST)
    assert ask.times == MOST + 1
    of(0)
    assert ask.times == MOST + 1
    of(1)
    assert ask.times == MOST + 2


def test_nothing_is_kept_alive() -> None:
    before = len(module._known)
    thing, part = Thing(), Thing()
    watched = weakref.ref(thing), weakref.ref(part)
    remembered(thing, Parts([part]), "a", Asked())
    assert len(module._known) == before + 1
    del thing, part
    gc.collect()
    assert [one() for one in watched] == [None, None]
    assert len(module._known) == before


def test_an_object_in_the_place_of_a_dead_one() -> None:
    """Numbers of objects are used again."""
    ask = Asked()
    for number in range(1, 100):
        assert remembered(Thing(), Parts([]), "a", ask) == number


def test_of_what_has_no_weak_references_nothing_is_remembered() -> None:
    ask = Asked()
    assert [remembered(7, Parts([]), "a", ask) for _ in range(2)] == [1, 2]


def test_what_fails_is_tried_again() -> None:
    thing = Thing()

    def fails() -> None:
        raise ValueError("not today")

    for _ in range(2):
        with pytest.raises(ValueError, match="not today"):
            remembered(thing, Parts([]), "a", fails)
    assert remembered(thing, Parts([]), "a", lambda: 5) == 5


def test_many_threads() -> None:
    things = [Thing() for _ in range(4)]

    def ask(number: int) -> Any:
        thing, key = things[number % 4], number % 7
        return remembered(thing, Parts([thing]), key, lambda: (number % 4, key))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(2000)))
    assert found == [(number % 4, number % 7) for number in range(2000)]

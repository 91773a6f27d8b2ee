"""What is made once and kept in memory, the last used first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cfcam_onnx._kept import Kept
from whole_models import images, opened


def test_a_value_is_made_once_for_all_threads() -> None:
    made: list[str] = []
    kept = Kept(lambda key: made.append(key) or [key], most=4)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(kept, "ab" * 40))
    assert sorted(made) == ["a", "b"]
    assert all(value is values[i % 2] for i, value in enumerate(values))


def test_who_wants_another_value_does_not_wait() -> None:
    begun, released = threading.Event(), threading.Event()

    def make(key: str) -> str:
        if key == "slow":
            begun.set()
            assert released.wait(60)
        return key

    kept = Kept(make, most=4)
    with ThreadPoolExecutor(2) as pool:
        slow, same = pool.submit(kept, "slow"), pool.submit(kept, "slow")
        assert begun.wait(60)
        assert kept("quick") == "quick"
        assert not slow.done()
        assert not same.done()
        released.set()
        assert slow.result() == same.result() == "slow"


def test_the_last_used_are_kept() -> None:
    made: list[int] = []
    kept = Kept(lambda key: made.append(key) or key, most=2)
    for key in (1, 2, 1, 3, 1, 2):
        kept(key)
    assert made == [1, 2, 3, 2]


def test_what_failed_is_tried_again() -> None:
    failing = [True]

    def make(key: str) -> str:
        if failing:
            failing.clear()
            raise ValueError(key)
        return key

    kept = Kept(make, most=2)
    with pytest.raises(ValueError, match="a"):
        kept("a")
    assert kept("a") == "a"


def test_sessions_share_their_weights(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cfcam_onnx import _session

    given: list[Any] = []
    real = _session.Session.__init__

    def init(self: Any, model: Any, weights: Any, **how: Any) -> None:
        given.append(weights)
        real(self, model, weights, **how)

    monkeypatch.setattr(_session.Session, "__init__", init)
    backend = opened(small(), cache=False)
    backend.scores(images())
    backend.capture(images(), layer="stem")
    backend.capture(images(), layer="stem")
    backend.capture(images(), layer="last")
    assert len(given) == 3
    assert all(weights is given[0] for weights in given)

"""How the benchmarks time a call, and calls against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


def milliseconds(call: Callable[[], object], least: float = 0.05) -> float:
    """Time a call: the mean of as many as fill `least` seconds, after one that is not counted."""
    call()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < least:
        call()
        count += 1
    return 1e3 * (time.perf_counter() - start) / count


@dataclass(frozen=True, slots=True)
class Against:
    """A call's time, and what it is as a share of the first call's in the same round."""

    ms: float
    """Median of all rounds."""
    ratio: float
    """Median of the rounds' ratios: rounds are short, so both calls met the same machine."""
    low: float
    high: float
    """Between these lies the middle half of the rounds' ratios."""


def taking_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    least: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Against]:
    """Time each call once a round, and set it against the first call of that round.

    A call that takes less than `least` seconds is repeated in its turn until they are over. With
    ``clock=time.process_time`` what others do on the machine counts little.
    """
    counts = {}
    for name, call in calls.items():
        once = milliseconds(call, 0)
        counts[name] = max(1, round(1e3 * least / once))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(counts[name]):
                call()
            times[name].append(1e3 * (clock() - start) / counts[name])
    base = np.array(next(iter(times.values())))
    return {name: _against(np.array(each), base) for name, each in times.items()}


def _against(times: np.ndarray, base: np.ndarray) -> Against:
    low, middle, high = np.quantile(times / base, [0.25, 0.5, 0.75])
    return Against(float(np.median(times)), float(middle), float(low), float(high))

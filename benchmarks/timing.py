"""How the benchmarks time a call."""

from __future__ import annotations

import time
from collections.abc import Callable


def milliseconds(call: Callable[[], object], least: float = 0.05) -> float:
    """Time a call: the mean of as many as fill `least` seconds, after one that is not counted."""
    call()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < least:
        call()
        count += 1
    return 1e3 * (time.perf_counter() - start) / count

"""Whether all that a model knows of a picture has gone through a layer: as seen, and by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.layers import is_bottleneck
from cfcam_tensorflow._cuts import Cuts, find_cuts
from cfcam_tensorflow._observing import Call
from cfcam_tensorflow._outputs import choose
from cfcam_tensorflow._probing import Probe
from cfcam_tensorflow._seen import Seen


class Paths:
    """The paths from one input through a model.

    Parameters
    ----------
    probe : Probe
    own, other : sequence of tensor
        One sample, and the same with something else for one input.
    seen : mapping of str to Seen
        All layers, by path.
    influences : mapping of str to ndarray or None
        See `Probe.influences`; layers that the scores do not depend on lead nowhere.
    """

    def __init__(
        self,
        probe: Probe,
        own: Sequence[Any],
        other: Sequence[Any],
        seen: Mapping[str, Seen],
        influences: Mapping[str, NDArray[Any] | None],
    ) -> None:
        self._probe, self._own, self._other = probe, own, other
        self._seen, self._influences = seen, influences

    def are_cut(self, one: Seen) -> bool:
        """Return whether all of them run through a layer."""
        if not self._cuts.may_cut(one.ended):
            return False
        return self._cuts.is_complete or self._is_bottleneck(one)

    @cached_property
    def _cuts(self) -> Cuts:
        array = self._probe.runner.engine.array
        calls, raw = self._probe.observe(self._own)
        twins = {(one.path, one.number): one.main for one in self._probe.observe(self._other)[0]}

        def varies(call: Call) -> bool:
            twin = twins.get((call.path, call.number))
            if twin is None or call.main is None or twin.shape != call.main.shape:
                return True
            return not np.array_equal(array(twin), array(call.main))

        def matters(call: Call) -> bool:
            seen = self._seen.get(call.path)
            if seen is None or not seen.is_first or call.number != seen.calls - 1:
                return True
            return self._influences[call.path] is not None

        ending = self._probe.ending
        return find_cuts(
            calls,
            self._own,
            [x for x, y in zip(self._own, self._other, strict=True) if x is not y],
            choose(raw, ending.output, ending.names),
            varies=varies,
            matters=matters,
        )

    @cached_property
    def _scores(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._probe.scores(self._own), self._probe.scores(self._other)

    def _is_bottleneck(self, one: Seen) -> bool:
        value = self._probe.output(self._other, one)
        if value is None or tuple(value.shape) != one.shape:
            return False
        runner = self._probe.runner
        around = runner.replacing(one.calls - 1, lambda _: value)
        swapped = self._probe.scores(self._own, {runner.names.operations[one.path]: around})
        return is_bottleneck(swapped, *self._scores)

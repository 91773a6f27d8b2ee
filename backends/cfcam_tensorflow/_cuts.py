"""Through which tensors all that a model knows of its input has gone: from the calls of a run.

A layer is passed by where another tensor, made before it from the input, is read after it by a
layer that the scores depend on. Where every tensor that a layer reads was made by a layer, that
tells all; where a model of the user's own computes something between its layers, what is left is
tried (`cfcam_core.layers.is_bottleneck`). Truth values are no path: masks say what to leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cfcam_tensorflow._observing import Call
from cfcam_tensorflow._outputs import is_mask


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A tensor that one call made and another read."""

    made: int
    read: int


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """What a run tells of where its paths run together."""

    readings: Sequence[Reading]
    is_complete: bool
    """Whether layers read and return only what layers have made."""

    def may_cut(self, ended: int) -> bool:
        """Return whether nothing is seen to go past the tensor that was made at this time."""
        return not any(one.made < ended < one.read for one in self.readings)


def find_cuts(
    calls: Sequence[Call],
    inputs: Sequence[Any],
    changed: Sequence[Any],
    result: Any,
    *,
    varies: Callable[[Call], bool],
    matters: Callable[[Call], bool],
) -> Cuts:
    """Return who read what when.

    Parameters
    ----------
    calls : sequence of Call
        Of one run, in the order in which they ended.
    inputs, changed : sequence of tensor
        The model's, and those of them from which the paths start.
    result : tensor
        The output that is explained.
    varies : callable
        Whether what a call made depends on the input.
    matters : callable
        Whether the scores depend on what a call made.
    """
    own, starts = {id(x) for x in inputs}, {id(x) for x in changed}
    makers: dict[int, Call] = {}
    is_complete = True
    for one in sorted(calls, key=lambda one: one.ended):
        fresh = [id(x) for x in one.outputs if id(x) not in makers and id(x) not in own]
        is_complete &= not (one.inner and fresh)  # else what is inside has made them
        makers |= dict.fromkeys(fresh, one)
    readings = []
    for one in calls:
        for key in {id(x) for x in one.inputs if not is_mask(x)} - own:
            maker = makers.get(key)
            if maker is None or maker.ended > one.started:  # the model made it itself
                is_complete = False
            elif matters(one) and varies(maker):
                readings.append(Reading(maker.ended, one.started))
        if matters(one) and starts & {id(x) for x in one.inputs}:
            readings.append(Reading(-1, one.started))
    return Cuts(readings, is_complete and (id(result) in makers or id(result) in own))

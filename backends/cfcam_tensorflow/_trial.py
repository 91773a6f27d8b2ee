"""What a few runs on one sample show of a model: its maps, its logits, where all paths meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Layer
from cfcam_core.layers import find_default
from cfcam_core.layout import Layout
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._learned import Learn
from cfcam_tensorflow._observing import Call
from cfcam_tensorflow._outputs import as_scores, choose, described, is_mask
from cfcam_tensorflow._paths import Paths
from cfcam_tensorflow._probing import Ending, Probe
from cfcam_tensorflow._running import Runner
from cfcam_tensorflow._seen import Seen, channel_axis, seen_layers


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a first run has shown of a model: names and numbers, no layer and no tensor."""

    seen: Mapping[str, Seen]
    """All layers that were called, by path, in the order of execution."""
    inputs: tuple[Layout | None, ...]
    """Where each input has its channels; None of one that is no picture or signal."""
    picture: int | None
    """Number of the first that is one."""
    ending: Ending
    """Which output is explained, and what its activation is."""
    classes: int | None
    """Number of classes K; None if the output is no classifier's."""
    returned: str
    """Shapes of all outputs, for people."""
    left_out: tuple[float, ...]
    """Values of an input that are masked."""

    def input_layout(self, place: int, name: str) -> Layout | None:
        """Return where an input has its channels; None if it is no picture or signal."""
        layout = self.inputs[place]
        return None if layout is None else replace(layout, name=name)


class Trial:
    """Runs on one sample, and what they show, unless it is known. No layer's output is kept.

    Parameters
    ----------
    runner : Runner
    feeds : Feeds
        One sample.
    ending : Ending
        Which output is explained; what its activation is, is found out.
    look_through : bool
        Whether to explain the logits behind a closing activation.
    is_size_free : bool
        Whether the model takes inputs of other sizes.
    learn : callable
        What remembers.
    """

    def __init__(
        self,
        runner: Runner,
        feeds: Feeds,
        ending: Ending,
        *,
        look_through: bool,
        is_size_free: bool,
        learn: Learn,
    ) -> None:
        self.runner, self._feeds, self._learn = runner, feeds, learn
        self._is_size_free = is_size_free
        self.facts: Facts = learn("facts", lambda: self._told(ending, look_through=look_through))

    @cached_property
    def default(self) -> str | None:
        """Path of the layer that is explained if none is named."""
        found: str | None = self._learn("default", self._find_default)
        return found

    @cached_property
    def listed(self) -> tuple[Layer, ...]:
        """Maps that all paths run through, in the order of execution."""
        found: tuple[Layer, ...] = self._learn("listed", self._find_listed)
        return found

    # ------------------------------------------------------------------------------- within

    def _told(self, ending: Ending, *, look_through: bool) -> Facts:
        picture, operations = self._feeds.picture, self.runner.names.operations
        probe = Probe(self.runner, self._feeds.hold, ending)
        calls, raw = probe.observe(self._own)
        inputs = tuple(_input_layout(operations, one) for one in self._feeds.arrays)
        layout = None if picture is None else inputs[picture]
        seen = seen_layers(
            calls,
            None if picture is None else self._own[picture],
            None if layout is None else layout.channels,
        )
        scores = as_scores(choose(raw, ending.output, ending.names), 1)
        return Facts(
            seen=seen,
            inputs=inputs,
            picture=picture,
            ending=probe.look_through(self._own, calls, raw) if look_through else ending,
            classes=None if scores is None else int(scores.shape[1]),
            returned=described(raw, ending.names),
            left_out=_left_out(calls),
        )

    def _find_default(self) -> str | None:
        rows = [one for one in self._maps if one.makes_maps]
        picture = self.facts.picture
        place = find_default(
            [one.maps_shape for one in rows],
            axes=2 if picture is None else self._feeds.arrays[picture].ndim - 2,
            gradient=lambda i: self._influences[rows[i].path],
            is_cut=lambda i: self._is_cut(rows[i]),
        )
        return None if place is None else rows[place].path

    def _find_listed(self) -> tuple[Layer, ...]:
        rows = [
            one
            for one in self._maps
            if min(one.maps_shape[2:]) > 1
            and self._influences[one.path] is not None
            and self._is_cut(one)
        ]
        return tuple(
            Layer(
                name=one.path,
                shape=self._shape(one),
                kind=one.kind,
                is_default=one.path == self.default,
                module=self.runner.names.modules.get(one.path, ""),
            )
            for one in rows
        )

    @cached_property
    def _own(self) -> list[Any]:
        return [self.runner.engine.tensor(one) for one in self._feeds.arrays]

    @cached_property
    def _probe(self) -> Probe:
        return Probe(self.runner, self._feeds.hold, self.facts.ending)

    @property
    def _maps(self) -> list[Seen]:
        return [one for one in self.facts.seen.values() if one.is_first and one.layout is not None]

    @cached_property
    def _influences(self) -> Mapping[str, NDArray[Any] | None]:
        rows = [one for one in self.facts.seen.values() if one.is_first]
        return self._probe.influences(self._own, rows)

    @cached_property
    def _paths(self) -> Sequence[Paths]:
        """The paths from every input that is a picture or signal, or from all that there are."""
        arrays, engine = self._feeds.arrays, self.runner.engine
        pictures = [[i] for i, one in enumerate(arrays) if 3 <= one.ndim <= 5]
        return [
            Paths(
                self._probe,
                self._own,
                [
                    engine.tensor(_noise_like(one, self.facts.left_out)) if i in changed else x
                    for i, (one, x) in enumerate(zip(arrays, self._own, strict=True))
                ],
                self.facts.seen,
                self._influences,
            )
            for changed in pictures or [list(range(len(arrays)))]
        ]

    def _is_cut(self, one: Seen) -> bool:
        return any(each.are_cut(one) for each in self._paths)

    def _shape(self, one: Seen) -> tuple[int | None, ...]:
        """Return the shape of a layer's output; sizes stay open where the input's are."""
        assert one.layout is not None  # noqa: S101 - it is a map
        kept = (one.layout.channels,) if self._is_size_free else range(len(one.shape))
        return (None, *(n if axis in kept else None for axis, n in enumerate(one.shape) if axis))


def _input_layout(operations: Mapping[str, Any], array: NDArray[Any]) -> Layout | None:
    if not 3 <= array.ndim <= 5:
        return None
    channels = channel_axis(operations, array.ndim)
    return Layout("input", channels, None, tuple(np.delete(array.shape, [0, channels]).tolist()))


def _left_out(calls: Sequence[Call]) -> tuple[float, ...]:
    """Return which values of an input are masked, if a layer takes a mask."""
    if not any(is_mask(x) for one in calls for x in one.inputs):
        return ()
    layers = [one.operation for one in calls if hasattr(one.operation, "mask_value")]
    return (0, *(float(one.mask_value) for one in layers))


def _noise_like(array: NDArray[Any], kept: Sequence[float]) -> NDArray[Any]:
    """Return noise of the same range, shape and dtype, some values left where they are."""
    rng = np.random.default_rng(0)
    if array.dtype.kind == "b":
        return ~array
    stays = np.isin(array, kept)
    values = array if stays.all() else array[~stays]
    low, high = values.min(), values.max()
    if array.dtype.kind == "f":
        spread = (low, high) if high > low else (low - 1, high + 1)
        noise = rng.uniform(*spread, array.shape).astype(array.dtype)
    else:
        above = int(high) + (2 if high == low else 1)
        noise = rng.integers(low, above, array.shape).astype(array.dtype)
    return np.where(stays, array, noise)

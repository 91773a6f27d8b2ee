"""What a few runs on one sample show of a model: its maps, its logits, where all paths meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Layer
from cfcam_core.layers import find_default
from cfcam_core.layout import Layout
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._observing import Call
from cfcam_tensorflow._outputs import as_scores, choose, described, is_mask
from cfcam_tensorflow._paths import Paths
from cfcam_tensorflow._probing import Ending, Probe
from cfcam_tensorflow._running import Runner
from cfcam_tensorflow._seen import Seen, channel_axis, seen_layers


class Trial:
    """Runs on one sample, and what they show. No output of a layer is kept.

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
    """

    def __init__(
        self,
        runner: Runner,
        feeds: Feeds,
        ending: Ending,
        *,
        look_through: bool,
        is_size_free: bool,
    ) -> None:
        self._names, self._is_size_free, self._feeds = runner.names, is_size_free, feeds
        self._own = [runner.engine.tensor(one) for one in feeds.arrays]
        self.picture = feeds.picture
        """Number of the input that is a picture or signal, if there is one."""
        runner.build(feeds.hold(self._own))
        probe = Probe(runner, feeds.hold, ending)
        calls, raw = probe.observe(self._own)
        self.returned = described(raw, ending.names)
        """Shapes of all outputs, for people."""
        picture = None if self.picture is None else self._own[self.picture]
        self.channels = (
            None if picture is None else channel_axis(runner.names.operations, len(picture.shape))
        )
        """Its axis of channels."""
        self._left_out = _left_out(calls)
        self.seen: Mapping[str, Seen] = seen_layers(calls, picture, self.channels)
        """All layers that were called, by path, in the order of execution."""
        self.ending = probe.look_through(self._own, calls, raw) if look_through else ending
        scores = as_scores(choose(raw, ending.output, ending.names), 1)
        self.classes = None if scores is None else int(scores.shape[1])
        """Number of classes K; None if the output is no classifier's."""
        self._probe = Probe(runner, feeds.hold, self.ending)

    def input_layout(self, place: int, name: str) -> Layout | None:
        """Return where an input has its channels; None if it is no picture or signal."""
        array = self._feeds.arrays[place]
        if not 3 <= array.ndim <= 5:
            return None
        channels = channel_axis(self._names.operations, array.ndim)
        return Layout(name, channels, None, tuple(np.delete(array.shape, [0, channels]).tolist()))

    @cached_property
    def default(self) -> str | None:
        """Path of the layer that is explained if none is named."""
        rows = [one for one in self._maps if one.makes_maps]
        picture = None if self.picture is None else self._own[self.picture]
        place = find_default(
            [one.maps_shape for one in rows],
            axes=2 if picture is None else len(picture.shape) - 2,
            gradient=lambda i: self._influences[rows[i].path],
            is_cut=lambda i: self._is_cut(rows[i]),
        )
        return None if place is None else rows[place].path

    @cached_property
    def listed(self) -> tuple[Layer, ...]:
        """Maps that all paths run through, in the order of execution."""
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
                module=self._names.modules.get(one.path, ""),
            )
            for one in rows
        )

    # ------------------------------------------------------------------------------- within

    @property
    def _maps(self) -> list[Seen]:
        return [one for one in self.seen.values() if one.is_first and one.layout is not None]

    @cached_property
    def _influences(self) -> Mapping[str, NDArray[Any] | None]:
        rows = [one for one in self.seen.values() if one.is_first]
        return self._probe.influences(self._own, rows)

    @cached_property
    def _paths(self) -> Sequence[Paths]:
        """The paths from every input that is a picture or signal, or from all that there are."""
        arrays, engine = self._feeds.arrays, self._probe.runner.engine
        pictures = [[i] for i, one in enumerate(arrays) if 3 <= one.ndim <= 5]
        return [
            Paths(
                self._probe,
                self._own,
                [
                    engine.tensor(_noise_like(one, self._left_out)) if i in changed else x
                    for i, (one, x) in enumerate(zip(arrays, self._own, strict=True))
                ],
                self.seen,
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


def _left_out(calls: Sequence[Call]) -> Sequence[float]:
    """Return which values of an input are masked, if a layer takes a mask."""
    if not any(is_mask(x) for one in calls for x in one.inputs):
        return ()
    return (0, *(one.operation.mask_value for one in calls if hasattr(one.operation, "mask_value")))


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

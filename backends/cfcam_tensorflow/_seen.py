"""What a trial run shows of each layer: its maps, where their channels are, who made them first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cfcam_core.layout import Layout, Size, patches_on
from cfcam_tensorflow._observing import Call

MOVING = frozenset({"Reshape", "Flatten", "Permute", "Transpose", "RepeatVector"})
"""Kinds behind which channels may be somewhere else."""

NO_MAKERS = ("Pool", "Padding", "Dropout", "Cropping", "UpSampling", "Resizing", "Rescaling", "Pad")
"""Parts of the names of kinds that only pool, pad or scale what others have made."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One layer, as a run on one sample has shown it: names and numbers, no tensor."""

    path: str
    kind: str
    """Class of the layer, or of the one inside it that made its output."""
    shape: tuple[int, ...]
    """Of its output at its last call."""
    calls: int
    """How often it was called."""
    layout: Layout | None
    """How its output becomes maps; None where it has no channels and spatial axes."""
    ended: int
    """When its last call was over."""
    is_first: bool
    """Whether no layer around or before it returns the same tensor."""

    @property
    def maps_shape(self) -> tuple[int, ...]:
        """Shape (1, C, *s) of the maps."""
        assert self.layout is not None  # noqa: S101 - the caller has asked
        nothing = np.broadcast_to(np.float32(0), self.shape)
        return self.layout.maps(nothing, self.layout.size).shape

    @property
    def makes_maps(self) -> bool:
        """Whether it does more than pool, pad, scale or move what others have made."""
        return self.kind not in MOVING and not any(part in self.kind for part in NO_MAKERS)


def seen_layers(
    calls: Sequence[Call], picture: Any | None, channels: int | None
) -> dict[str, Seen]:
    """Return what each layer did at its last call, by path, in the order of ending.

    Parameters
    ----------
    calls : sequence of Call
        Of a run on one sample, in the order in which they ended.
    picture : tensor, optional
        The input that is a picture or signal.
    channels : int, optional
        Its axis of channels.
    """
    axes: dict[int, int] = {} if picture is None or channels is None else {id(picture): channels}
    size = () if picture is None or channels is None else _spatial(tuple(picture.shape), channels)
    makers, namers = _makers(calls)
    last = {one.path: one for one in calls}
    grids: list[Size] = [size] if len(size) == 2 else []
    found: dict[str, Seen] = {}
    for one in calls:
        main = one.main
        if main is None:
            continue
        shape = tuple(main.shape)
        axis = axes.setdefault(id(main), _channels(one, shape, axes))
        kind = type(makers[id(main)].operation).__name__
        if len(shape) == 4 and shape[0] == 1 and makes_grids(one.operation):
            grids.append(_spatial(shape, axis))
        if last[one.path] is one:
            found[one.path] = Seen(
                path=one.path,
                kind=kind,
                shape=shape,
                calls=one.number + 1,
                layout=_layout(one.path, shape, axis, size, grids),
                ended=makers[id(main)].ended,
                is_first=namers[id(main)] is one,
            )
    return dict(sorted(found.items(), key=lambda item: item[1].ended))


def channel_axis(operations: Mapping[str, Any], rank: int) -> int:
    """Return where a picture has its channels, from the first layer that says so."""
    axes = list(range(rank))
    known = keras.config.image_data_format()
    for one in operations.values():
        if type(one).__name__ == "Permute" and len(one.dims) == rank - 1:
            axes = [axes[i] for i in (0, *one.dims)]
        if makes_grids(one):
            known = one.data_format
            break
    return axes[1 if known == "channels_first" else -1]


def makes_grids(operation: Any) -> bool:
    """Return whether a layer lays out patches: convolutions and what cuts pictures up."""
    return getattr(operation, "data_format", None) in _FORMATS


_FORMATS = ("channels_first", "channels_last")


def _makers(calls: Sequence[Call]) -> tuple[dict[int, Call], dict[int, Call]]:
    """Return of each tensor the call that made it, and the outermost that returns it."""
    makers: dict[int, Call] = {}
    namers: dict[int, Call] = {}
    for one in calls:
        for x in one.outputs:
            if id(x) not in makers:
                makers[id(x)] = namers[id(x)] = one
            elif one.started < namers[id(x)].started and one.main is x:
                namers[id(x)] = one
    return makers, namers


def _channels(call: Call, shape: tuple[int, ...], axes: Mapping[int, int]) -> int:
    """Return where a layer's output has its channels: as it says, or where they were."""
    own = getattr(call.operation, "data_format", None)
    kind = type(call.operation).__name__
    known = [axes[id(x)] for x in call.inputs if id(x) in axes and len(x.shape) == len(shape)]
    if own in _FORMATS and len(shape) > 2:
        return 1 if own == "channels_first" else len(shape) - 1
    if kind == "Permute" and known:
        return 1 + list(call.operation.dims).index(known[0]) if known[0] else len(shape) - 1
    if known and kind not in MOVING:
        return known[0]
    first = keras.config.image_data_format() == "channels_first" and len(shape) > 3
    return 1 if first else len(shape) - 1


def _layout(
    path: str, shape: tuple[int, ...], axis: int, size: Size, grids: Sequence[Size]
) -> Layout | None:
    if not 3 <= len(shape) <= 5 or shape[0] != 1 or axis < 1:
        return None
    patches = None
    if len(shape) == 3 and len(size) == 2:
        patches = patches_on(_spatial(shape, axis)[0], grids)
    return Layout(path, axis, patches, size)


def _spatial(shape: tuple[int, ...], channels: int) -> Size:
    return tuple(size for axis, size in enumerate(shape) if axis not in {0, channels})

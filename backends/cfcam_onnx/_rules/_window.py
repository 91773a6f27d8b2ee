"""Where a sliding window lies: what convolutions and pools have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._tensor import Node, Tensor


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window, one number an axis; automatic padding is resolved."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    @property
    def reach(self) -> list[int]:
        """Distance from a window's first to its last element."""
        return [(k - 1) * d for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def overlaps(self) -> bool:
        """Whether an element can lie in several windows."""
        return any(s <= r for s, r in zip(self.strides, self.reach, strict=True))


def window(node: Node, kernel: Sequence[int] | None = None, *, padded: bool = True) -> Window:
    """Return the window of a convolution or pool; unless `padded`, without its padding.

    Raises
    ------
    NotImplementedError
        The padding depends on the image's size, which is not fixed.
    """
    shape = list(node.attr("kernel_shape") or kernel or ())
    axes = len(shape)
    strides = list(node.attr("strides") or [1] * axes)
    dilations = list(node.attr("dilations") or [1] * axes)
    pads = list(node.attr("pads") or [0] * 2 * axes)
    auto = node.attr("auto_pad", "NOTSET")
    if auto == "VALID" or not padded:
        pads = [0] * 2 * axes
    elif auto != "NOTSET":
        reach = [(k - 1) * d for k, d in zip(shape, dilations, strict=True)]
        total = _same(node, strides, reach)
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    return Window(shape, strides, dilations, pads[:axes], pads[axes:])


def _same(node: Node, strides: list[int], reach: list[int]) -> list[int]:
    """Return the padding that gives every stride-th position a window."""
    grid = node.x.grid
    if grid is None:
        if max(strides) > 1:
            raise NotImplementedError(
                f"auto_pad={node.attr('auto_pad')} on a size that is not fixed"
            )
        return reach
    return [
        max((-(-size // s) - 1) * s + r + 1 - size, 0)
        for size, s, r in zip(grid, strides, reach, strict=True)
    ]


def spread(e: Emitter, g: Tensor, weight: Tensor, w: Window, node: Node, *, group: int) -> Tensor:
    """Return the transposed windowed sum with `weight`: a ConvTranspose as large as ``node.x``.

    The weights of a Conv and of its ConvTranspose have the same layout, so none is copied.
    """
    x, y = node.x, node.y
    common = {
        "kernel_shape": w.kernel,
        "strides": w.strides,
        "dilations": w.dilations,
        "group": group,
    }
    size, out = x.grid, y.grid
    if size is not None and out is not None:
        full = [(o - 1) * s + r + 1 for o, s, r in zip(out, w.strides, w.reach, strict=True)]
        missing = np.array(size) + w.begins - full  # beyond the last window, if positive
        if (missing < np.maximum(w.strides, w.dilations)).all():
            ends, extra = np.maximum(-missing, 0).tolist(), np.maximum(missing, 0).tolist()
            pads = [*w.begins, *ends]
            return e.op("ConvTranspose", g, weight, pads=pads, output_padding=extra, **common)
    axes = range(2, x.rank)
    whole = e.op("ConvTranspose", g, weight, pads=[0] * 2 * len(axes), **common)
    room = [0] * (2 + len(axes)) + [0, 0, *w.strides]
    whole = e.op("Pad", whole, e.ints(*room))
    sizes = e.slice(e.shape_of(x), e.ints(2), e.ints(x.rank), [0])
    begins = e.ints(*w.begins)
    return e.slice(whole, begins, begins + sizes, list(axes))

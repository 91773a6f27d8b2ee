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
    pads: list[int] | None
    """At all begins, then at all ends; None where they depend on sizes that are not fixed."""

    @property
    def reach(self) -> list[int]:
        """Distance from a window's first to its last element."""
        return [(k - 1) * d for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def overlaps(self) -> bool:
        """Whether an element can lie in several windows."""
        return any(s <= r for s, r in zip(self.strides, self.reach, strict=True))


def window(node: Node, kernel: Sequence[int] | None = None) -> Window:
    """Return the window of a convolution or pool."""
    shape = list(node.attr("kernel_shape") or kernel or ())
    axes = len(shape)
    strides = list(node.attr("strides") or [1] * axes)
    dilations = list(node.attr("dilations") or [1] * axes)
    pads: list[int] | None = list(node.attr("pads") or [0] * 2 * axes)
    auto = node.attr("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 2 * axes
    elif auto != "NOTSET":
        reach = [(k - 1) * d for k, d in zip(shape, dilations, strict=True)]
        total = _same(node, strides, reach)
        pads = None if total is None else halves(total, larger_first=auto == "SAME_LOWER")
    return Window(shape, strides, dilations, pads)


def halves(total: Sequence[int], *, larger_first: bool) -> list[int]:
    """Return padding divided between begins and ends, the odd one where it is said."""
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return large + small if larger_first else small + large


def _same(node: Node, strides: list[int], reach: list[int]) -> list[int] | None:
    """Return the padding that gives every stride-th position a window, None if it is not fixed."""
    if max(strides) == 1:
        return reach
    if node.x.grid is None:
        return None
    return [
        max((-(-size // s) - 1) * s + r + 1 - size, 0)
        for size, s, r in zip(node.x.grid, strides, reach, strict=True)
    ]


def spread(e: Emitter, g: Tensor, weight: Tensor, w: Window, node: Node) -> Tensor:
    """Return the transposed convolution of `g`, as large as ``node.x``.

    The weights of a Conv and of its ConvTranspose have the same layout, so none is copied.
    """
    x, y = node.x, node.y
    common = {
        "kernel_shape": w.kernel,
        "strides": w.strides,
        "dilations": w.dilations,
        "group": node.attr("group", 1),
    }
    axes = len(w.kernel)
    size, out = x.grid, y.grid
    if size is not None and out is not None and w.pads is not None:
        begins = w.pads[:axes]
        full = [(o - 1) * s + r + 1 for o, s, r in zip(out, w.strides, w.reach, strict=True)]
        missing = np.array(size) + begins - full  # beyond the last window, if positive
        if (missing < np.maximum(w.strides, w.dilations)).all():
            ends, extra = np.maximum(-missing, 0).tolist(), np.maximum(missing, 0).tolist()
            pads = [*begins, *ends]
            return e.op("ConvTranspose", g, weight, pads=pads, output_padding=extra, **common)
    whole = e.op("ConvTranspose", g, weight, pads=[0] * 2 * axes, **common)
    room = [0] * (2 + axes) + [0, 0, *w.strides]
    whole = e.op("Pad", whole, e.ints(*room))
    sizes = e.slice(e.shape_of(x), e.ints(2), e.ints(2 + axes), [0])
    first = _begins_at_run_time(e, node, w, sizes) if w.pads is None else e.ints(*w.pads[:axes])
    return e.slice(whole, first, first + sizes, range(2, 2 + axes))


def _begins_at_run_time(e: Emitter, node: Node, w: Window, sizes: Tensor) -> Tensor:
    """Return what `window` leaves open: the padding at the begins, from the sizes."""
    strides, covered = e.ints(*w.strides), e.ints(*(r + 1 for r in w.reach))
    last = (sizes - e.ints(1)) / strides * strides  # where the last window starts
    total = e.op("Max", last + covered - sizes, e.ints(0))
    odd = e.ints(int(node.attr("auto_pad") == "SAME_LOWER"))
    return (total + odd) / e.ints(2)

"""Rules for pools.

Where a maximum occurs twice, MaxPool takes the first, as onnxruntime does; global and reduced
maxima share the cotangent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._rules._window import Window, spread, window
from cfcam_onnx._tensor import Node, Operand, Tensor

Cotangents = Sequence[Tensor | None]


@rule("GlobalAveragePool")
def global_average_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.expand_like(g / e.count(node.x, range(2, node.x.rank)), node.x)]


@rule("GlobalMaxPool")
def global_max_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [share(e, node.x, node.y, g, range(2, node.x.rank))]


@rule("MaxPool")
def max_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Run the pool once more for its indices: without them the forward one stays fast."""
    positions = node.outputs[1] if len(node.outputs) > 1 else None
    if positions is None or node.attr("storage_order", 0):
        how = {**node.attributes, "storage_order": 0}
        positions = e.ops(2, "MaxPool", node.x, **how)[1]
    return [e.scatter(positions, g, node.x, overlapping=window(node).overlaps)]


@rule("AveragePool")
def average_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, y, w = node.x, node.y, _window(node)
    if x.grid is not None and _covers(x.grid, y, w):
        ones = e.const(np.ones([1, 1, *x.grid], x.dtype))
        mean = e.op("AveragePool", ones, **node.attributes)  # below 1 if padding counts
        return [e.expand_like(g * mean / prod(x.grid), x)]
    tiled = y.grid is not None and [o * k for o, k in zip(y.grid, w.kernel, strict=True)] == x.grid
    if not tiled or w.strides != w.kernel or max(w.dilations) > 1 or any(w.pads or ()):
        g = _cut(e, node, w, g) if node.attr("ceil_mode", 0) else g
        return [_spread_planes(e, node, w, g * _weight_of_one(e, node, w))]
    axes = range(3, 3 + 2 * len(w.kernel), 2)
    repeated = e.ints(1, 1, *(size for k in w.kernel for size in (1, k)))
    tiles = e.unsqueeze(g * (1 / prod(w.kernel)), *axes)
    return [e.reshape_like(e.op("Expand", tiles, repeated), x)]


@rule("LpPool")
def lp_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    p, norm = node.attr("p", 2), node.y
    shared = e.where(norm > 0, g / norm ** (p - 1), 0)
    return [_spread_planes(e, node, _window(node), shared) * _slope(e, node.x, p)]


@rule("GlobalLpPool")
def global_lp_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    p, norm = node.attr("p", 2), node.y
    return [e.where(norm > 0, g / norm ** (p - 1), 0) * _slope(e, node.x, p)]


@rule("LRN")
def local_response_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, y, size = node.x, node.y, node.attr("size")
    alpha, beta, bias = node.attr("alpha", 1e-4), node.attr("beta", 0.75), node.attr("bias", 1.0)
    if size % 2 == 0:
        raise NotImplementedError("a window of even size, which onnxruntime does not run")

    def across(t: Tensor) -> Tensor:
        """Average over neighbouring channels, with zeros beyond the first and last."""
        flat = e.reshape(t, [0, 1, e.channels(x), -1])
        pads, how = [size // 2, 0] * 2, {"kernel_shape": [size, 1], "count_include_pad": 1}
        return e.reshape_like(e.op("AveragePool", flat, pads=pads, **how), x)

    scale = across(x * x) * alpha + bias
    shared = across(g * y / scale)
    return [g * scale ** (-beta) - x * shared * (2 * alpha * beta)]


def share(e: Emitter, x: Tensor, extremum: Tensor, g: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Return `g` divided among the elements of `x` that equal the extremum over `axes`."""
    hit = e.cast(e.op("Equal", x, extremum, dtype=np.bool_), x.dtype)
    return hit / e.reduce("ReduceSum", hit, axes) * g


def _slope(e: Emitter, x: Tensor, p: int) -> Tensor:
    """Return the derivative of ``|x| ** p / p``."""
    return e.op("Sign", x) * e.op("Abs", x) ** (p - 1)


def _covers(size: list[int], y: Tensor, w: Window) -> bool:
    """Return whether there is one window and all of the image in it; it may be far larger."""
    if w.pads is None or max(w.dilations) > 1 or set(y.grid or ()) != {1}:
        return False
    return all(k - p >= s for k, p, s in zip(w.kernel, w.pads, size, strict=False))


def _window(node: Node) -> Window:
    """Return the window of a pool that sums, if onnxruntime's is what ONNX says.

    It leaves dilations out of automatic padding, and where strides leave a gap at the edge it
    shifts all windows.
    """
    w = window(node)
    gaps = any(s > k for s, k in zip(w.strides, w.kernel, strict=True))
    if "SAME" in node.attr("auto_pad", "NOTSET") and (gaps or max(w.dilations) > 1):
        raise NotImplementedError("auto_pad with dilations, or with strides beyond the kernel")
    return w


def _spread_planes(e: Emitter, node: Node, w: Window, g: Tensor) -> Tensor:
    """Return for each element the sum of `g` over the windows it lies in."""
    planes = e.reshape(g, e.op("Concat", e.ints(-1, 1), _grid(e, node.y, w), axis=0))
    ones = e.const(np.ones([1, 1, *w.kernel], g.dtype))
    return e.reshape_like(spread(e, planes, ones, w, node), node.x)


def _weight_of_one(e: Emitter, node: Node, w: Window) -> Operand:
    """Return how much an element counts in each window.

    Where padding is met the runtime itself says it, by pooling ones: what it counts there, and
    what where it rounds up, differs between versions.
    """
    padded = w.pads is None or any(w.pads)
    if not node.attr("ceil_mode", 0) and (not padded or node.attr("count_include_pad", 0)):
        return 1 / prod(w.kernel)
    shape = e.op("Concat", e.ints(1, 1), _grid(e, node.x, w), axis=0)
    ones = e.op("Expand", e.scalar(1, node.x.dtype), shape)
    how: dict[str, Any] = {"auto_pad": node.attr("auto_pad")}
    if w.pads is not None:
        axes = len(w.kernel)
        beyond = [end + s for end, s in zip(w.pads[axes:], w.strides, strict=True)]
        how = {"pads": [*w.pads[:axes], *beyond]}
    kernel = e.const(np.ones([1, 1, *w.kernel], node.x.dtype))
    seen = e.op("Conv", ones, kernel, strides=w.strides, dilations=w.dilations, **how)
    mean = e.op("AveragePool", ones, **node.attributes)
    return _cut(e, node, w, mean) / _cut(e, node, w, seen)


def _cut(e: Emitter, node: Node, w: Window, t: Tensor) -> Tensor:
    """Return as many windows of `t` as there are: where it rounds up, onnx may infer one more."""
    axes = len(w.kernel)
    return e.slice(t, e.ints(*[0] * axes), _grid(e, node.y, w), range(2, 2 + axes))


def _grid(e: Emitter, x: Tensor, w: Window) -> Tensor:
    """Return the sizes behind the batch and channel axes: a constant if they are fixed."""
    if x.grid is not None:
        return e.ints(*x.grid)
    return e.slice(e.shape_of(x), e.ints(2), e.ints(2 + len(w.kernel)), [0])

"""Rules for pools.

Where a maximum occurs twice, MaxPool takes the first, as onnxruntime does; global and reduced
maxima share the cotangent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

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
    if node.attr("storage_order", 0):
        raise NotImplementedError("storage_order=1")
    positions = node.outputs[1] if len(node.outputs) > 1 else None
    if positions is None:
        positions = e.ops(2, "MaxPool", node.x, **node.attributes)[1]
    return [e.scatter(positions, g, node.x, overlapping=window(node, padded=False).overlaps)]


@rule("AveragePool")
def average_pool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, y, w = node.x, node.y, window(node)
    if "SAME" in node.attr("auto_pad", "NOTSET") and not _is_plain(w):
        raise NotImplementedError("auto_pad with dilations, or with strides beyond the kernel")
    share_of_one = g / _members(e, node, w)
    tiled = y.grid is not None and [o * k for o, k in zip(y.grid, w.kernel, strict=True)] == x.grid
    if tiled and w.strides == w.kernel and _is_plain(w) and not any(w.begins):  # tiles: repeat
        axes = range(3, 3 + 2 * len(w.kernel), 2)
        repeated = e.ints(1, 1, *(size for k in w.kernel for size in (1, k)))
        return [e.reshape_like(e.op("Expand", e.unsqueeze(share_of_one, *axes), repeated), x)]
    grid = e.slice(e.shape_of(y), e.ints(2), e.ints(x.rank), [0])
    planes = e.reshape(share_of_one, e.op("Concat", e.ints(-1, 1), grid, axis=0))
    ones = e.const(np.ones([1, 1, *w.kernel], x.dtype))
    return [e.reshape_like(spread(e, planes, ones, w, node, group=1), x)]


@rule("LRN")
def local_response_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, y, size = node.x, node.y, node.attr("size")
    alpha, beta, bias = node.attr("alpha", 1e-4), node.attr("beta", 0.75), node.attr("bias", 1.0)
    if size % 2 == 0:
        raise NotImplementedError("a window of even size")

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


def _is_plain(w: Window) -> bool:
    """Return whether windows have no holes and leave no gaps.

    Where they do, onnxruntime's automatic padding of an average is not what ONNX says: dilations
    do not count, and a gap at the edge shifts all windows.
    """
    return max(w.dilations) == 1 and all(s <= k for s, k in zip(w.strides, w.kernel, strict=True))


def _members(e: Emitter, node: Node, w: Window) -> Operand:
    """Return the number of elements that each window averages."""
    x, y, padded = node.x, node.y, node.attr("count_include_pad", 0)
    measured = padded and node.attr("ceil_mode", 0)  # what counts depends on the runtime's version
    if x.grid is not None and y.grid is not None:
        counts = np.ones(())
        for axis, (size, out) in enumerate(zip(x.grid, y.grid, strict=True)):
            first = np.arange(out)[:, None] * w.strides[axis] - w.begins[axis]
            at = first + np.arange(w.kernel[axis]) * w.dilations[axis]
            within = (-w.begins[axis], size + w.ends[axis])
            low, high = within if padded and not measured else (0, size)
            counts = np.multiply.outer(counts, ((at >= low) & (at < high)).sum(axis=1))
        if measured:
            ones = e.const(np.ones([1, 1, *x.grid], x.dtype))
            return e.const(counts.astype(x.dtype)) / e.op("AveragePool", ones, **node.attributes)
        return float(counts.flat[0]) if np.ptp(counts) == 0 else e.const(counts.astype(x.dtype))
    if node.attr("ceil_mode", 0):
        raise NotImplementedError("ceil_mode on a size that is not fixed")
    if padded or not any(w.begins + w.ends):
        return float(prod(w.kernel))
    grid = e.slice(e.shape_of(x), e.ints(2), e.ints(x.rank), [0])
    ones = e.op("Expand", e.scalar(1, x.dtype), e.op("Concat", e.ints(1, 1), grid, axis=0))
    kernel = e.const(np.ones([1, 1, *w.kernel], x.dtype))
    pads = [*w.begins, *w.ends]
    return e.op("Conv", ones, kernel, strides=w.strides, dilations=w.dilations, pads=pads)

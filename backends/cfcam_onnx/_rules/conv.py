"""Rules for convolutions and what they are made of: any spatial axes, groups and strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._rules._window import Window, halves, spread, window
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("Conv")
def conv(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    weight = node.required(1)
    w = window(node, _kernel(weight))
    back = _as_convolution(e, g, weight, w, node) or spread(e, g, weight, w, node)
    return [back, _for_kernel(e, node, w, node.x, g), _for_bias(e, w, g)]


@rule("ConvTranspose")
def conv_transpose(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Emit the convolution that it transposes, without what lies beyond the last window."""
    x, weight = node.x, node.required(1)
    w = _transposed_window(node, window(node, _kernel(weight)))
    back = e.op(
        "Conv",
        g,
        weight,
        kernel_shape=w.kernel,
        strides=w.strides,
        dilations=w.dilations,
        pads=w.pads,
        group=node.attr("group", 1),
    )
    if node.attr("output_shape"):
        axes = len(w.kernel)
        sizes = e.slice(e.shape_of(x), e.ints(2), e.ints(2 + axes), [0])
        back = e.slice(back, e.ints(*[0] * axes), sizes, range(2, 2 + axes))
    return [back, _for_kernel(e, node, w, g, x), _for_bias(e, w, g)]


@rule("Col2Im")
def col2im(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Cut the windows out again: a convolution with one kernel for each place in a window."""
    image, block = node.required(1), node.required(2).value
    if block is None:
        raise NotImplementedError("a window whose size is not fixed")
    w = window(node, block.tolist())
    planes = e.reshape(g, e.op("Concat", e.ints(-1, 1), image, axis=0))
    places = np.eye(prod(w.kernel), dtype=g.dtype).reshape(-1, 1, *w.kernel)
    parts = e.op(
        "Conv",
        planes,
        e.const(places),
        kernel_shape=w.kernel,
        strides=w.strides,
        dilations=w.dilations,
        pads=w.pads,
    )
    return [e.reshape_like(parts, node.x), None, None]


def _kernel(weight: Tensor) -> list[int]:
    """Return the size of a kernel."""
    if weight.grid is None:
        raise NotImplementedError("a kernel whose size is not fixed")
    return weight.grid


def _transposed_window(node: Node, w: Window) -> Window:
    """Return the window of a ConvTranspose, whose automatic padding goes by its output's size."""
    auto, wanted = node.attr("auto_pad", "NOTSET"), node.attr("output_shape")
    extra = node.attr("output_padding") or [0] * len(w.kernel)
    if wanted:
        if node.x.grid is None:
            raise NotImplementedError("output_shape on a size that is not fixed")
        sizes = zip(node.x.grid, wanted[-len(w.kernel) :], strict=True)
        over = [(size - 1) * s - out for (size, out), s in zip(sizes, w.strides, strict=True)]
    elif "SAME" in auto:
        over = [-s for s in w.strides]
    else:
        return w
    total = [max(o + r + 1 + more, 0) for o, r, more in zip(over, w.reach, extra, strict=True)]
    return replace(w, pads=halves(total, larger_first=auto != "SAME_UPPER"))


def _for_kernel(e: Emitter, node: Node, w: Window, x: Tensor, g: Tensor) -> Tensor | None:
    """Return the cotangent of the kernel: `x` correlated with `g`, samples as channels."""
    if w.pads is None:
        return None
    group, space = node.attr("group", 1), range(2, 2 + len(w.kernel))
    sizes = e.slice(e.shape_of(x), e.ints(2), e.ints(space.stop), [0])
    parts = e.reshape(x, e.op("Concat", e.ints(0, group, -1), sizes, axis=0))
    turned = e.transpose(parts, 2, 1, 0, *(axis + 1 for axis in space))
    samples = e.op("Gather", e.shape_of(x), e.ints(0), axis=0) * e.ints(group)
    planes = e.reshape(turned, e.op("Concat", e.ints(0), samples, sizes, axis=0))
    found = e.op(
        "Conv",
        planes,
        e.transpose(g, 1, 0, *space),
        strides=w.dilations,
        dilations=w.strides,
        pads=w.pads,
        group=group,
    )
    found = e.slice(found, e.ints(*[0] * len(space)), e.ints(*w.kernel), space)
    return e.transpose(found, 1, 0, *space)


def _for_bias(e: Emitter, w: Window, g: Tensor) -> Tensor:
    """Return the cotangent of the bias."""
    return e.reduce("ReduceSum", g, [0, *range(2, 2 + len(w.kernel))], keepdims=False)


def _as_convolution(e: Emitter, g: Tensor, weight: Tensor, w: Window, node: Node) -> Tensor | None:
    """Return the gradient as a convolution with the turned kernel, where that is the fast form.

    A depth-wise 7 x 7 runs 11 to 20 times faster so on onnxruntime's CPU; other kernels are left
    alone, because onnxruntime then keeps a second one, turned, in memory.
    """
    sizes, group = weight.fixed(0, 1), node.attr("group", 1)
    if sizes is None or w.pads is None or max(w.strides) > 1:
        return None
    depthwise = group > 1 and sizes[1] == 1
    pads = [r - p for r, p in zip(w.reach * 2, w.pads, strict=True)]
    if not (depthwise or max(w.kernel) == 1) or min(pads) < 0:
        return None
    kernel = _turned(e, weight, [group, sizes[0] // group, sizes[1]], w.kernel)
    return e.op(
        "Conv", g, kernel, kernel_shape=w.kernel, dilations=w.dilations, pads=pads, group=group
    )


def _turned(e: Emitter, weight: Tensor, parts: list[int], kernel: list[int]) -> Tensor:
    """Return a kernel back to front, its inputs and outputs changed about; no copy is stored.

    `parts` are the groups, and each one's outputs and inputs.
    """
    group, outputs, inputs = parts
    along = [axis for axis, size in enumerate(kernel, start=2) if size > 1]
    if along:
        first, beyond = ([at] * len(along) for at in (-1, np.iinfo(np.int64).min))
        steps = e.ints(*first)
        weight = e.op("Slice", weight, e.ints(*first), e.ints(*beyond), e.ints(*along), steps)
    if outputs == inputs == 1:
        return weight
    grouped = e.reshape(weight, [*parts, *kernel])
    order = [0, 2, 1, *range(3, 3 + len(kernel))]
    return e.reshape(e.transpose(grouped, *order), [group * inputs, outputs, *kernel])

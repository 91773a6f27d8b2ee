"""Makes ``tests/golden/conformance.npz``: nets, inputs, and all that is true of them.

``python tests/conformance/make_golden.py`` writes the file anew. NumPy alone, in float64: loops
over kernel offsets, and the reverse pass written out by hand. Every gradient is checked by complex
steps before anything is written: ``Im f(x + i h v) / h`` is the slope along v to the last digits.

A net: a strided convolution ``stem``; ``inner``, a rectified convolution that its input goes past;
their sum ``block``; average pooling, where asked; ``last``, rectified, too; mean and dense layer::

    x -> stem -> ReLU -+-> conv -> ReLU (inner) -+-> block -> pool -> conv -> ReLU (last) -> logits
                       +-------------------------+
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).parents[1] / "golden" / "conformance.npz"
LAYERS = ("input", "stem", "inner", "block", "last")
SAMPLES, CLASSES = 3, 4
STEP = 1e-30
"""Of the complex steps: nothing is subtracted, so it may be as small as one likes."""
CLEAR = 1e-4
"""Least distance from its kink of whatever is rectified: float32 must not cross it."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """What a net looks like. All sizes differ, so that no two axes can be taken for each other."""

    size: tuple[int, ...]
    channels: tuple[int, int, int]
    pool: int
    seed: int


PLANS = {
    "signal": Plan((35,), (2, 5, 6), pool=2, seed=0),
    "picture": Plan((17, 13), (3, 5, 6), pool=2, seed=3),
    "volume": Plan((9, 7, 11), (1, 6, 7), pool=1, seed=46),
}


# ------------------------------------------------------------------------------------- operations


def windows(size: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> Iterator[Any]:
    """Yield for each offset in a kernel where it reads: an index into (N, C, *s)."""
    for offset in np.ndindex(kernel):
        stops = (at + n - k + 1 for at, n, k in zip(offset, size, kernel, strict=True))
        reads = (slice(at, stop, stride) for at, stop in zip(offset, stops, strict=True))
        yield offset, (slice(None), slice(None), *reads)


def padded(x: Array, pad: int) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *[(pad, pad)] * (x.ndim - 2)])


def conv(x: Array, w: Array, b: Array, *, stride: int = 1, pad: int = 0) -> Array:
    """Correlate (N, I, *s) with a kernel (O, I, *k)."""
    x = padded(x, pad)
    out: Any = b.reshape(-1, *[1] * (x.ndim - 2))
    for offset, where in windows(x.shape[2:], w.shape[2:], stride):
        out = out + np.einsum("ni...,oi->no...", x[where], w[(..., *offset)])
    return out


def conv_back(g: Array, x: Array, w: Array, *, stride: int = 1, pad: int = 0) -> Array:
    """Return the cotangent of a convolution's input `x` from that of its output."""
    out = np.zeros_like(padded(x, pad))
    for offset, where in windows(out.shape[2:], w.shape[2:], stride):
        out[where] += np.einsum("no...,oi->ni...", g, w[(..., *offset)])
    inside = tuple(slice(pad, pad + n) for n in x.shape[2:])
    return out[(slice(None), slice(None), *inside)]


def pool(x: Array, size: int) -> Array:
    """Average cells of `size` an axis; what is left over at the end is dropped."""
    kernel = (size,) * (x.ndim - 2)
    return sum(x[where] for _, where in windows(x.shape[2:], kernel, size)) / np.prod(kernel)


def pool_back(g: Array, x: Array, size: int) -> Array:
    kernel, out = (size,) * (x.ndim - 2), np.zeros_like(x)
    for _, where in windows(x.shape[2:], kernel, size):
        out[where] += g / np.prod(kernel)
    return out


def relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0)


# -------------------------------------------------------------------------------------------- net


def forward(w: Mapping[str, Array], x: Array, plan: Plan, **given: Array) -> dict[str, Array]:
    """Run the net; a layer that is given takes the place of what would have been computed."""
    v = {"input": given.get("input", x)}
    v["stem"] = given.get("stem", conv(v["input"], w["stem_w"], w["stem_b"], stride=2))
    v["skip"] = relu(v["stem"])
    v["inner_in"] = conv(v["skip"], w["inner_w"], w["inner_b"], pad=1)
    v["inner"] = given.get("inner", relu(v["inner_in"]))
    v["block"] = given.get("block", v["skip"] + v["inner"])
    v["pooled"] = pool(v["block"], plan.pool)
    v["last_in"] = conv(v["pooled"], w["last_w"], w["last_b"], pad=1)
    v["last"] = given.get("last", relu(v["last_in"]))
    means = v["last"].mean(axis=tuple(range(2, x.ndim)))
    v["scores"] = means @ w["dense_w"].T + w["dense_b"]
    return v


def backward(w: Mapping[str, Array], v: Mapping[str, Array], klass: int, plan: Plan) -> Any:
    """Return the gradient of one logit of every sample with respect to each layer."""
    g = {}
    spread = w["dense_w"][klass].reshape(1, -1, *[1] * (v["last"].ndim - 2))
    g["last"] = np.broadcast_to(spread / np.prod(v["last"].shape[2:]), v["last"].shape)
    conv_in = g["last"] * (v["last_in"] > 0)
    pooled = conv_back(conv_in, v["pooled"], w["last_w"], pad=1)
    g["block"] = g["inner"] = pool_back(pooled, v["block"], plan.pool)
    inner_in = g["inner"] * (v["inner_in"] > 0)
    skip = g["block"] + conv_back(inner_in, v["skip"], w["inner_w"], pad=1)
    g["stem"] = skip * (v["stem"] > 0)
    g["input"] = conv_back(g["stem"], v["input"], w["stem_w"], stride=2)
    return g


def weights(plan: Plan, rng: np.random.Generator) -> dict[str, Array]:
    """Draw weights that float32 holds exactly."""
    (first, middle, end), axes = plan.channels, len(plan.size)
    kernel = (3,) * axes
    shapes = {
        "stem": (middle, first, *kernel),
        "inner": (middle, middle, *kernel),
        "last": (end, middle, *kernel),
        "dense": (CLASSES, end),
    }
    drawn = {}
    for name, shape in shapes.items():
        drawn[f"{name}_w"] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        drawn[f"{name}_b"] = rng.standard_normal(shape[0]) * 0.3
    return {name: exact(array) for name, array in drawn.items()}


def exact(array: Array) -> Array:
    """Round to float32, keep as float64."""
    return array.astype(np.float32).astype(np.float64)


# ------------------------------------------------------------------------------------------- file


def facts(plan: Plan) -> dict[str, Array]:
    """Return one net's weights and inputs, and what must come out."""
    rng = np.random.default_rng(plan.seed)
    w = weights(plan, rng)
    x = exact(rng.standard_normal((SAMPLES, plan.channels[0], *plan.size)))
    v = forward(w, x, plan)
    check_kinks(v)
    slopes = [backward(w, v, klass, plan) for klass in range(CLASSES)]
    found = {"x": x, "scores": v["scores"], **{f"weights/{name}": a for name, a in w.items()}}
    for layer in LAYERS:
        gradients = np.stack([g[layer] for g in slopes])
        check_slopes(w, x, plan, layer, v[layer], gradients, rng)
        found[f"activations/{layer}"] = v[layer]
        found[f"gradients/{layer}"] = gradients  # (K, N, C, *s)
        swapped = {layer: np.roll(v[layer], 1, axis=0)}  # each sample gets its neighbour's
        found[f"scores_from/{layer}"] = forward(w, x, plan, **swapped)["scores"]
    found |= {f"heatmaps/{layer}": heatmaps(found, layer, plan) for layer in LAYERS}
    found["pool"] = np.array(plan.pool)
    return found


def check_kinks(v: Mapping[str, Array]) -> None:
    for name in ("stem", "inner_in", "last_in"):
        least = np.abs(v[name]).min()
        assert least > CLEAR, f"{name} is {least:.1e} from its kink; take another seed"


def check_slopes(
    w: Mapping[str, Array],
    x: Array,
    plan: Plan,
    layer: str,
    own: Array,
    gradients: Array,
    rng: np.random.Generator,
) -> None:
    """Compare the gradients of all samples and classes with complex steps in random directions."""
    for _ in range(20):
        v = rng.standard_normal(own.shape)
        moved = forward(w, x, plan, **{layer: own + 1j * STEP * v})["scores"].imag / STEP
        slopes = (gradients * v).reshape(CLASSES, SAMPLES, -1).sum(axis=-1).T
        np.testing.assert_allclose(moved, slopes, rtol=1e-9, atol=1e-12)


def heatmaps(found: Mapping[str, Array], layer: str, plan: Plan) -> Array:
    """Return Grad-CAM for each sample's best class, linearly upsampled, divided by its peak."""
    axes = tuple(range(2, 2 + len(plan.size)))
    best = found["scores"].argmax(axis=1)
    G, A = found[f"gradients/{layer}"][best, range(SAMPLES)], found[f"activations/{layer}"]
    maps = relu((G.mean(axis=axes, keepdims=True) * A).sum(axis=1))
    for axis, new in enumerate(plan.size, start=1):
        old = maps.shape[axis]
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        maps = np.apply_along_axis(
            lambda row, at, n: np.interp(at, np.arange(n), row), axis, maps, centres, old
        )
    peaks = maps.max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    assert peaks.min() > 0, "a map is nowhere positive; take another seed"
    return maps / peaks


def golden() -> dict[str, Array]:
    """Return all that the file holds: float32, named ``net/fact``."""
    return {
        f"{net}/{name}": array.astype(np.float32)
        for net, plan in PLANS.items()
        for name, array in facts(plan).items()
    }


if __name__ == "__main__":
    np.savez_compressed(PATH, **golden())
    print(f"{PATH.name}: {PATH.stat().st_size:,} bytes")  # noqa: T201

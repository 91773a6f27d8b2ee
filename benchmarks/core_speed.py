"""How fast and how lean the core is, against the method as the public code computes it.

Run: ``python benchmarks/core_speed.py`` (needs torch and scikit-learn). All variants take turns in
one process on one thread, so the ratios hold on a busy machine; absolute times do not. Memory is
the peak of what NumPy allocates during a call, over what it held before the first call.

The other side is written here from the published steps, with the same library calls where time
goes: a broadcast (N, N, H*W) difference and ``numpy.percentile`` of all distances in NumPy,
scikit-learn's DBSCAN, and PyTorch for a loop over channels, the filter, the sum and the upsampling.
"""

from __future__ import annotations

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import statistics
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import DBSCAN
from timing import milliseconds

import cfcam_core as cfcam
from cfcam_core import distances
from cfcam_core.errors import BlankMapWarning

SHAPES = [(2048, 7, 7), (512, 14, 14), (1280, 7, 7), (256, 56, 56)]
SIZE = (224, 224)


def relu_like(rng: np.random.Generator, channels: int, height: int, width: int) -> np.ndarray:
    """Return sparse activations like a ReLU's: channels share blobs and differ in strength."""
    y, x = np.mgrid[:height, :width]
    latent = np.stack(
        [
            np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * (spread * height + 0.3) ** 2))
            for cy, cx, spread in rng.uniform((0, 0, 0.12), (height, width, 0.45), (32, 3))
        ]
    )
    mixing = rng.normal(0, 0.25, (channels, 32))
    mixing[np.arange(channels), rng.integers(0, 32, channels)] += rng.uniform(0.5, 1.5, channels)
    maps = np.tensordot(mixing, latent, 1) + rng.normal(0, 0.25, (channels, height, width))
    maps = np.maximum(maps - np.quantile(maps, 0.55), 0)
    return (maps * np.exp(rng.normal(0, 0.8, channels))[:, None, None]).astype(np.float32)


def public_method(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Compute the public code's map, step by step and in its own order of work."""
    channels = len(activations)
    A, G = torch.from_numpy(activations), torch.from_numpy(gradients)
    features = A.view(channels, -1).numpy()
    norms = np.linalg.norm(features, ord=2, axis=1)
    strong = norms >= np.percentile(norms, 75)
    dominant, rest = np.flatnonzero(strong), np.flatnonzero(~strong)
    chosen = features[rest]
    apart = np.linalg.norm(chosen[:, None] - chosen[None, :], axis=2)
    np.fill_diagonal(apart, np.inf)
    every = apart.flatten()
    eps = max(np.percentile(every[every != np.inf], 25), 1e-5)
    found = DBSCAN(eps=eps, min_samples=max(2, int(len(rest) * 0.05))).fit(chosen).labels_
    labels = np.full(channels, -2)
    labels[rest] = found
    weights, used = torch.zeros(channels), torch.from_numpy(labels != -1)
    filtered = torch.zeros_like(G)
    for c in dominant:
        filtered[c] = G[c]
        weights[c] = G[c].mean()
    for k in range(found.max() + 1):
        members = np.flatnonzero(labels == k)
        shared = public_filter(G[members].mean(dim=0))
        for c in members:
            filtered[c] = shared
            weights[c] = shared.mean()
    share = torch.softmax(weights[used], dim=0).reshape(-1, 1, 1)
    cam = torch.relu((share * A[used]).sum(dim=0))[None, None]
    up = torch.nn.functional.interpolate(cam, SIZE, mode="bilinear", align_corners=False)[0, 0]
    return (up / up.max()).numpy()


def public_filter(gradient: torch.Tensor) -> torch.Tensor:
    """Correlate a gradient with the public code's kernel, in PyTorch."""
    height, width = gradient.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    kernel = torch.exp(-((y - height / 2) ** 2 + (x - width / 2) ** 2) / 50)
    kernel = kernel * torch.exp(-((gradient - gradient.mean()) ** 2) / 0.02)
    kernel = kernel / (kernel.sum() + 1e-6)
    with warnings.catch_warnings(action="ignore"):  # of a copy, for kernels of even length
        padded = torch.nn.functional.conv2d(
            gradient[None, None], kernel[None, None], padding="same"
        )
    return padded[0, 0]


def peak_megabytes(call: Callable[[], object]) -> float:
    """Return the peak of additional memory during one call, scratch memory included."""
    distances.release_scratch()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Print one line a shape and variant."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=15, help="interleaved runs, medians are printed"
    )
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", BlankMapWarning)  # random gradients speak for no class
    print(f"{'shape':>14}  {'variant':<20}{'ms':>9}{'ratio':>8}{'peak MB':>9}")
    for shape in SHAPES:
        rng = np.random.default_rng(0)
        A = relu_like(rng, *shape)
        G = rng.normal(rng.normal(0, 5e-4, (shape[0], 1, 1)), 1e-3, shape).astype(np.float32)
        calls: dict[str, Callable[[], object]] = {
            "public method": lambda A=A, G=G: public_method(A, G)
        }
        for preset in ("reference", "default"):
            settings = cfcam.Settings.preset(preset)
            calls[f"cfcam {preset}"] = lambda A=A, G=G, settings=settings: cfcam.explain_arrays(
                A, G, settings=settings, size=SIZE
            )
        reference = cfcam.explain_arrays(
            A, G, settings=cfcam.Settings.preset("reference"), size=SIZE
        )
        assert np.abs(reference.heatmaps[0] - public_method(A, G)).max() < 5e-6
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(milliseconds(call))
        base = statistics.median(times["public method"])
        for name, call in calls.items():
            ms = statistics.median(times[name])
            peak = peak_megabytes(call)
            size = "x".join(map(str, shape))
            print(f"{size:>14}  {name:<20}{ms:>9.2f}{base / ms:>8.1f}{peak:>9.1f}", flush=True)


if __name__ == "__main__":
    main()

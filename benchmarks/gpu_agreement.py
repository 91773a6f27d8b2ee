"""Whether a GPU gives the captures a CPU gives, and how long both take.

Run: ``python benchmarks/gpu_agreement.py [MODEL.onnx ...]`` with onnxruntime-gpu; the demo's model
by default. Without a GPU it says so and sets the CPU against itself, to show that the script works.

Compared are logits, activations and gradients of the logit of one class, by the Euclidean length
of their difference relative to that of the CPU's: at a ReLU the two may fall on either side of
zero, which moves single gradients and not the whole. Products are taken in full float32 precision;
``--tf32`` lets the GPU round their factors to 10 bits, as onnxruntime does unless told otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cfcam_onnx
import numpy as np
from cfcam_onnx import OnnxBackend
from timing import taking_turns

from cfcam_core.demo.shipped import MODEL

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

AGREED = 1e-3
"""Largest relative difference that counts as agreement."""


def main() -> None:
    """Print a line a model, layer and batch; end with an error where they do not agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, default=[MODEL])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=224, help="of images, where a model's is open")
    parser.add_argument("--tf32", action="store_true", help="let the GPU round as it does")
    arguments = parser.parse_args()
    wide, worst = max(len(path.name) for path in arguments.models) + 2, 0.0
    for i, path in enumerate(arguments.models):
        host = cfcam_onnx.open_model(path, providers=[CPU])
        device = on_gpu(path, tf32=arguments.tf32)
        if not i:
            there = device.providers[0] == CUDA
            print("the GPU against the CPU" if there else "NO GPU HERE: the CPU against itself")
            print(
                f"{'model':<{wide}}{'layer':>7}{'batch':>6}{'logits':>10}{'activations':>13}"
                f"{'gradients':>11}{'CPU ms':>9}{'GPU ms':>9}"
            )
        for name, place in places(host).items():
            for batch in arguments.batch:
                x = images(host, batch, arguments.size)
                errors = differences(host, device, x, place)
                worst = max(worst, *errors)
                took = taking_turns(
                    {
                        "CPU": lambda x=x, m=host, at=place: m.capture(x, layer=at, target=0),
                        "GPU": lambda x=x, m=device, at=place: m.capture(x, layer=at, target=0),
                    },
                    arguments.rounds,
                )
                print(
                    f"{path.name:<{wide}}{name:>7}{batch:>6}{errors[0]:>10.1e}{errors[1]:>13.1e}"
                    f"{errors[2]:>11.1e}{took['CPU'].ms:>9.2f}{took['GPU'].ms:>9.2f}",
                    flush=True,
                )
    print(f"largest difference {worst:.1e}, allowed {AGREED:.0e}")
    if worst > AGREED:
        sys.exit(1)


def on_gpu(path: Path, *, tf32: bool) -> OnnxBackend:
    """Open a model on the GPU, or on the CPU where this onnxruntime knows of none."""
    from onnxruntime import get_available_providers

    if CUDA not in get_available_providers():
        return cfcam_onnx.open_model(path, providers=[CPU])
    return cfcam_onnx.open_model(path, providers=[(CUDA, {"use_tf32": str(int(tf32))}), CPU])


def places(model: OnnxBackend) -> dict[str, str]:
    """Return the default layer and the first one."""
    layers = model.layers()
    default = next(layer.name for layer in layers if layer.is_default)
    return {"default": default, "first": layers[0].name}


def images(model: OnnxBackend, batch: int, size: int) -> np.ndarray:
    """Return noise of the model's shape."""
    shape = (batch, *(length or size for length in model.input_shape[1:]))
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return noise.astype(model.input_dtype)


def differences(host: OnnxBackend, device: OnnxBackend, x: np.ndarray, layer: str) -> list[float]:
    """Return how far logits, activations and gradients on the device are from the host's."""
    one, other = (model.capture(x, layer=layer, target=0) for model in (host, device))
    pairs = [
        (one.scores, other.scores),
        (one.activations, other.activations),
        (one.gradients, other.gradients),
    ]
    return [float(np.linalg.norm(a - b) / (np.linalg.norm(a) or 1)) for a, b in pairs]


if __name__ == "__main__":
    main()

"""Train the network that `cfcam demo` ships, and write it with a few scenes into the package.

    python examples/digit_scenes/train.py            # writes digits.onnx and scenes.npz
    python examples/digit_scenes/train.py --check    # trains anew, compares, writes nothing

One thread and one seed: the same machine and library versions give the same bytes. Needs PyTorch,
onnx, onnxruntime and scikit-learn.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from network import CLASSES, Network, to_onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scenes import (
    TEST_SEED,
    TRAINING_SEED,
    Scenes,
    make_scenes,
    multi_hot,
    shipped_scenes,
    split_digits,
)
from torch import Tensor, nn

COMMAND = "python examples/digit_scenes/train.py"
PACKAGE = Path(__file__).resolve().parents[2] / "cfcam_core" / "demo"
SEED = 0
"""Of the first weights and of the order of the scenes."""
TEST_SCENES = 2000


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train."""

    scenes: int = 12_000
    epochs: int = 5
    batch: int = 64
    rate: float = 4e-3
    """Largest learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares between 0 and 1; a class counts as seen above logit 0."""

    labels: float
    """Of the ten yes-or-no answers a scene, the right ones. Always answering no gives 0.8."""
    scenes: float
    """Scenes with all ten answers right."""

    def __str__(self) -> str:
        return f"{self.labels:.4f} of labels, {self.scenes:.4f} of scenes"


def main() -> None:
    """Train, then write or compare."""
    options = _options()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    training, held_out = split_digits()
    test = make_scenes(TEST_SCENES, held_out, TEST_SEED)
    network = train(make_scenes(Plan().scenes, training, TRAINING_SEED), Plan())
    model = to_onnx(network, {})
    reached = accuracy(model, test)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    if options.check:
        shipped = onnx.load(options.out / "digits.onnx")
        print(f"newly trained: {reached}")
        print(f"shipped:       {accuracy(shipped, test)}")
        print(f"largest difference of a weight: {largest_difference(model, shipped):.3g}")
        return
    write(to_onnx(network, metadata(reached)), options.out / "digits.onnx")
    write_scenes(shipped_scenes(), options.out / "scenes.npz")
    print(f"accuracy on {TEST_SCENES} scenes of held-out digits: {reached}")


def train(scenes: Scenes, plan: Plan) -> Network:
    """Return a network trained with binary cross-entropy, first weights and order from `SEED`."""
    torch.manual_seed(SEED)
    network = Network()
    images = torch.from_numpy(scenes.images)
    answers = torch.from_numpy(multi_hot(scenes.labels))
    steps = len(images) // plan.batch
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=plan.rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=steps * plan.epochs, pct_start=0.2
    )
    criterion = nn.BCEWithLogitsLoss()
    for epoch in range(plan.epochs):
        total = 0.0
        for rows in _batches(len(images), plan.batch):
            loss = criterion(network(_inputs(images[rows])), answers[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {plan.epochs}: loss {total / steps:.4f}", flush=True)
    return network.eval()


def accuracy(model: onnx.ModelProto, scenes: Scenes) -> Accuracy:
    """Return how often the model is right, run by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    images = np.float32(scenes.images[:, None]) / 255
    logits = np.concatenate([session.run(None, {"image": part})[0] for part in _parts(images, 250)])
    right = (logits > 0) == (multi_hot(scenes.labels) > 0)
    return Accuracy(float(right.mean()), float(right.all(axis=1).mean()))


def largest_difference(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """Return the largest absolute difference of any weight of two models of one structure."""
    first, second = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (one, other)
    )
    if first.keys() != second.keys():
        raise SystemExit(f"the models differ in structure: {sorted(first.keys() ^ second.keys())}")
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def metadata(reached: Accuracy) -> dict[str, str]:
    """Return what the file says about itself."""
    return {
        "description": "which of the ten digits a scene of real handwriting holds",
        "training": COMMAND,
        "seed": str(SEED),
        "accuracy": f"{reached}, on {TEST_SCENES} scenes made from held-out digits",
        "classes": ",".join(CLASSES),
        "input": "image (N, 1, 64, 64), gray values in [0, 1]",
        "data": "UCI Optical Recognition of Handwritten Digits (CC BY 4.0), through scikit-learn",
    }


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model, all of it or nothing."""
    _replace(path, model.SerializeToString(deterministic=True))


def write_scenes(scenes: Scenes, path: Path) -> None:
    """Write images, labels and masks as a compressed ``.npz``."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, images=scenes.images, labels=scenes.labels.astype(np.uint8), masks=scenes.masks
    )
    _replace(path, buffer.getvalue())


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    print(f"wrote {path} ({len(content) / 1000:.0f} kB)")


def _inputs(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 64, 64) into the network's input."""
    return images[:, None].float() / 255


def _batches(count: int, size: int) -> Iterator[Tensor]:
    """Yield the indices of each batch of one epoch in random order, a last short one left out."""
    order = torch.randperm(count)
    return iter(order[: count // size * size].split(size))


def _parts(array: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    return (array[start : start + size] for start in range(0, len(array), size))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the shipped model; write nothing"
    )
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder of the two files")
    return parser.parse_args()


if __name__ == "__main__":
    main()

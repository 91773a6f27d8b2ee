"""Gradients of exported architectures against PyTorch's and TensorFlow's, and what they cost.

Run: ``python benchmarks/verification.py [--only NAME ...]``; it writes ``docs/verification.md``.
Architectures have their full size and random weights. What was measured is kept in
``.verification``, a file an architecture, and not measured again; those that `--only` names are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELPERS = ROOT / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cfcam_onnx
import numpy as np
import onnxruntime
from exporting import EXPORTERS, errors, export, like_capture, reference, reference64
from timing import taking_turns
from verification_page import Result, Row, page
from zoo import FULL, ZOO, make

PAGE = ROOT / "docs" / "verification.md"
KEPT = ROOT / ".verification"
TARGETS = [3, 7]
ROUNDS = 5
BATCH_8 = frozenset({"resnet50", "mobilenet_v2", "vit_s"})
"""Architectures whose cost is measured for 8 images as well."""
HALF = frozenset({"resnet50", "efficientnet_b0", "convnext_t", "vit_s"})
"""Architectures that are exported in float16 as well."""
KINDS = ("activations", "gradients", "gradients", "gradients64")
KERAS = ("MobileNetV2", "ResNet50", "EfficientNetB0")


@dataclass(frozen=True, eq=False, slots=True)
class Wanted:
    """What the source framework says of one layer, in float32."""

    label: str
    module: str
    activations: np.ndarray
    gradients: np.ndarray
    own: np.ndarray
    """Its gradients in the file's precision."""
    exact: np.ndarray
    """And in a better one, as the truth."""


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [*ZOO, *(f"keras-{name}" for name in KERAS)]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    for name in arguments.only or names:
        file = KEPT / f"{name}.json"
        if arguments.only or not file.exists():
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                found = (
                    keras_result(name, Path(folder))
                    if "keras" in name
                    else result(name, Path(folder))
                )
            file.write_text(json.dumps(asdict(found)))
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    files = [KEPT / f"{name}.json" for name in names]
    results = [Result.of(json.loads(file.read_text())) for file in files if file.exists()]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(results, rounds=ROUNDS))


def result(name: str, folder: Path) -> Result:
    """Export one PyTorch architecture by both exporters and compare."""
    net = make(name)
    wanted = [
        Wanted(label, path, each.activations, each.gradients, each.gradients, exact.gradients)
        for label, path in (("last", net.last), ("early", net.early))
        for each in [reference(net.model, net.x, path, TARGETS)]
        for exact in [reference64(net.model, net.x, path, TARGETS)]
    ]
    parameters = sum(p.numel() for p in net.model.parameters())
    source = type(net.model).__module__
    x, rows = net.x.numpy(), []
    for exporter in EXPORTERS:
        file = folder / f"{exporter}.onnx"
        export(net.model, net.x, file, exporter)
        batches = (1, 8) if name in BATCH_8 else (1,)
        rows += list(compared(file, exporter, x, wanted, batches))
        file.unlink()
    if name in HALF:
        net.model.half()
        for i, each in enumerate(wanted):
            own = reference(net.model, net.x.half(), each.module, TARGETS).gradients
            wanted[i] = replace(each, own=own, exact=each.gradients)
        export(net.model, net.x.half(), folder / "half.onnx", "dynamo")
        rows += list(compared(folder / "half.onnx", "dynamo", x, wanted, ()))
    origin = "own PyTorch code" if source == "plain_nets" else "transformers"
    return Result(name, origin, FULL, parameters, net.smooth, rows)


def keras_result(name: str, folder: Path) -> Result:
    """Export one network of keras.applications, in a process of its own, and compare."""
    network = name.removeprefix("keras-")
    command = [sys.executable, HELPERS / "keras_zoo.py", network, folder]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own script
    with np.load(folder / f"{network}.npz") as arrays:
        known = dict(arrays)
    wanted = [
        Wanted(
            label,
            layer.item(),
            *(known[f"{label}_{kind}"] for kind in KINDS),
        )
        for label, layer in zip(("last", "early"), known["layers"], strict=True)
    ]
    rows: list[Row] = []
    for exporter in ("keras", "tf2onnx"):
        file = folder / f"{network}-{exporter}.onnx"
        rows += list(compared(file, exporter, known["x"], wanted, (1,)))
    smooth = network == "EfficientNetB0"
    return Result(name, "keras.applications", FULL, int(known["parameters"]), smooth, rows)


def compared(
    file: Path, exporter: str, x: np.ndarray, wanted: list[Wanted], batches: tuple[int, ...]
) -> Iterator[Row]:
    """Compare one file's gradients at each layer, and time them."""
    for each in wanted:
        start = time.perf_counter()
        model = cfcam_onnx.open_model(file, threads=1, cache=False)
        capture = model.capture(x, layer=each.module, target=TARGETS)
        first = time.perf_counter() - start
        shape = capture.activations.shape
        activations, gradients, own, exact = (
            like_capture(one, shape)
            for one in (each.activations, each.gradients, each.own, each.exact)
        )
        same = errors(capture.activations, activations)
        assert same.cosine > 0.99, f"{file}: {capture.layer} is not {each.module}"
        (default,) = [layer.name for layer in model.layers() if layer.is_default]
        yield Row(
            exporter=exporter,
            label=each.label,
            module=each.module,
            is_default=capture.layer == default,
            shape=shape[1:],
            error=asdict(errors(capture.gradients, gradients)),
            against_exact=asdict(errors(capture.gradients, exact)),
            own=asdict(errors(own, exact)),
            seconds=first,
            ratios=[cost(file, model, x, each.module, batch) for batch in batches],
        )


def cost(file: Path, model: cfcam_onnx.OnnxBackend, x: np.ndarray, layer: str, batch: int) -> float:
    """Return how many times as long as a plain forward run one with gradients takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(file, options)
    images = np.resize(x, (batch, *x.shape[1:]))
    known, *unread = plain.get_inputs()  # tf2onnx lists constants among the inputs
    feeds = {one.name: np.zeros(one.shape, np.float32) for one in unread} | {known.name: images}
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: plain.run(None, feeds),
        "gradient": lambda: model.capture(images, layer=layer, target=0),
    }
    return taking_turns(calls, ROUNDS)["gradient"].ratio


if __name__ == "__main__":
    main()

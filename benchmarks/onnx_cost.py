"""What a gradient costs on top of a plain onnxruntime forward run, layer by layer.

Run: ``python benchmarks/onnx_cost.py [MODEL.onnx]``; the demo's model by default. Forward and
gradient take turns in one process on one thread, so the ratios hold on a busy machine; absolute
times do not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import cfcam_onnx
import numpy as np
import onnxruntime
from timing import milliseconds

from cfcam_core.demo.shipped import MODEL

FORWARD = "forward, onnxruntime"


def main() -> None:
    """Print one line a layer and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=9, help="medians of so many are printed")
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(arguments.model, options)
    model = cfcam_onnx.open_model(arguments.model, threads=1)
    layers = list(model.layers())
    default = next(i for i, layer in enumerate(layers) if layer.is_default)
    chosen = [layers[default], layers[default // 2], layers[0]]
    print(f"{arguments.model.name}, one thread\n{'layer':<24}{'batch':>6}{'ms':>9}{'ratio':>8}")
    for batch in (1, 8):
        shape = (batch, *(size or 224 for size in model.input_shape[1:]))
        x = np.random.default_rng(0).random(shape, np.float32).astype(model.input_dtype)
        feeds = {model.input_names[0]: x}
        calls: dict[str, Callable[[], object]] = {
            "forward, onnxruntime": lambda f=feeds: plain.run(None, f)
        }
        for layer in chosen:
            calls[layer.name] = lambda x=x, name=layer.name: model.capture(x, layer=name, target=0)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(arguments.rounds):
            for name, call in calls.items():
                times[name].append(milliseconds(call))
        base = statistics.median(times[FORWARD])
        for name, each in times.items():
            ms = statistics.median(each)
            mark = " (default)" if name == layers[default].name else ""
            print(f"{name + mark:<24}{batch:>6}{ms:>9.2f}{ms / base:>8.2f}", flush=True)


if __name__ == "__main__":
    main()

"""What a gradient, and a whole explanation, cost on top of a plain onnxruntime forward run.

Run: ``python benchmarks/onnx_cost.py [MODEL.onnx] [--layer NAME ...]``; the demo's model by
default. All calls take turns in one process on one thread, in many short rounds; counted is the
processor's time, and each ratio is the median of the rounds' own ratios, so they hold on a busy
machine, absolute times less so. In brackets stands between what ratios the middle half of the
rounds lies.
"""

from __future__ import annotations

import argparse
import os
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from collections.abc import Callable, Sequence
from pathlib import Path

import cfcam_onnx
import numpy as np
import onnxruntime
from timing import taking_turns

import cfcam_core as cfcam
from cfcam_core.demo.shipped import MODEL


def main() -> None:
    """Print a line a call and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    parser.add_argument(
        "--layer",
        action="append",
        help="one to measure besides the default, by name or number; without: two earlier ones",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument(
        "--size", type=int, default=224, help="of the image, where the model's is open"
    )
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(arguments.model, options)
    model = cfcam_onnx.open_model(arguments.model, threads=1)
    layers = measured(model, arguments.layer)
    width = max(map(len, layers)) + 12
    print(f"{arguments.model.name}, one thread, {arguments.rounds} rounds")
    print(f"{'call':<{width}}{'batch':>6}{'ms':>9}{'ratio':>8}")
    for batch in arguments.batch:
        shape = (batch, *(size or arguments.size for size in model.input_shape[1:]))
        x = np.random.default_rng(0).standard_normal(shape, np.float32).astype(model.input_dtype)
        feeds = {model.input_names[0]: x}
        calls: dict[str, Callable[[], object]] = {
            "forward, onnxruntime": lambda f=feeds: plain.run(None, f)
        }
        for name in layers:
            calls[name] = lambda x=x, name=name: model.capture(x, layer=name)
        calls[f"these {len(layers)} at once"] = lambda x=x: model.captures(x, layers=layers)
        calls["explain"] = lambda x=x: cfcam.explain(model, x, layer=layers[0])
        for name, took in taking_turns(calls, arguments.rounds, clock=time.process_time).items():
            mark = " (default)" if name == layers[0] else ""
            print(
                f"{name + mark:<{width}}{batch:>6}{took.ms:>9.2f}{took.ratio:>8.3f}"
                f"  [{took.low:.3f} to {took.high:.3f}]",
                flush=True,
            )


def measured(model: cfcam_onnx.OnnxBackend, asked: Sequence[str] | None) -> list[str]:
    """Return the names of the layers to measure, the default first."""
    names = [layer.name for layer in model.layers()]
    default = next(i for i, layer in enumerate(model.layers()) if layer.is_default)
    if asked is None:
        return [names[default], names[default // 2], names[0]]
    others = [names[int(each)] if each.lstrip("-").isdigit() else each for each in asked]
    return [names[default], *others]


if __name__ == "__main__":
    main()

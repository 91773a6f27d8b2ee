"""What the cache on disk saves a fresh process: opening a model, and the first capture.

Run: ``python benchmarks/onnx_opening.py MODEL.onnx ...``. Every time is that of a new process with
one thread, imports not counted; without a cache, with an empty one, and with one that has seen the
model take turns, and medians are printed. ``hash`` is the time to read all weights once for their
sum, which is spent only where a trial run is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

CODE = """
import json, sys, time
import cfcam_onnx
import numpy as np
from cfcam_onnx._cache import Entries, find_cache

clock = time.perf_counter
start = clock()
model = cfcam_onnx.open_model(sys.argv[1], threads=1)
opened = clock()
shape = (1, *(size or int(sys.argv[2]) for size in model.input_shape[1:]))
model.capture(np.random.default_rng(0).standard_normal(shape).astype(model.input_dtype))
captured = clock()
graph = model._model.graph
Entries(find_cache("unused")).of(graph.model, graph.weights)
megabytes = sum(array.nbytes for array in graph.weights.values()) / 1e6
print(json.dumps([opened - start, captured - opened, clock() - captured, megabytes]))
"""


def main() -> None:
    """Print a line a model and state of the cache."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="of the image, where it is open")
    arguments = parser.parse_args()
    wide = max(len(path.name) for path in arguments.models) + 2
    print(
        f"{'model':<{wide}}{'MB':>7}{'hash s':>8}  {'cache':<7}{'open s':>8}{'capture s':>11}"
        f"{'both':>7}"
    )
    for path in arguments.models:
        times: dict[str, list[list[float]]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(arguments.rounds):
                for state, place in (("none", "off"), ("empty", folder), ("full", folder)):
                    if state == "empty":
                        shutil.rmtree(folder, ignore_errors=True)
                    times[state].append(timed(path, arguments.size, place))
        for state, each in times.items():
            opening, capture, summing, megabytes = map(statistics.median, zip(*each, strict=True))
            print(
                f"{path.name:<{wide}}{megabytes:>7.0f}{summing:>8.2f}  {state:<7}{opening:>8.2f}"
                f"{capture:>11.2f}{opening + capture:>7.2f}",
                flush=True,
            )


def timed(path: Path, size: int, cache: str) -> list[float]:
    """Return seconds for opening, the first capture and the sum of the weights; megabytes."""
    told = {"CFCAM_CACHE": cache, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CODE, path, str(size)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **told},
    )
    found: list[float] = json.loads(run.stdout)
    return found


if __name__ == "__main__":
    main()

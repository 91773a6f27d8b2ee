"""What a gradient, and a whole explanation, cost on top of a plain PyTorch forward run.

Run: ``python benchmarks/torch_cost.py``. ResNet-50 with seeded weights, images of 224 x 224. All
calls take turns in one process on one thread, in many short rounds; counted is the processor's
time, and each ratio is the median of the rounds' own ratios, so they hold on a busy machine,
absolute times less so. In brackets stands between what ratios the middle half of the rounds lies.
Other libraries' Grad-CAM runs in the same rounds, for scale. Then the memory that a call
takes at its peak, each in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).parents[1] / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))

import cfcam_torch
import torch
import zoo
from captum.attr import LayerGradCam
from timing import taking_turns
from torchcam.methods import GradCAM

import cfcam_core as cfcam

EARLY = "net.resnet.encoder.stages.0"
LAST = "net.resnet.encoder.stages.3"


def main() -> None:
    """Print a line a call and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = zoo.make("resnet50").model
    if arguments.memory_of is not None:
        print(megabytes(calls(model, arguments.batch[0])[arguments.memory_of]))
        return
    print(f"ResNet-50, one thread, {arguments.rounds} rounds")
    print(f"{'call':<34}{'batch':>6}{'ms':>9}{'ratio':>8}")
    for batch in arguments.batch:
        turns = taking_turns(calls(model, batch), arguments.rounds, clock=time.process_time)
        for name, took in turns.items():
            print(
                f"{name:<34}{batch:>6}{took.ms:>9.1f}{took.ratio:>8.3f}"
                f"  [{took.low:.3f} to {took.high:.3f}]",
                flush=True,
            )
    batch = arguments.batch[-1]
    print(f"\nmemory at the peak beyond what is held before, batch {batch}, MB (Linux)")
    for name in calls(model, batch):
        command = [sys.executable, __file__, "--batch", str(batch), "--memory-of", name]
        environment = {**os.environ, **RETURNED}
        done = subprocess.run(  # noqa: S603 - this file
            command, capture_output=True, text=True, check=True, env=environment
        )
        print(f"{name:<34}{float(done.stdout):>8.0f}", flush=True)


def calls(model: Any, batch: int) -> dict[str, Callable[[], object]]:
    """Return what is measured, the plain forward run first."""
    x = zoo.images(batch, zoo.FULL)
    opened = cfcam_torch.open_model(model)
    assert opened.capture(x[:1]).layer == opened.capture(x[:1], layer=LAST).layer
    last = model.get_submodule(LAST)
    classes = opened.scores(x).argmax(axis=1).tolist()
    captum, torchcam = LayerGradCam(model, last), GradCAM(model, last)
    torchcam.disable_hooks()

    def forward() -> object:
        with torch.inference_mode():
            return model(x)

    def by_torchcam() -> object:
        torchcam.enable_hooks()
        try:
            return torchcam(classes, model(x))
        finally:
            torchcam.disable_hooks()
            torchcam.reset_hooks()

    def backward() -> object:
        model(x).amax(1).sum().backward()
        return model.zero_grad(set_to_none=True)

    return {
        "forward, torch": forward,
        "capture, default layer": lambda: opened.capture(x),
        f"capture, {EARLY.removeprefix('net.resnet.')}": lambda: opened.capture(x, layer=EARLY),
        "explain, CF-CAM": lambda: cfcam.explain(opened, x),
        "explain, Grad-CAM": lambda: cfcam.explain(opened, x, method="grad-cam"),
        "captum, LayerGradCam": lambda: captum.attribute(x, classes),
        "torch-cam, GradCAM": by_torchcam,
        "forward and full backward": backward,
    }


RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Under these, memory that is freed goes back at once, so that what is held is what is in use."""


def megabytes(call: Callable[[], object]) -> float:
    """Return how much more memory a call holds at its peak than was held before it, in MB."""
    call()  # what is made once and kept
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _held("VmRSS")
    call()
    return _held("VmHWM") - before


def _held(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()

"""From a PyTorch module to an ``.onnx`` file, and what autograd says of its gradients."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

EXPORTERS = ("dynamo", "legacy")


def export(
    model: Any, x: torch.Tensor, path: Path, exporter: str, opset: int | None = None
) -> None:
    """Write a module to a file that takes any number of samples."""
    names = {"input_names": ["x"], "output_names": ["logits"], "opset_version": opset}
    with quiet():
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},)
            how = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False}
        else:
            how = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}}
        torch.onnx.export(model, (x,), path, **names, **how)


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the exporters print and warn of."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """What PyTorch says: a module's output and the gradients there, as the module has its axes."""

    activations: np.ndarray
    gradients: np.ndarray
    scores: np.ndarray


def reference(model: Any, x: torch.Tensor, path: str, classes: list[int]) -> Reference:
    """Differentiate the logit of a class a sample with respect to a module's output.

    The logits are what the model returns, or the output of the module that ``model.logits`` names.
    """
    with output_of(model, path) as seen, output_of(model, getattr(model, "logits", "")) as last:
        model(x.clone().requires_grad_())
    (activations,), (logits,) = seen, last
    chosen = logits[torch.arange(len(x)), torch.tensor(classes)].sum()
    (gradients,) = torch.autograd.grad(chosen, activations)
    return Reference(*(t.detach().numpy() for t in (activations, gradients, logits)))


@contextmanager
def output_of(model: Any, path: str) -> Iterator[list[torch.Tensor]]:
    """Collect what a module returns; a copy goes on, for what follows may change it in place."""
    seen: list[torch.Tensor] = []

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        first, *rest = output if isinstance(output, tuple) else (output,)
        seen.append(first)
        return (first.clone(), *rest) if isinstance(output, tuple) else first.clone()

    handle = model.get_submodule(path).register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def reference64(model: Any, x: torch.Tensor, path: str, classes: list[int]) -> Reference:
    """Do the same in float64: what PyTorch's own float32 is measured against."""
    return reference(copy.deepcopy(model).double(), x.double(), path, classes)


def like_capture(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring a module's output into a capture's shape (N, C, *s).

    Tokens (N, T, C) become (N, C, T), or (N, C, h, w) where the capture has folded them: without
    the prefix tokens, which come first. Channels that are last go to the second axis.
    """
    if array.shape == shape:
        return array
    first = np.moveaxis(array, -1, 1)
    if first.shape[:2] != shape[:2]:
        raise AssertionError(f"a module's output {array.shape} is no layer of shape {shape}")
    if first.shape != shape:
        first = first[:, :, first.shape[2] - int(np.prod(shape[2:])) :]
    return first.reshape(shape)


@dataclass(frozen=True, slots=True)
class Errors:
    """How far gradients are from others."""

    largest: float
    """max|a - b| / max|b|"""
    l2: float
    """|a - b| / |b|, Euclidean"""
    cosine: float
    """Least cosine of the angle between the two, over the samples."""


def errors(a: np.ndarray, b: np.ndarray) -> Errors:
    a, b = (v.astype(np.float64).reshape(len(v), -1) for v in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return Errors(
        float(np.abs(a - b).max() / np.abs(b).max()),
        float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        float(((a * b).sum(axis=1) / norms).min()),
    )

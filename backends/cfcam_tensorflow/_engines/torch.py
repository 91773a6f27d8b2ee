"""Keras on PyTorch: autograd from the first tap on; parameters get no gradient, whatever they want.

Keras' layers are called past PyTorch's own hooks, so none are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_tensorflow._engines import Recording, Run

KEEPS_NOTES = True


def tensor(array: NDArray[Any]) -> Any:
    """Return an array as a tensor of its dtype, on the device that Keras computes on."""
    return keras.ops.convert_to_tensor(array.copy(), dtype=array.dtype.name)


def array(x: Any) -> NDArray[Any]:
    """Return a tensor as an array, float32 from any float."""
    x = x.detach()
    return (x.float() if x.is_floating_point() else x).cpu().numpy()  # type: ignore[no-any-return]


def is_value(x: Any) -> bool:
    """Return whether `x` is a tensor of floats that holds numbers."""
    return bool(torch.is_tensor(x) and x.is_floating_point() and x.device.type != "meta")


def forward(run: Run) -> tuple[Any, Mapping[str, Any]]:
    """Run without recording."""
    taken: dict[str, Any] = {}

    def tap(place: str, x: Any) -> Any:
        taken[place] = x
        return x.clone()  # what is changed in place later on must not change what was taken

    with _recording(wanted=False):
        return run(tap), taken


def record(run: Run) -> Recording:
    """Run with autograd."""
    taken: dict[str, Any] = {}

    def tap(place: str, x: Any) -> Any:
        # what led to the first tap is let go; between two taps the way must stay
        inner = bool(taken) and x.requires_grad
        taken[place] = x if inner else x.detach().requires_grad_()
        with torch.enable_grad():  # a model may have switched it off
            return taken[place].clone()

    with _recording(wanted=True):
        explained = run(tap)

    def pull(cotangents: NDArray[Any]) -> dict[str, NDArray[np.float32] | None]:
        if not taken or not explained.requires_grad:
            return dict.fromkeys(taken)
        seeds = tensor(cotangents).to(explained)
        try:
            found = torch.autograd.grad(explained, [*taken.values()], seeds, allow_unused=True)
        except RuntimeError as error:
            raise InvalidInputError(
                f"PyTorch cannot compute the gradients: {error}; was the model trained meanwhile?"
            ) from error
        return {p: None if g is None else array(g) for p, g in zip(taken, found, strict=True)}

    return Recording(explained, taken, pull)


@contextmanager
def _recording(*, wanted: bool) -> Iterator[None]:
    """Switch autograd on or off, also where the caller is in an inference mode."""
    with torch.inference_mode(mode=False), torch.set_grad_enabled(wanted):
        yield

"""Keras on TensorFlow: a tape that watches nothing but what is tapped.

Until the first tap nothing is recorded, and of no variable is there ever a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cfcam_tensorflow._engines import Recording, Run

KEEPS_NOTES = True


def tensor(array: NDArray[Any]) -> Any:
    """Return an array as a tensor of its dtype."""
    return tf.constant(array)


def array(x: Any) -> NDArray[Any]:
    """Return a tensor as an array, float32 from any float."""
    x = tf.convert_to_tensor(x)
    return (tf.cast(x, tf.float32) if x.dtype.is_floating else x).numpy()  # type: ignore[no-any-return]


def is_value(x: Any) -> bool:
    """Return whether `x` is an eager tensor of floats."""
    return tf.is_tensor(x) and hasattr(x, "numpy") and x.dtype.is_floating


def forward(run: Run) -> tuple[Any, Mapping[str, Any]]:
    """Run without recording."""
    taken: dict[str, Any] = {}

    def tap(place: str, x: Any) -> Any:
        taken[place] = x
        return x

    return run(tap), taken


def record(run: Run) -> Recording:
    """Run under a tape."""
    taken: dict[str, Any] = {}
    tape = tf.GradientTape(watch_accessed_variables=False)

    def tap(place: str, x: Any) -> Any:
        taken[place] = tf.identity(x)
        tape.watch(taken[place])
        return taken[place]

    with tape:
        explained = run(tap)

    def pull(cotangents: NDArray[Any]) -> dict[str, NDArray[np.float32] | None]:
        seeds = tf.cast(cotangents, explained.dtype)
        found = tape.gradient(explained, taken, output_gradients=seeds)
        return {place: None if g is None else array(g) for place, g in found.items()}

    return Recording(explained, taken, pull)

"""Which of a model's outputs are the scores, and in what shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from cfcam_core.errors import InvalidInputError


def choose(raw: Any, output: Any, names: list[str]) -> Any:
    """Return the part of what a model returned that is to be explained.

    Parameters
    ----------
    raw : tensor, or tuple, list or dict of tensors
    output : None, str, int or callable
        A key, an attribute, an index, a function of `raw`; None is the first that looks like
        scores (N, K), or `raw` itself where none does.
    names : list of str
        What the model calls its outputs.

    Raises
    ------
    InvalidInputError
        There is no such part.
    """
    if output is None:
        leaves = keras.tree.flatten(raw)
        return next((one for one in leaves if score_shape(one) is not None), raw)
    if callable(output):
        return output(raw)
    if isinstance(output, str):
        if isinstance(raw, Mapping) and output in raw:
            return raw[output]
        if output in names and isinstance(raw, list | tuple) and len(raw) == len(names):
            return raw[names.index(output)]
        if output.isidentifier() and not keras.ops.is_tensor(raw) and hasattr(raw, output):
            return getattr(raw, output)
    elif isinstance(output, int) and not isinstance(output, bool):
        parts = keras.tree.flatten(raw)
        if -len(parts) <= output < len(parts):
            return parts[output]
    raise InvalidInputError(
        f"output={output!r} is no part of what the model returns: {described(raw, names)}; pass a "
        "key, an index, or a function of the whole"
    )


def score_shape(x: Any) -> tuple[int, int] | None:
    """Return (N, K) if a tensor holds scores: (N, K), (N, K, 1, 1), (N, 1, 1, K), (N,); or None."""
    shape = tuple(getattr(x, "shape", ()))
    longer = [size for size in shape[1:] if size != 1]
    if not keras.ops.is_tensor(x) or not shape or len(longer) > 1 or "float" not in dtype_name(x):
        return None
    return (shape[0], longer[0] if longer else 1)


def as_scores(x: Any, samples: int) -> Any | None:
    """Return a tensor as scores (N, K); None if it holds none."""
    shape = score_shape(x)
    if shape is None or shape[0] != samples:
        return None
    return x if tuple(x.shape) == shape else keras.ops.reshape(x, shape)


def dtype_name(x: Any) -> str:
    """Return the name of a tensor's dtype."""
    return str(keras.backend.standardize_dtype(x.dtype))


def is_mask(x: Any) -> bool:
    """Return whether a tensor holds truth values."""
    return dtype_name(x) == "bool"


def described(raw: Any, names: list[str]) -> str:
    """Return shapes and names of all outputs, for people."""
    leaves = keras.tree.flatten_with_path(raw)
    if isinstance(raw, list | tuple) and len(leaves) == len(names):
        leaves = [((name,), x) for name, (_, x) in zip(names, leaves, strict=True)]
    parts = [
        f"{'.'.join(map(str, path)) + ': ' if path else ''}{tuple(getattr(x, 'shape', ()))}"
        for path, x in leaves
    ]
    return ", ".join(parts) or type(raw).__name__

"""ONNX models for cfcam: exact gradients of any ``.onnx`` classifier, run by plain onnxruntime.

The backward pass is written into a copy of the graph as ordinary ONNX nodes. Neither torch nor
tensorflow is ever imported here, and the user's file is never written to.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from os import PathLike
from typing import Any

from cfcam_core.backend import Layer
from cfcam_core.errors import InvalidInputError
from cfcam_onnx._backend import OnnxBackend as OnnxBackend
from cfcam_onnx._limits import Limits as Limits
from cfcam_onnx._reading import read_model
from cfcam_onnx._ready import OURS, Facts, Tensors
from cfcam_onnx._ready import ReadyBackend as ReadyBackend

__all__ = ["Limits", "OnnxBackend", "ReadyBackend", "export", "open_model"]


def open_model(
    model: Any,
    *,
    output: str | None = None,
    look_through: bool = True,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
    cache: bool | str | PathLike[str] = True,
    limits: Limits | None = None,
    activations: str | None = None,
    gradients: str | None = None,
    scores: str | None = None,
    class_index: str | None = None,
    channels_last: bool = False,
) -> OnnxBackend | ReadyBackend:
    """Open an ONNX model for explaining: a classifier, or one that has its gradients inside.

    A file that `export` has written is recognised. Of another that hands out activations and
    gradients, say what they are called.

    Parameters
    ----------
    model, output, look_through, providers, threads, cache, limits : optional
        See `OnnxBackend`.
    activations, gradients : str, optional
        Outputs (N, C, *s) of a ready model: a layer, and the gradient of a class score with
        respect to it. Named together.
    scores : str, optional
        Output (N, K) of a ready model: the logits.
    class_index : str, optional
        Input (N,) of a ready model: the class that the gradients are of. Without it that class is
        not known; the targets of an explanation are then -1, and none can be chosen.
    channels_last : bool
        Whether activations and gradients are (N, *s, C).

    Raises
    ------
    InvalidInputError
        As for `OnnxBackend`; a name is missing or not in the file, or what it names does not fit.
    UnsupportedOpError
        As for `OnnxBackend`.

    Warns
    -----
    UserWarning
        Both onnxruntime and onnxruntime-gpu are installed: they overwrite each other's files.
    """
    _warn_of_two_runtimes()
    read = read_model(model, limits)
    facts = None if activations or gradients else Facts.read(read.model)
    if facts is not None:
        tensors = OURS
    elif activations is not None and gradients is not None:
        tensors = Tensors(activations, gradients, scores, class_index, channels_last)
    else:
        if activations or gradients or scores or class_index or channels_last:
            raise InvalidInputError(
                "of a model that has its gradients inside, name both outputs: activations= and "
                "gradients=; scores=, class_index= and channels_last= go with them"
            )
        return OnnxBackend(
            read,
            output=output,
            look_through=look_through,
            providers=providers,
            threads=threads,
            cache=cache,
            limits=limits,
        )
    if output is not None:
        raise InvalidInputError(
            f"output={output!r} cannot be chosen: the model has its gradients inside. Open the "
            "original, or name the scores with scores="
        )
    return ReadyBackend(
        read, tensors, facts=facts, providers=providers, threads=threads, limits=limits
    )


def export(
    model: Any,
    path: str | PathLike[str],
    *,
    layer: Any = None,
    output: str | None = None,
    look_through: bool = True,
    limits: Limits | None = None,
    with_map: bool = False,
) -> Layer:
    """Write a model that explains itself, for any runtime.

    Parameters
    ----------
    model, output, look_through, limits : optional
        See `OnnxBackend`.
    path, layer, with_map : optional
        See `OnnxBackend.export`, and there also what is returned, raised and warned of.

    Examples
    --------
    >>> cfcam_onnx.export("model.onnx", "model.explain.onnx")  # doctest: +SKIP
    """
    opened = OnnxBackend(model, output=output, look_through=look_through, limits=limits)
    return opened.export(path, layer=layer, with_map=with_map)


def _warn_of_two_runtimes() -> None:
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(found) > 1:
        warnings.warn(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "uninstall both, then install the one you want",
            stacklevel=3,
        )


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True

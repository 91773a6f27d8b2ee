"""ONNX models for cfcam: exact gradients of any ``.onnx`` classifier, run by plain onnxruntime.

The backward pass is written into a copy of the graph as ordinary ONNX nodes. Neither torch nor
tensorflow is ever imported here, and the user's file is never written to.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from cfcam_onnx._backend import OnnxBackend as OnnxBackend

__all__ = ["OnnxBackend", "open_model"]


def open_model(
    model: Any,
    *,
    output: str | None = None,
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
) -> OnnxBackend:
    """Open an ONNX classifier for explaining; see `OnnxBackend` for parameters and errors.

    Warns
    -----
    UserWarning
        Both onnxruntime and onnxruntime-gpu are installed: they overwrite each other's files.
    """
    _warn_of_two_runtimes()
    return OnnxBackend(model, output=output, providers=providers, threads=threads)


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

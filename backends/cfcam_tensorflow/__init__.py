"""Keras models: not opened by this version. Exporting to ONNX is, and so are arrays."""

from __future__ import annotations

from typing import Any, NoReturn

from cfcam_core import BackendNotFoundError


def open_model(model: Any) -> NoReturn:
    """Say what to do with a Keras model in this version.

    Raises
    ------
    BackendNotFoundError
        Always: the Keras backend is the next release's.
    """
    what = str(model) if isinstance(model, str) or hasattr(model, "__fspath__") else type(model)
    raise BackendNotFoundError(
        f"{what} is a Keras model, which this version of cfcam does not open; "
        'export it with model.export("model.onnx", format="onnx"), which needs tf2onnx, and pass '
        "that file, "
        "or pass activations and gradients to explain_arrays"
    )

"""PyTorch models: not opened by this version. Exporting to ONNX is, and so are arrays."""

from __future__ import annotations

from typing import Any, NoReturn

from cfcam_core import BackendNotFoundError


def open_model(model: Any) -> NoReturn:
    """Say what to do with a PyTorch model in this version.

    Raises
    ------
    BackendNotFoundError
        Always: the PyTorch backend is the next release's.
    """
    raise BackendNotFoundError(
        f"{type(model).__qualname__} is a PyTorch model, which this version of cfcam does not "
        "open; export it with torch.onnx.export, which needs onnxscript, and pass the .onnx file, "
        "or pass activations and gradients to explain_arrays"
    )

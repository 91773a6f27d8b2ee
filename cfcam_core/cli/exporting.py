"""``cfcam export``: a model that explains itself, written to a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cfcam_core as cfcam
from cfcam_core.errors import InvalidInputError, LayerNotFoundError


def export_path(model: Path) -> Path:
    """Return what the file is called by default: in this folder, named after the model."""
    return Path(f"{model.stem}.explain{model.suffix}")


def export(backend: cfcam.Backend, out: Path, *, layer: str | None, with_map: bool) -> str:
    """Write the file; return a line that says what it explains.

    Parameters
    ----------
    backend : Backend
        Must have a method ``export``, as that of the ONNX backend.
    out : Path
    layer : str or None
        Name of a layer, else a number in the list of ``cfcam layers``; None for the default.
    with_map : bool
        Whether the file makes the Grad-CAM map, too.

    Raises
    ------
    CfcamError
        Models of this kind cannot be exported; the layer, an operator or the file do not fit.
    """
    write: Any = getattr(backend, "export", None)
    if write is None:
        raise InvalidInputError(
            "an explain-ready file cannot be made of this model: it is one already, or no .onnx "
            "file; pass the original .onnx file"
        )
    try:
        made = write(out, layer=layer, with_map=with_map)
    except LayerNotFoundError as error:
        index = None
        with suppress(TypeError, ValueError):
            index = int(layer)  # type: ignore[arg-type]
        if index is None:
            raise LayerNotFoundError(f"{error}; all are listed by: cfcam layers") from error
        made = write(out, layer=index, with_map=with_map)
    shape = " x ".join("?" if size is None else str(size) for size in made.shape)
    size = out.stat().st_size / 1e6
    return f"{out}: {size:.1f} MB, explains layer {made.name}, activations {shape}"

"""``cfcam layers``: what can be explained, as a table."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

import cfcam_core as cfcam
from cfcam_core.cli.inputs import NO_LAYER
from cfcam_core.errors import InvalidInputError, LayerNotFoundError

Row = tuple[str, ...]


def table(backend: cfcam.Backend) -> tuple[Row, list[Row]]:
    """Return headings and rows; modules have a column where a layer has one.

    Raises
    ------
    CfcamError
        There is no layer; operators without a gradient are named if they are to blame.
    """
    listed = backend.layers()
    if not listed:
        raise _no_layer(backend)
    titles: Row = ("#", "layer", "shape", "kind", "module", "")
    rows: list[Row] = [
        (
            str(index),
            layer.name,
            " x ".join("?" if n is None else str(n) for n in layer.shape),
            layer.kind,
            layer.module,
            "default" if layer.is_default else "",
        )
        for index, layer in enumerate(listed)
    ]
    if not any(layer.module for layer in listed):
        titles, *rows = [(*row[:4], row[5]) for row in (titles, *rows)]
    return titles, rows


def _no_layer(backend: cfcam.Backend) -> cfcam.CfcamError:
    """Return why a model has no layers: what an attempt to explain zeros says, if that is more."""
    shape = getattr(backend, "input_shape", None) or ()
    try:
        with suppress(InvalidInputError, LayerNotFoundError):
            backend.capture(np.zeros([size or 1 for size in shape], np.float32))
    except cfcam.CfcamError as error:
        return error
    return LayerNotFoundError(NO_LAYER)

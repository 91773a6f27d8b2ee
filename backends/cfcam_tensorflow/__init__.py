"""Keras models for cfcam: sequential, functional, nested and subclassed; on any backend of Keras.

The calls of layers are intercepted for the time of a run; no other model is built of the user's.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from cfcam_core.backend import Backend
from cfcam_tensorflow._backend import KerasBackend as KerasBackend
from cfcam_tensorflow._loading import inside, load

__all__ = ["KerasBackend", "open_model"]


def open_model(
    model: Any, *, output: Any = None, look_through: bool = True, example: Any = None
) -> Backend:
    """Open a Keras model for explaining.

    Parameters
    ----------
    model : keras.Model, keras.layers.Layer, tf.function, str or path
        A model of Keras 3, a function that calls one, a ``.keras`` or ``.h5`` file, also one that
        an older tf.keras has written, or the folder of a SavedModel.
    output, look_through, example : optional
        See `KerasBackend`.

    Returns
    -------
    Backend
        A `KerasBackend`; of a SavedModel a backend of the same kind.

    Raises
    ------
    InvalidInputError
        The model cannot be loaded or run, is of Keras 2, or is no model.
    BackendNotFoundError
        Keras runs on a framework that is not known here.

    Examples
    --------
    >>> cfcam_tensorflow.open_model(model).layers()  # doctest: +SKIP
    """
    if isinstance(model, str | PathLike):
        if Path(model).is_dir():
            from cfcam_tensorflow._saved_model import open_saved_model

            return open_saved_model(
                model, output=output, look_through=look_through, example=example
            )
        model = load(model)
    called, roots = inside(model)
    return KerasBackend(called, roots, output=output, look_through=look_through, example=example)

"""Keras models for cfcam: sequential, functional, nested and subclassed; on any backend of Keras.

The calls of layers are intercepted for the time of a run; no other model is built of the user's.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

from cfcam_core.backend import Backend
from cfcam_core.errors import BackendUnavailableError
from cfcam_tensorflow._backend import KerasBackend as KerasBackend
from cfcam_tensorflow._loading import inside, is_saved_model, load

__all__ = ["KerasBackend", "open_model"]


def open_model(
    model: Any, *, output: Any = None, look_through: bool = True, example: Any = None
) -> Backend:
    """Open a Keras model for explaining.

    Parameters
    ----------
    model : keras.Model, keras.layers.Layer, tf.function, str or path
        A model of Keras 3, a function that calls one, a ``.keras`` or ``.h5`` file, also one that
        an older tf.keras has written; the folder of a SavedModel, what `tf.saved_model.load` has
        returned, or one of its signatures.
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
    BackendUnavailableError
        It is a SavedModel, and TensorFlow is not installed.

    Examples
    --------
    >>> cfcam_tensorflow.open_model(model).layers()  # doctest: +SKIP
    """
    if is_saved_model(model):
        try:
            from cfcam_tensorflow._saved_model import open_saved_model
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            raise BackendUnavailableError(
                "a SavedModel needs TensorFlow, whatever Keras runs on; run: "
                'pip install "cfcam[tensorflow]", or pass a .keras file'
            ) from error
        return open_saved_model(model, output=output, look_through=look_through, example=example)
    if isinstance(model, str | PathLike):
        model = load(model)
    called, roots = inside(model)
    return KerasBackend(called, roots, output=output, look_through=look_through, example=example)

"""What is opened: a model, a function around one, or a file of Keras'."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import keras

from cfcam_core.errors import InvalidInputError
from cfcam_tensorflow._running import said

SUFFIXES = (".keras", ".h5", ".hdf5")
"""Endings of files that Keras loads itself: zip archives and HDF5."""

HDF5 = b"\x89HDF\r\n\x1a\n"
"""How a file of the latter kind begins."""


def is_saved_model(model: Any) -> bool:
    """Return whether something is a SavedModel: a folder, its main file, an object or a function.

    TensorFlow is not imported for it; Keras may run on something else.
    """
    if isinstance(model, str | PathLike):
        path = Path(fspath(model))
        return path.is_dir() or path.name == "saved_model.pb"
    return not isinstance(model, keras.layers.Layer) and any(
        hasattr(model, one) for one in ("signatures", "structured_input_signature")
    )


def load(path: str | PathLike[str]) -> Any:
    """Return the model in a file; it is not compiled for training.

    Raises
    ------
    InvalidInputError
        The file is of another kind or cannot be read.
    """
    file = Path(fspath(path))
    if file.suffix.lower() not in SUFFIXES:
        raise InvalidInputError(
            f"{str(file)!r} is no file that Keras loads; wanted {', '.join(SUFFIXES)}, or the "
            "folder of a SavedModel"
        )
    if not file.is_file():
        raise InvalidInputError(f"there is no model file {str(file)!r}; check the path")
    with file.open("rb") as opened:
        if opened.read(len(HDF5)) != HDF5 and not is_zipfile(opened):
            raise InvalidInputError(
                f"{str(file)!r} holds no model of Keras: it is cut off, or of another kind; save "
                "or copy it again"
            )
    try:
        return _load(file)
    except Exception as error:
        if ".weights." in file.name.lower() or "No model config" in str(error):
            advice = "weights alone are no model: build it, load them into it, and pass the model"
        else:
            advice = "if it has layers of your own, load it with keras.saving.load_model(..., "
            advice += "custom_objects=...) and pass the model"
        raise InvalidInputError(
            f"Keras cannot load {str(file)!r}: {type(error).__name__}: {said(error)}; {advice}"
        ) from error


def inside(model: Any) -> tuple[Any, list[Any]]:
    """Return what to call, and the Keras models in it.

    Parameters
    ----------
    model : keras.layers.Layer, or tf.function
        A function made of a model, of one of its methods, or of a function that calls models which
        it closes over.

    Raises
    ------
    InvalidInputError
        It is neither, or there is no model in it.
    """
    if isinstance(model, keras.layers.Layer):
        return model, [model]
    function = getattr(model, "python_function", None)
    if function is None:
        raise InvalidInputError(
            f"a {type(model).__module__}.{type(model).__qualname__} is no model of Keras 3"
            + (
                "; it is one of Keras 2 (tf_keras): save it as .h5 and load that with Keras 3, "
                "or export it to ONNX"
                if _is_keras_2(model)
                else "; pass a keras.Model, a tf.function that calls one, or a path"
            )
        )
    function = inspect.unwrap(function)
    for one in (function, getattr(function, "__self__", None)):
        if isinstance(one, keras.layers.Layer):
            return one, [one]
    around = inspect.getclosurevars(function)
    held = [*around.nonlocals.values(), *around.globals.values()]
    models = [one for one in held if isinstance(one, keras.layers.Layer)]
    if not models:
        raise InvalidInputError(
            "the tf.function calls no Keras model that it can be seen to close over; pass the model"
        )
    return function, list({id(one): one for one in models}.values())


def _load(file: Path) -> Any:
    older = {} if file.suffix.lower() == ".keras" else {name: _reader(name) for name in _OLDER}
    with keras.utils.custom_object_scope(older):
        return keras.saving.load_model(file, compile=False)


_OLDER = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
}
"""What Keras 2 wrote of a layer besides what Keras 3 reads; it never had another value than one."""


def _reader(name: str) -> Callable[..., Any]:
    """Return what makes a layer of a config of Keras 2."""

    def read(**config: Any) -> Any:
        kept = {key: value for key, value in config.items() if key not in _OLDER[name]}
        return getattr(keras.layers, name).from_config(kept)

    return read


def _is_keras_2(model: Any) -> bool:
    roots: Sequence[str] = [cls.__module__.split(".")[0] for cls in type(model).__mro__]
    return "tf_keras" in roots or any(
        cls.__module__.startswith("tensorflow.python.keras") for cls in type(model).__mro__
    )

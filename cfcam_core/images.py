"""Image files to model inputs: reading, resizing, the usual preprocessings. Needs ``[image]``.

OpenCV is imported inside the functions that need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core import exif
from cfcam_core.capture import FloatArray, spatial_size
from cfcam_core.errors import BackendUnavailableError, InvalidInputError
from cfcam_core.overlay import composite_on_white
from cfcam_core.registry import open_model

FALLBACK_SIDE = 224
"""Height and width where the model fixes neither (ours: what ImageNet models are trained at)."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R BT.601)."""

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)
"""Endings of files that count as images when a folder is given."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """``(x - mean) / std`` per channel, for x from 0 to 255."""

    mean: tuple[float, ...]
    """One number for all channels or one for each, in `order`."""
    std: tuple[float, ...]
    """The same."""
    order: str
    """``RGB`` or ``BGR``."""
    source: str
    """Where these numbers come from."""


def _times_255(*values: float) -> tuple[float, ...]:
    return tuple(255 * value for value in values)


PREPROCESSINGS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "imagenet": Preprocessing(
            _times_255(0.485, 0.456, 0.406),
            _times_255(0.229, 0.224, 0.225),
            "RGB",
            "torchvision's pretrained models and most exported from PyTorch",
        ),
        "tf": Preprocessing((127.5,), (127.5,), "RGB", "-1 to 1: keras.applications, mode 'tf'"),
        "caffe": Preprocessing(
            (103.939, 116.779, 123.68), (1.0,), "BGR", "keras.applications, mode 'caffe'"
        ),
        "unit": Preprocessing((0.0,), (255.0,), "RGB", "0 to 1: torchvision's ToTensor alone"),
        "raw": Preprocessing((0.0,), (1.0,), "RGB", "0 to 255: the model does the rest itself"),
    }
)
"""Preprocessings by the name that ``--preprocess`` takes."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a model takes, as far as pictures are concerned."""

    channels: int
    """1 or 3."""
    size: tuple[int, int]
    """Height and width."""
    channels_last: bool
    is_size_free: bool
    """Whether the model fixes no size and `size` is the fallback."""
    is_integer: bool = False
    """Whether the model takes whole numbers: the pixels themselves."""

    @classmethod
    def of(cls, model: Any, *, size: tuple[int, int] | None = None) -> ModelInput:
        """Return what a model takes, from its backend's `input_shape`, `input_layout` and the like.

        Parameters
        ----------
        model : object, str or path
            As for `cfcam_core.open_model`; best what that has opened.
        size : tuple of int, optional
            Height and width where the model leaves them open. Default: 224.

        Raises
        ------
        InvalidInputError
            The model takes no pictures, more than one, or some with neither one nor three channels;
            or it takes another size.
        CfcamError
            As for `cfcam_core.open_model`.
        """
        backend = open_model(model)
        names = getattr(backend, "input_names", ())
        if len(names) > 1:
            raise InvalidInputError(
                f"the model has {len(names)} inputs ({', '.join(names)}); an image file gives one. "
                "Prepare the inputs yourself and call cfcam_core.explain"
            )
        shape = getattr(backend, "input_shape", None)
        if shape is None or len(shape) != 4:
            raise InvalidInputError(
                f"the model's input has shape {shape}; pictures need (N, C, H, W) or (N, H, W, C). "
                "Prepare the input yourself and call cfcam_core.explain"
            )
        last = getattr(backend, "input_layout", "channels_first") == "channels_last"
        height, width, channels = shape[1:] if last else (*shape[2:], shape[1])
        if channels not in (None, 1, 3):
            raise InvalidInputError(
                f"the model takes {channels} channels (input shape {shape}); image files give 1 or "
                "3. Prepare the input yourself and call cfcam_core.explain"
            )
        likely = (height or width or FALLBACK_SIDE, width or height or FALLBACK_SIDE)
        rows, columns = likely if size is None else spatial_size(size, likely)
        if (height or rows, width or columns) != (rows, columns):
            raise InvalidInputError(
                f"the size {rows}x{columns} does not fit: the model takes pictures of "
                f"{height or 'any'}x{width or 'any'} alone, height x width; leave the size out"
            )
        is_integer = np.dtype(getattr(backend, "input_dtype", np.float32)).kind in "iu"
        return cls(
            channels or 3, (rows, columns), last, height is None or width is None, is_integer
        )


def read_image(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an image file as RGB, upright.

    Parameters
    ----------
    path : str or path
        Any format that OpenCV decodes. Of several frames the first is read.

    Returns
    -------
    ndarray of shape (H, W, 3)
        uint8, or uint16 for files with 16 bits, whose full range 0 to 65535 counts as black to
        white, or float32 in [0, 1] for floating-point files. Gray is repeated, transparency
        composited on white, the EXIF orientation applied.

    Raises
    ------
    InvalidInputError
        The file is missing, a folder, empty, cut short, damaged, or of a kind that cannot be shown.
    BackendUnavailableError
        OpenCV is not installed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {str(path)!r}: {error.strerror or error}; check the path"
        ) from error
    if not data:
        raise InvalidInputError(f"{str(path)!r} is empty; wanted an image file")
    if _is_cut_short(data):
        raise InvalidInputError(f"{str(path)!r} is cut short: the end of the JPEG is missing")
    decoded = _decode(data)
    if decoded is None:
        raise InvalidInputError(
            f"{str(path)!r} ({len(data)} bytes) is damaged or of a kind that OpenCV does not read; "
            "wanted a JPEG, PNG, WebP, TIFF or BMP image"
        )
    return _as_rgb(exif.upright(decoded, exif.orientation(data)), path)


def prepare(image: NDArray[Any], wanted: ModelInput, preprocessing: str) -> FloatArray:
    """Turn a picture from `read_image` into a batch of one for a model.

    The whole picture is resized to the model's input, its proportions given up; nothing is cropped.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        uint8, uint16, or float in [0, 1].
    wanted : ModelInput
        Size, channels and layout.
    preprocessing : str
        One of `PREPROCESSINGS`.

    Returns
    -------
    ndarray of float32, shape (1, C, H, W) or (1, H, W, C)
        Rounded for models that take whole numbers, which backends convert to the model's dtype.

    Raises
    ------
    InvalidInputError
        An unknown preprocessing, or one whose numbers are for another count of channels, or not
        whole where they must be.
    """
    if preprocessing not in PREPROCESSINGS:
        raise InvalidInputError(
            f"there is no preprocessing {preprocessing!r}; allowed are {', '.join(PREPROCESSINGS)}"
        )
    recipe = PREPROCESSINGS[preprocessing]
    if len(recipe.mean) not in (1, wanted.channels):
        raise InvalidInputError(
            f"preprocessing {preprocessing!r} is for {len(recipe.mean)} channels, the model takes "
            f"{wanted.channels}; use one of "
            + ", ".join(name for name, each in PREPROCESSINGS.items() if len(each.mean) == 1)
        )
    if wanted.is_integer and recipe != PREPROCESSINGS["raw"]:
        raise InvalidInputError(
            f"preprocessing {preprocessing!r} gives fractions, the model takes whole numbers; "
            "use raw"
        )
    whole = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    pixels: FloatArray = fit(image, wanted.size).astype(np.float32) * np.float32(255 / whole)
    if wanted.channels == 1:
        pixels = (pixels * np.array(LUMINANCE, np.float32)).sum(axis=-1, keepdims=True)
    elif recipe.order == "BGR":
        pixels = pixels[..., ::-1]
    mean: FloatArray = np.array(recipe.mean, np.float32)
    std: FloatArray = np.array(recipe.std, np.float32)
    pixels = (pixels - mean) / std
    if wanted.is_integer:
        pixels = np.rint(pixels)
    batch = pixels[None] if wanted.channels_last else pixels.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(batch, np.float32)


def default_preprocessing(wanted: ModelInput) -> str:
    """Return the name used where none is given.

    ``raw`` for whole numbers, otherwise ``imagenet``, or ``unit`` for one channel.
    """
    if wanted.is_integer:
        return "raw"
    return "imagenet" if wanted.channels == 3 else "unit"


def fit(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize a picture of shape (H, W, 3): area means where it shrinks, linear where it grows.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, 3)
    size : tuple of int
        Height and width; each axis is treated on its own: OpenCV's area means need both to shrink.
    """
    cv2 = _cv2()
    height, width = size
    shrunk = (min(image.shape[0], height), min(image.shape[1], width))
    image = np.ascontiguousarray(image)
    if shrunk != image.shape[:2]:
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if size != shrunk:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _cv2() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            'image files need OpenCV, which is not installed; run: pip install "cfcam[image]"'
        ) from error
    return cv2


def _decode(data: bytes) -> NDArray[Any] | None:
    """Decode with all channels and all bits; None where OpenCV cannot."""
    cv2 = _cv2()
    with _silent_stderr():
        try:
            decoded: NDArray[Any] | None = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
            )
        except cv2.error:
            return None
    return decoded


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG has no end mark after its last scan; OpenCV 4 fills the rest with gray."""
    return data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _as_rgb(decoded: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return OpenCV's gray, BGR or BGRA as RGB of the same depth."""
    bands = 1 if decoded.ndim == 2 else decoded.shape[2]
    if bands not in (1, 3, 4) or decoded.dtype not in (np.uint8, np.uint16, np.float32):
        raise InvalidInputError(
            f"{str(path)!r} has {bands} band(s) of {decoded.dtype}; wanted gray, RGB or RGBA with "
            "8 or 16 bits, or float32 in [0, 1]"
        )
    if decoded.dtype == np.float32 and not (decoded.min() >= 0 and decoded.max() <= 1):
        raise InvalidInputError(
            f"{str(path)!r} has float values from {decoded.min():.4g} to {decoded.max():.4g}; "
            "wanted 0 to 1: scale it first"
        )
    if bands == 1:
        return np.repeat(decoded.reshape(*decoded.shape[:2], 1), 3, axis=2)
    colour = decoded[..., 2::-1]
    if bands == 4:
        whole = 1.0 if decoded.dtype.kind == "f" else float(np.iinfo(decoded.dtype).max)
        mixed = whole * composite_on_white(colour / whole, decoded[..., 3:] / whole)
        colour = (mixed if decoded.dtype.kind == "f" else np.rint(mixed)).astype(decoded.dtype)
    return np.ascontiguousarray(colour)


_STDERR = Lock()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send the process's standard error nowhere while one image is decoded.

    libpng and libjpeg print there past OpenCV's log level; our own error says what was wrong.
    """
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # a process without standard error
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere, suppress(OSError):
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

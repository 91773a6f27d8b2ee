"""What is compared on: files of pictures or a batch, each with its mask and class, read one by one.

Every sample has a digest of its content, so that a later run knows whether it is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend
from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.identity import digest, digest_of
from cfcam_core.evaluation.object_masks import object_masks
from cfcam_core.image_files import NO_IMAGES, image_files
from cfcam_core.images import (
    PREPROCESSINGS,
    ModelInput,
    default_preprocessing,
    prepare,
    read_image,
)
from cfcam_core.pictures import on_the_host, only_input

ANSWERS = 8
"""Logits of the first image by which a journal knows the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """One sample, read."""

    inputs: NDArray[Any]
    """A batch of one as the model takes it."""
    picture: NDArray[Any] | None
    """(H, W, 3) for people; None where the input is no picture."""
    mask: NDArray[np.bool_] | None
    """(*size): true on the object; None where no mask is known, or it is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image to compare on."""

    name: str
    content: Mapping[str, Any]
    """Digests of what it is made of, and its class if one was given."""
    target: int | None
    load: Callable[[], Loaded]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """All of them, and how they were prepared."""

    items: tuple[Sample, ...]
    preprocess: str
    """Name of the preprocessing; empty for a batch, which is taken as it is."""


def read_samples(
    backend: Backend,
    images: Any,
    *,
    preprocess: str | None = None,
    masks: Any = None,
    target: Any = None,
    size: tuple[int, int] | None = None,
) -> Samples:
    """Return what is meant by images, masks and targets; pictures are not decoded yet.

    Parameters
    ----------
    backend : Backend
    images : path, sequence of paths, or array_like
        A folder (the image files directly in it, by name), files, or a batch as the model takes it.
    preprocess : str, optional
        One of `cfcam_core.images.PREPROCESSINGS`, for files.
    masks : path, mapping, or array_like, optional
        A folder with a file of the same stem for each image that has one; masks by the image's
        name; or an array (N, *size). The object is where a mask is not zero.
    target : None, int, or sequence of int
        The class to explain.
    size : tuple of int, optional
        Height and width of pictures, where the model leaves them open.

    Raises
    ------
    InvalidInputError
        There are no images, masks or targets do not fit them, or an argument is unknown.
    """
    if preprocess is not None and preprocess not in PREPROCESSINGS:
        raise InvalidInputError(
            f"there is no preprocessing {preprocess!r}; allowed are {', '.join(PREPROCESSINGS)}"
        )
    paths = _paths(images)
    if paths is None:
        batch = _batch(backend, images)
        names = [str(n) for n in range(len(batch))]
        loads = [partial(_from_batch, backend, batch[n : n + 1]) for n in range(len(batch))]
        digests = [digest(np.ascontiguousarray(each).tobytes()) for each in batch]
    else:
        wanted = ModelInput.of(backend, size=size)
        preprocess = preprocess or default_preprocessing(wanted)
        names = _names(paths)
        loads = [partial(_from_file, path, wanted, preprocess) for path in paths]
        digests = [digest_of(path) for path in paths]
    targets = _targets(target, len(names))
    found = object_masks(masks, names)
    items = [
        Sample(
            name,
            {"content": content, "mask": mask and mask[0], "target": class_},
            class_,
            partial(_load, load, mask and mask[1]),
        )
        for name, content, load, class_, mask in zip(
            names, digests, loads, targets, found, strict=True
        )
    ]
    return Samples(tuple(items), "" if paths is None else str(preprocess))


def first_answer(
    backend: Backend, samples: Sequence[Sample], layer: Any
) -> tuple[str, list[float]]:
    """Return the layer's name, and some logits of the first sample that can be read.

    Raises
    ------
    InvalidInputError
        None can be read.
    """
    problem: Exception | None = None
    for sample in samples:
        try:
            loaded = sample.load()
        except (InvalidInputError, OSError) as error:
            problem = problem or error
            continue
        capture = backend.capture(loaded.inputs, layer=layer, target=sample.target)
        scores = np.zeros((1, 0)) if capture.scores is None else capture.scores
        return capture.layer, [float(f"{score:.6g}") for score in scores[0, :ANSWERS].tolist()]
    raise InvalidInputError(f"none of the {len(samples)} images can be read: {problem}")


def _paths(images: Any) -> list[Path] | None:
    """Return the files that are meant; None for a batch."""
    if isinstance(images, str | PathLike):
        folder = Path(images)
        if not folder.is_dir():
            images = [folder]
        else:
            files = image_files(folder)
            if not files:
                raise InvalidInputError(f"the folder {str(images)!r} {NO_IMAGES}")
            return files
    if isinstance(images, list | tuple) and all(isinstance(p, str | PathLike) for p in images):
        if not images:
            raise InvalidInputError("there are no images to compare on; pass files or a folder")
        return [Path(p) for p in images]
    return None


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file: its own, or its path where another has the same."""
    taken = Counter(path.name for path in paths)
    names = [path.name if taken[path.name] == 1 else str(path) for path in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInputError(f"the image {twice[0]!r} is given twice; give each once")
    return names


def _batch(backend: Backend, images: Any) -> NDArray[Any]:
    array = number_array(on_the_host(only_input(images)), "images")
    shape = getattr(backend, "input_shape", None)
    if shape is not None and array.ndim == len(shape) - 1:
        array = array[None]
    if array.ndim < 3 or not len(array):
        raise InvalidInputError(
            f"images have shape {array.shape}; wanted a folder, files, or a batch as the model "
            "takes it"
        )
    return array


def _targets(target: Any, count: int) -> list[int | None]:
    if target is None:
        return [None] * count
    indices = None if callable(target) else np.asarray(target)
    if indices is None or indices.dtype.kind not in "iu" or indices.shape not in ((), (count,)):
        raise InvalidInputError(
            f"target {target!r} does not name classes; allowed are None, one int, or {count} ints, "
            "one an image"
        )
    return [int(index) for index in np.broadcast_to(indices, (count,))]


def _load(load: Callable[[], Loaded], mask: Callable[[], NDArray[np.bool_]] | None) -> Loaded:
    loaded = load()
    inside = None if mask is None else mask()
    if inside is None or not inside.any():
        return loaded
    return Loaded(loaded.inputs, loaded.picture, inside)


def _from_file(path: Path, wanted: ModelInput, preprocess: str) -> Loaded:
    picture = read_image(path)
    return Loaded(prepare(picture, wanted, preprocess), picture, None)


def _from_batch(backend: Backend, inputs: NDArray[Any]) -> Loaded:
    """Return an input with a picture of it, stretched over all brightnesses, if it is one."""
    last = getattr(backend, "input_layout", "channels_first") == "channels_last"
    array = inputs[0] if last else np.moveaxis(inputs[0], 0, -1)
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        return Loaded(inputs, None, None)
    low, spread = array.min(), np.ptp(array)
    picture = np.rint(255 * ((array - low) / (spread or 1))).astype(np.uint8)
    return Loaded(inputs, np.broadcast_to(picture, (*picture.shape[:2], 3)), None)

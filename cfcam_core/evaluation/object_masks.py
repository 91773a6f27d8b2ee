"""Masks that say where the objects are, as users give them; read one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.identity import digest, digest_of
from cfcam_core.image_files import image_files
from cfcam_core.images import read_image

Mask = tuple[str, Callable[[], NDArray[np.bool_]]]
"""Digest of a mask, and what reads it."""


def object_masks(masks: Any, names: Sequence[str]) -> list[Mask | None]:
    """Return for each image its mask, or None."""
    if masks is None:
        return [None] * len(names)
    if isinstance(masks, str | PathLike):
        return _masks_in(Path(masks), names)
    if isinstance(masks, Mapping):
        unknown = [name for name in masks if name not in names]
        if unknown:
            raise InvalidInputError(f"there is a mask for {unknown[0]!r}, which is no image")
        return [_given_mask(masks[name]) if name in masks else None for name in names]
    array = real_array(masks, "masks")
    if len(array) != len(names):
        raise InvalidInputError(f"there are {len(array)} masks for {len(names)} images")
    return [_given_mask(each) for each in array]


def _given_mask(mask: Any) -> Mask:
    inside: NDArray[np.bool_] = np.asarray(real_array(mask, "mask") != 0)
    return digest(repr(inside.shape).encode() + inside.tobytes()), lambda: inside


def _masks_in(folder: Path, names: Sequence[str]) -> list[Mask | None]:
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder of masks {str(folder)!r}; check the path")
    files: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in files:
            raise InvalidInputError(
                f"{str(files[path.stem])!r} and {str(path)!r} are masks of the same image; keep one"
            )
        files[path.stem] = path
    found = [files.get(Path(name).stem) for name in names]
    used = Counter(path for path in found if path is not None)
    for path, times in used.items():
        if times > 1:
            raise InvalidInputError(
                f"the mask {str(path)!r} belongs to {times} images of the same stem; rename them, "
                "or pass masks by name"
            )
    if not any(found):
        raise InvalidInputError(
            f"no mask in {str(folder)!r} belongs to an image: wanted files of the same stem, such "
            f"as {Path(names[0]).stem}.png"
        )
    return [None if path is None else (digest_of(path), _reader(path)) for path in found]


def _reader(path: Path) -> Callable[[], NDArray[np.bool_]]:
    return lambda: np.asarray((read_image(path) != 0).any(axis=2))


def at_size(mask: NDArray[np.bool_], size: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask (*s) at another size: each position takes what lies under its centre."""
    if mask.ndim != len(size):
        raise InvalidInputError(f"a mask of shape {mask.shape} does not fit maps of {tuple(size)}")
    for axis, (old, new) in enumerate(zip(mask.shape, size, strict=True)):
        mask = mask.take((2 * np.arange(new) + 1) * old // (2 * new), axis=axis)
    return mask

"""The result: heatmaps, the maps they came from, and why a map is blank if it is."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal, SupportsIndex, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import FloatArray, read_only
from cfcam_core.errors import InvalidInputError
from cfcam_core.settings import Settings

Status = Literal["ok", "flat", "all_negative", "zero_gradient"]

FORMAT = 1
"""Version of the ``.npz`` layout that `Explanation.save` writes."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Heatmaps of a batch with everything they were made from. Arrays are read-only.

    ``len(e)`` is the number of samples; ``e[i]`` and ``e[a:b]`` are explanations of those samples,
    the batch axis kept.
    """

    heatmaps: FloatArray
    """(N, *size) float32 in [0, 1]: the positive part of the map, upsampled, divided by its own
    maximum."""
    maps: FloatArray
    """(N, *s) float32, signed, at the layer's resolution, before ReLU and upsampling."""
    weights: FloatArray
    """(N, C) float32: what each channel's activations were multiplied by. Where the factor differs
    from position to position it is the projection ``<term, activation> / <activation, activation>``
    of the channel's term in the map; for the geometric mean of two maps, the mean of theirs."""
    labels: NDArray[np.intp] | None
    """(N, C): -2 dominant, -1 noise, >= 0 cluster; None for methods that do not cluster."""
    targets: NDArray[np.intp]
    """(N,): explained class; -1 where it is not a single class or not known."""
    scores: FloatArray | None
    """(N, K) logits, where they are known."""
    status: tuple[Status, ...]
    """Per sample: ``ok``; ``zero_gradient``, the score does not depend on the layer;
    ``all_negative``, the map is nowhere positive; ``flat``, every position is equal."""
    layer: str = ""
    method: str = "cf-cam"
    settings: Settings | None = None
    """What made the maps; None for methods without settings, and after `load` where the file's
    settings hold a `clusterer` or what this version does not know: their JSON stays in the file."""

    def __post_init__(self) -> None:
        shapes = {}
        for name in ("heatmaps", "maps", "weights", "labels", "targets", "scores"):
            if getattr(self, name) is not None:
                array = read_only(np.asarray(getattr(self, name)))
                object.__setattr__(self, name, array)
                shapes[name] = array.shape
        samples = {shape[:1] for shape in shapes.values()} | {(len(self.status),)}
        if len(samples) != 1 or self.heatmaps.ndim != self.maps.ndim:
            raise InvalidInputError(
                f"these arrays do not belong together: {shapes}, {len(self.status)} status words"
            )
        unknown = [repr(word) for word in self.status if word not in get_args(Status)]
        if unknown:
            raise InvalidInputError(
                f"status {', '.join(unknown)} is unknown; known are {', '.join(get_args(Status))}"
            )

    def __len__(self) -> int:
        return len(self.heatmaps)

    def __getitem__(self, index: SupportsIndex | slice) -> Explanation:
        if not isinstance(index, slice):
            try:
                sample = operator.index(index)
            except TypeError:
                raise TypeError(
                    "samples are chosen by an integer or a slice, not by a "
                    f"{type(index).__name__}; for several, take [e[i] for i in ...]"
                ) from None
            if not -len(self) <= sample < len(self):
                raise IndexError(f"sample {sample} of an explanation of {len(self)}")
            index = slice(sample % len(self), sample % len(self) + 1)
        return replace(
            self,
            heatmaps=self.heatmaps[index],
            maps=self.maps[index],
            weights=self.weights[index],
            labels=None if self.labels is None else self.labels[index],
            targets=self.targets[index],
            scores=None if self.scores is None else self.scores[index],
            status=self.status[index],
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.heatmaps.shape[1:]))
        return (
            f"Explanation({len(self)} x {size}, method={self.method!r}, layer={self.layer!r}, "
            f"targets={self.targets.tolist()}, status={list(self.status)})"
        )

    def overlay(self, image: ArrayLike, *, alpha: float = 0.5) -> NDArray[np.uint8]:
        """Return the heatmap blended over an image, in jet colours.

        Parameters
        ----------
        image : array_like of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
            uint8, uint16, or float in [0, 1]; RGB. For several samples with a leading axis N. The
            heatmap is resized to it.
        alpha : float
            Share of the heatmap's colour, 0 to 1.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3), or (N, H, W, 3) if `image` has a leading axis N
        """
        from cfcam_core.overlay import overlay

        return overlay(self.heatmaps, image, alpha=alpha)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a ``.npz`` file that plain ``numpy.load`` reads; replaces atomically.

        Keys are the field names; `settings` is a JSON string, absent arrays are left out. A path
        without the suffix gets it.

        Raises
        ------
        InvalidInputError
            The folder does not exist, `path` is a folder itself or ends as pictures do, or it
            cannot be written there.
        """
        from cfcam_core.archive import save

        save(self, Path(path))

    @staticmethod
    def load(path: str | PathLike[str]) -> Explanation:
        """Read what `save` wrote.

        Raises
        ------
        InvalidInputError
            The file is missing, is no such archive, or was written by a newer version.
        """
        from cfcam_core.archive import load

        return load(Path(path))

    def _repr_html_(self) -> str:
        from cfcam_core.report import heatmaps_html

        return heatmaps_html(self)

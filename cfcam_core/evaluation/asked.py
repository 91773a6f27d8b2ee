"""Pictures with the heatmap of each: what the model makes of many changed versions of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import FloatArray, real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.masking import check_fit
from cfcam_core.explanation import Explanation
from cfcam_core.pictures import BATCH, Pictures
from cfcam_core.targets import resolve_targets

Progress: TypeAlias = Callable[[int, int], None]
"""Called after every batch with the number of pictures the model was asked about, and of how many.
"""

Maker: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[Any]]
"""Makes pictures (B, C, *size): version ``v[b]`` of the picture of sample ``n[b]``."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Pictures, the heatmap of each, and the class each is for."""

    pictures: Pictures
    heatmaps: FloatArray
    """(N, *size), as they were given."""

    @classmethod
    def of(cls, model: Any, inputs: Any, heatmaps: ArrayLike | Explanation, target: Any) -> Asked:
        """Read inputs and heatmaps; the default target is an Explanation's own.

        Raises
        ------
        InvalidInputError
            Heatmaps are not of the inputs' size, or the target is no class.
        CfcamError
            As for `cfcam_core.explain`.
        """
        pictures = Pictures.of(model, inputs)
        given = heatmaps.heatmaps if isinstance(heatmaps, Explanation) else heatmaps
        maps = real_array(given, "heatmaps")
        check_fit(maps, pictures.arrays)
        if target is None and isinstance(heatmaps, Explanation):
            target = heatmaps.targets
            if (target < 0).any():
                raise InvalidInputError(
                    "the explanation does not say which class its heatmaps are for (its targets "
                    f"are {target.tolist()}); pass target=, one int or one int a sample"
                )
        targets, cotangents = resolve_targets(target, pictures.scores)
        found = cls(replace(pictures, targets=targets, cotangents=cotangents), maps)
        found.pictures.classes()
        return found

    def before(self) -> NDArray[np.float64]:
        """Return the probability (N,) of each sample's class on the whole picture."""
        probabilities = self.pictures.probabilities(self.pictures.scores)
        return np.asarray(probabilities[np.arange(len(probabilities)), self.pictures.targets])

    def ask(
        self,
        make: Maker,
        versions: int,
        *,
        leave_out: NDArray[np.bool_],
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Return the probability (N, versions) of each sample's class on versions of its picture.

        Samples share batches, and no more than one batch of pictures exists at a time. Samples to
        leave out, (N,), are not asked about: their rows are NaN.
        """
        samples = np.flatnonzero(~leave_out)
        found = np.full((len(leave_out), versions), np.nan)
        total = len(samples) * versions
        for start in range(0, total, BATCH):
            pairs = np.arange(start, min(start + BATCH, total))
            who, which = samples[pairs // versions], pairs % versions
            chances = self.pictures.probabilities(self.pictures.ask(make(who, which)))
            found[who, which] = chances[np.arange(len(who)), self.pictures.targets[who]]
            if progress is not None:
                progress(int(pairs[-1]) + 1, total)
        return found

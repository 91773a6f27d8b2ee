"""Robustness to noise: whether a map stays where the prediction stays, and moves where it moves.

The idea is that of "Assessing the Noise Robustness of Class Activation Maps: A Framework for
Reliable Model Interpretability" (arXiv 2508.18154): consistency under perturbations that leave the
predicted class, responsiveness under those that change it, segments ranked by the map, rankings
compared by rank-biased overlap, the product of the two. All that is precise here is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import read_only
from cfcam_core.errors import InvalidInputError, UndefinedMeasureWarning
from cfcam_core.evaluation.feeding import Preprocess, feeding
from cfcam_core.evaluation.pairs import (
    FEW,
    Measure,
    Pairs,
    RobustnessIntervals,
    RobustnessScore,
    intervals,
    per_image,
    score,
)
from cfcam_core.evaluation.perturbations import NOISES, Perturbation
from cfcam_core.evaluation.protocol import (
    SEVERITIES,
    Methods,
    RobustnessPlan,
    plan_robustness,
    robustness_of_image,
)
from cfcam_core.evaluation.rankings import chance_overlap
from cfcam_core.evaluation.segments import CELLS
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings

Progress = Callable[[int, int], None]
"""Called with how many pictures are done, and of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Robustness:
    """The result: the pairs themselves, and what follows from them. Made by `gather`."""

    plan: RobustnessPlan
    pairs: Pairs
    images: int
    """Pictures measured, those dropped included."""
    segments: tuple[int, ...]
    """How many segments each picture that was not dropped has."""
    dropped: tuple[int, ...]
    """Indices of pictures with a single segment: there is nothing to rank."""

    @property
    def scores(self) -> tuple[RobustnessScore, ...]:
        """The numbers of each method over all pairs."""
        return tuple(score(method, self.pairs) for method in self.plan.methods)

    @property
    def chance(self) -> float:
        """Consistency of rankings drawn at random, for ``rbo``; NaN for other similarities.

        Such rankings have one minus that as their responsiveness. A map of noise comes to more
        where segments differ in size: the means of large ones lie nearer the middle.
        """
        if self.plan.similarity != "rbo" or not self.segments:
            return float("nan")
        return float(np.mean([chance_overlap(m, p=self.plan.p) for m in self.segments]))

    def by_perturbation(self) -> dict[str, tuple[RobustnessScore, ...]]:
        """Return the numbers of each method for each perturbation alone."""
        return {
            each.name: tuple(score(method, chosen) for method in self.plan.methods)
            for each in self.plan.perturbations
            for chosen in [self.pairs.where(self.pairs.kind == each.name)]
        }

    def per_image(self, measure: Measure = "consistency") -> NDArray[np.float64]:
        """Return a measure for each picture and method, for `cfcam_core.evaluation.compare_ranks`.

        Returns
        -------
        ndarray of float64, shape (pictures that were not dropped, methods)
            NaN where a picture has no pair of the kind.
        """
        columns = [per_image(method, self.pairs, measure) for method in self.plan.methods]
        return np.stack(columns, axis=1)

    def bootstrap(
        self, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> tuple[RobustnessIntervals, ...]:
        """Return percentile intervals for each method, by drawing pictures with replacement."""
        return tuple(
            intervals(method, self.pairs, draws=draws, level=level, seed=seed)
            for method in self.plan.methods
        )

    def __str__(self) -> str:
        ranked = self.plan.similarity == "rbo"
        compared = f"rbo, p = {self.plan.p:g}" if ranked else self.plan.similarity
        chance = "" if np.isnan(self.chance) else f", consistency by chance {self.chance:.3f}"
        width = max(map(len, ("method", *self.plan.methods)))
        lines = [
            f"{self.images} pictures, {len(self.dropped)} dropped; {compared}{chance}",
            f"{'method':<{width}}  consistency  responsiveness  robustness   same  changed  flat",
        ]
        lines += [
            f"{s.method:<{width}}  {s.consistency:>11.3f}  {s.responsiveness:>14.3f}  "
            f"{s.robustness:>9.3f}{'*' if s.few else ' '}  {s.same:>5}  {s.changed:>7}  "
            f"{s.degenerate:>4.0%}"
            for s in self.scores
        ]
        few = [f"* fewer than {FEW} pairs of a kind"] if any(s.few for s in self.scores) else []
        return "\n".join([*lines, *few])


def robustness(
    model: Any,
    images: Any,
    *,
    methods: Methods = ("cf-cam", "grad-cam", "hires-cam"),
    preprocess: Preprocess = None,
    perturbations: Iterable[str | Perturbation] = NOISES,
    severities: Iterable[int] = SEVERITIES,
    layer: Any = None,
    p: float = 0.9,
    similarity: str = "rbo",
    segments: str | NDArray[Any] = "grid",
    grid: int = CELLS,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Measure whether maps stay where the prediction stays and move where it moves.

    Parameters
    ----------
    model : object, str or path
        As for `cfcam_core.explain`; a classifier.
    images : array_like
        uint8, or floats in [0, 1]. With `preprocess` pictures at the model's size, (N, H, W, 3) in
        RGB or (N, H, W) in gray. Without, whatever the model takes, in its own layout and in
        [0, 1]: signals and volumes as well.
    methods : sequence of str, or mapping
        Methods by name, see `cfcam_core.methods`; or names of your choice, each with a method and
        settings: ``{"paper": ("cf-cam", Settings.preset("paper"))}``.
    preprocess : str, Preprocessing, callable, or None
        How pictures become inputs: a name such as ``imagenet``, the numbers themselves
        (`cfcam_core.images.Preprocessing`), or a function from pictures (B, H, W, 3) or (B, H, W)
        in [0, 1] to the model's batch. None: the model takes them as they are.
    perturbations : sequence of str or Perturbation
        See `cfcam_core.evaluation.PERTURBATIONS`. The default is all noise and blur; ``fgsm`` and
        ``pgd`` ask the model, and no function may be in the way.
    severities : sequence of int
        From 1 to 5.
    layer : str, int, layer object, or None
        As for `cfcam_core.explain`; one layer.
    p : float
        Of ``rbo``, see `cfcam_core.evaluation.rank_biased_overlap`.
    similarity : str
        ``rbo``, ``spearman``, ``kendall``, ``cosine`` or ``pearson``, which compare segments, or
        ``ssim``, which compares heatmaps.
    segments : str or array_like of int
        ``grid``; ``quickshift``, for photographs, which needs ``[evaluation]``; or your own labels,
        (*size) for all pictures or (N, *size).
    grid : int
        Cells along each axis of the grid.
    seed : int
        Of the noise. That of a picture depends on this number, the picture's place in `images`,
        the kind and the severity alone.
    settings : Settings, optional
        Of CF-CAM, where `methods` are names.
    progress : callable, optional
        Called after each picture with how many are done, and of how many.

    Returns
    -------
    Robustness
        For each method consistency, responsiveness and their product, with the pairs behind them.

    Raises
    ------
    InvalidInputError
        An argument is not usable, or a score or map is not finite.
    CfcamError
        As for `cfcam_core.explain`.

    Warns
    -----
    UndefinedMeasureWarning
        No perturbation changed a prediction, or all did: what rests on such pairs is NaN.

    Notes
    -----
    For a picture I and each perturbed copy I', with predicted classes c and c': the segments of I,
    found once, are sorted by the mean of the heatmap of I for c and by that of I' for c', in
    descending order, ties by index. With s the similarity of the two rankings,

    - consistency C is the mean of s over pairs with c' = c,
    - responsiveness R is 1 minus the mean of s over pairs with c' != c,
    - robustness is C R.

    A heatmap that is the same in every segment is compared by convention: with another such s = 1,
    with any other s = 0; their share is reported. Pictures with a single segment are left out and
    counted. With a similarity that can be negative, C R is no longer between 0 and 1.

    References
    ----------
    The idea: "Assessing the Noise Robustness of Class Activation Maps: A Framework for Reliable
    Model Interpretability", Image and Vision Computing 2025, arXiv 2508.18154. The formulas, edge
    cases and severities above are ours.

    Examples
    --------
    >>> r = robustness("model.onnx", photos, preprocess="imagenet")  # doctest: +SKIP
    >>> print(r)  # doctest: +SKIP
    """
    plan = plan_robustness(
        methods=methods,
        perturbations=perturbations,
        severities=severities,
        layer=layer,
        p=p,
        similarity=similarity,
        segments=segments,
        grid=grid,
        seed=seed,
        settings=settings,
    )
    opened = open_model(model)
    count = len(feeding(opened, images, preprocess).pictures)  # checks all before the work begins
    records = []
    for index in range(count):
        records.append(
            robustness_of_image(opened, images[index], plan, index=index, preprocess=preprocess)
        )
        if progress is not None:
            progress(index + 1, count)
    return gather(records, plan)


def gather(records: Iterable[Mapping[str, Any]], plan: RobustnessPlan) -> Robustness:
    """Put the records of `robustness_of_image` together, in whatever order they come.

    Raises
    ------
    InvalidInputError
        There is none, two are of the same picture, or one is of another plan.

    Warns
    -----
    UndefinedMeasureWarning
        No perturbation changed a prediction, or all did.
    """
    ordered = sorted(records, key=lambda record: int(record["image"]))
    images = [int(record["image"]) for record in ordered]
    if not images or len(set(images)) < len(images):
        raise InvalidInputError(f"records of pictures {images}; wanted one each, at least one")
    each = len(plan.methods) * len(plan.perturbations) * len(plan.severities)
    for record in ordered:
        if len(record["similarity"]) != (each if record["segments"] > 1 else 0):
            raise InvalidInputError(
                f"the record of picture {record['image']} has {len(record['similarity'])} pairs, "
                f"the plan {each}: it is of another run"
            )
    kept = [record for record in ordered if record["segments"] > 1]

    def column(name: str, dtype: Any) -> NDArray[Any]:
        return read_only(np.array([v for record in kept for v in record[name]], dtype))

    of_clean = np.repeat([record["class"] for record in kept], each) if kept else np.zeros(0)
    pairs = Pairs(
        column("method", np.str_),
        read_only(np.repeat([int(record["image"]) for record in kept], each).astype(np.intp)),
        column("kind", np.str_),
        column("severity", np.intp),
        read_only(column("predicted", np.intp) == of_clean),
        column("similarity", np.float64),
        column("degenerate", np.bool_),
    )
    if pairs.undefined:
        warnings.warn(pairs.undefined, UndefinedMeasureWarning, stacklevel=2)
    return Robustness(
        plan,
        pairs,
        len(ordered),
        tuple(int(record["segments"]) for record in kept),
        tuple(int(record["image"]) for record in ordered if record["segments"] <= 1),
    )

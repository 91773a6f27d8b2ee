"""How one picture is measured for robustness to noise: what is fixed before, and the work itself.

A picture is a unit of work: its record is plain lists and numbers, depends on nothing but the
model, the picture, its index and the plan, and can be kept as JSON.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray
from cfcam_core.errors import BlankMapWarning, InvalidInputError
from cfcam_core.evaluation.feeding import Feeding, Preprocess, feeding
from cfcam_core.evaluation.perturbations import (
    NOISES,
    Perturbation,
    checked_severities,
    find_perturbation,
    perturb,
)
from cfcam_core.evaluation.rankings import checked_p
from cfcam_core.evaluation.segments import (
    CELLS,
    checked_segments,
    grid_segments,
    quickshift_segments,
    segment_means,
)
from cfcam_core.evaluation.similarity import find_similarity, similarities
from cfcam_core.explainer import explain, explain_arrays
from cfcam_core.methods import find_method
from cfcam_core.pictures import BATCH
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings
from cfcam_core.shuffling import checked_seed

Methods = Sequence[str] | Mapping[str, tuple[str, Settings | None]]
"""Names of methods, or for each name of your choice a method and its settings."""

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True, eq=False)
class RobustnessPlan:
    """What is measured, and how. Made by `plan_robustness`, which checks it."""

    methods: Mapping[str, tuple[str, Settings | None]]
    perturbations: tuple[Perturbation, ...]
    severities: tuple[int, ...]
    layer: Any
    similarity: str
    p: float
    segments: str | NDArray[np.intp]
    """``grid``, ``quickshift``, or labels (*size) for all pictures or (N, *size) for each."""
    grid: int
    seed: int


def plan_robustness(
    *,
    methods: Methods = ("cf-cam", "grad-cam", "hires-cam"),
    perturbations: Iterable[str | Perturbation] = NOISES,
    severities: Iterable[int] = SEVERITIES,
    layer: Any = None,
    p: float = 0.9,
    similarity: str = "rbo",
    segments: str | NDArray[Any] = "grid",
    grid: int = CELLS,
    seed: int = 0,
    settings: Settings | None = None,
) -> RobustnessPlan:
    """Check the choices of `robustness`, which has their meaning, and put them together.

    Raises
    ------
    InvalidInputError
        One of them is not usable.
    """
    if isinstance(methods, str):
        methods = (methods,)
    if not isinstance(methods, Mapping):
        methods = {name: (name, settings) for name in methods}
    for choice in methods.values():
        if not isinstance(choice, tuple) or len(choice) != 2:
            raise InvalidInputError(
                f"a method is given as {choice!r}; wanted its name and its settings or None: "
                '("cf-cam", Settings.preset("paper"))'
            )
        find_method(choice[0])
    if isinstance(perturbations, str | Perturbation):
        perturbations = (perturbations,)
    kinds = tuple(find_perturbation(each) for each in perturbations)
    if not methods or not kinds or len({each.name for each in kinds}) < len(kinds):
        raise InvalidInputError(
            f"{len(methods)} methods and the perturbations {[each.name for each in kinds]}; wanted "
            "one or more of each, no perturbation twice"
        )
    if isinstance(segments, str) and segments not in ("grid", "quickshift"):
        raise InvalidInputError(
            f"segments={segments!r}; allowed are 'grid', 'quickshift' and an array of integers"
        )
    return RobustnessPlan(
        MappingProxyType(dict(methods)),
        kinds,
        checked_severities(severities, kinds),
        layer,
        find_similarity(similarity),
        checked_p(p),
        segments if isinstance(segments, str) else np.asarray(segments),
        grid,
        checked_seed(seed),
    )


def robustness_of_image(
    model: Any, image: Any, plan: RobustnessPlan, *, index: int = 0, preprocess: Preprocess = None
) -> dict[str, Any]:
    """Measure one picture under every perturbation and severity, for every method.

    Parameters
    ----------
    model : object, str or path
        As for `cfcam_core.open_model`; best what that has opened.
    image : array_like
        One picture, as a row of what `robustness` takes.
    plan : RobustnessPlan
        What to measure.
    index : int
        Which picture of the set it is: its noise depends on that, and on nothing else in the set.
    preprocess : str, Preprocessing, callable, or None
        As for `robustness`.

    Returns
    -------
    dict
        ``image``, the index; ``segments``, how many there are; ``class``, the predicted one; and
        the columns ``method``, ``kind``, ``severity``, ``predicted``, ``similarity`` and
        ``degenerate``, lists with one entry a pair, empty where there is a single segment.
        `gather` puts records together.

    Raises
    ------
    CfcamError
        As for `robustness`.
    """
    opened = open_model(model)
    fed = feeding(opened, np.asarray(image)[None], preprocess)
    clean = fed.pictures[0]
    labels = _segments(plan, clean, index)
    count = int(labels.max()) + 1
    record: dict[str, Any] = {"image": index, "segments": count, "class": None}
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    if count > 1:
        changes = [(kind, severity) for kind in plan.perturbations for severity in plan.severities]
        pictures = np.stack([clean, *_perturbed(fed, changes, plan.seed, index)])
        heatmaps, classes = _explained(fed, pictures, plan)
        record["class"] = int(classes[0])
        for name, maps in heatmaps.items():
            found, flat = similarities(plan.similarity, segment_means(maps, labels), maps, p=plan.p)
            columns["method"] += [name] * len(changes)
            columns["kind"] += [kind.name for kind, _ in changes]
            columns["severity"] += [severity for _, severity in changes]
            columns["predicted"] += classes[1:].tolist()
            columns["similarity"] += found.tolist()
            columns["degenerate"] += (flat[0] | flat[1:]).tolist()
    return {**record, **columns}


COLUMNS = ("method", "kind", "severity", "predicted", "similarity", "degenerate")
"""What a record has a list of."""


def _segments(plan: RobustnessPlan, picture: FloatArray, index: int) -> NDArray[np.intp]:
    """Return the segments of the clean picture, numbered from 0."""
    size = picture.shape[:-1]
    if isinstance(plan.segments, str):
        if plan.segments == "grid":
            return grid_segments(size, plan.grid)
        return quickshift_segments(picture, seed=plan.seed)
    given = plan.segments
    if given.ndim == len(size) + 1:
        if not 0 <= index < len(given):
            raise InvalidInputError(
                f"there are segments for {len(given)} pictures, none for {index}"
            )
        given = given[index]
    return checked_segments(given, size)


def _perturbed(
    fed: Feeding, changes: Sequence[tuple[Perturbation, int]], seed: int, index: int
) -> list[FloatArray]:
    """Return the perturbed pictures; attacks speak against the class of the clean one."""
    target: Any = None
    if any(kind.asks_model for kind, _ in changes):
        target = predicted(fed.backend.scores(fed.inputs(fed.pictures)))
    return [
        perturb(
            fed.pictures[0],
            kind,
            severity,
            seed=seed,
            index=index,
            gradient=lambda picture: fed.gradient(picture, target),
        )
        for kind, severity in changes
    ]


def _explained(
    fed: Feeding, pictures: FloatArray, plan: RobustnessPlan
) -> tuple[dict[str, FloatArray], NDArray[np.intp]]:
    """Return each method's heatmaps (B, *size) for the predicted classes, and these (B,).

    One capture serves all methods that need no more than gradients.
    """
    size = pictures.shape[1:-1]
    maps: dict[str, list[FloatArray]] = {name: [] for name in plan.methods}
    classes = []
    for start in range(0, len(pictures), BATCH):
        inputs = fed.inputs(pictures[start : start + BATCH])
        capture = fed.backend.capture(inputs, layer=plan.layer, target=predicted)
        if capture.scores is None:
            raise InvalidInputError("the model gives no scores; robustness needs its predictions")
        classes.append(_classes(capture.scores))
        for name, (method, settings) in plan.methods.items():
            with warnings.catch_warnings():  # flat maps are counted
                warnings.simplefilter("ignore", BlankMapWarning)
                if find_method(method).asks_model:
                    found = explain(
                        fed.backend,
                        inputs,
                        layer=plan.layer,
                        target=predicted,
                        method=method,
                        settings=settings,
                        size=size,
                    )
                else:
                    found = explain_arrays(
                        capture.activations,
                        capture.gradients,
                        method=method,
                        settings=settings,
                        size=size,
                        spatial_dims=len(size),
                    )
            maps[name].append(found.heatmaps)
    return {name: np.concatenate(each) for name, each in maps.items()}, np.concatenate(classes)


def predicted(scores: NDArray[Any]) -> NDArray[Any]:
    """Return what to explain: the best class; of a single logit what speaks for its sign."""
    if scores.shape[1] == 1:
        return np.where(scores > 0, 1.0, -1.0)
    return np.asarray(scores.argmax(axis=1))


def _classes(scores: NDArray[Any]) -> NDArray[np.intp]:
    """Return the predicted classes; of a single logit 1 where it is positive, else 0."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.intp)
    return np.asarray(scores.argmax(axis=1))

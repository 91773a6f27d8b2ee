"""The metrics of a comparison by name: each a short function from one map to one number.

A metric gets a `Case`, one image explained by one method, and returns a float, NaN where the map
has no value; or a `Reading`, with a curve besides. Adding one is adding a line to the table, or
`register_metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.complexity import complexity, sparseness
from cfcam_core.evaluation.confidence import Confidence, keep_minus_delete, masked_confidence
from cfcam_core.evaluation.curves import Curve, deletion, insertion
from cfcam_core.evaluation.localisation import energy_in_mask, pointing_game, rank_accuracy
from cfcam_core.evaluation.published import GAIN_FILL, published_drop, published_gain
from cfcam_core.evaluation.road import road
from cfcam_core.evaluation.sensitivity import RANK, map_correlation
from cfcam_core.explanation import Explanation
from cfcam_core.pictures import is_channels_last

Better = Literal["higher", "lower"]
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Case:
    """One image, explained by one method."""

    backend: Backend
    inputs: NDArray[Any]
    """A batch of one as the model takes it."""
    scores: NDArray[np.floating[Any]]
    """(K,): its logits."""
    explanation: Explanation
    """Of this one sample; its target is a class."""
    of_class: Callable[[int], Explanation]
    """Explains another class of the same image by the same method."""
    mask: NDArray[np.bool_] | None
    """(*size), of the heatmap's size; None where no mask is known."""
    seed: int

    @cached_property
    def confidence(self) -> Confidence:
        """Return what three metrics rest on, asked for once."""
        return masked_confidence(self.backend, self.inputs, self.explanation)


class Reading(NamedTuple):
    """A value with the curve it is the area of."""

    value: float
    x: NDArray[np.float64]
    """(P,): the same for all images of one size."""
    y: NDArray[np.float64]
    """(P,)"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to measure a map."""

    function: Callable[[Case], float | Reading]
    better: Better | None
    """Which values are good; None where neither is."""
    about: str
    """What it says and what it does not, with its level of chance, for people."""
    source: str = ""
    needs_mask: bool = False
    is_default: bool = True
    """Whether it is measured where none are named; not what takes long, or says the same again."""


def _in_mask(measure: Callable[[Explanation, Any], NDArray[Any]]) -> Callable[[Case], float]:
    """Return a measure of maps and masks as a metric."""

    def measured(case: Case) -> float:
        return NAN if case.mask is None else float(measure(case.explanation, case.mask[None])[0])

    return measured


def _sensitivity(case: Case) -> float:
    """Compare with the class that `class_sensitivity` takes, or with the best if that is it."""
    explained = int(case.explanation.targets[0])
    order = np.argsort(-case.scores, kind="stable")
    other = int(order[min(RANK, len(order)) - 1])
    if other == explained:
        other = int(order[0])
    if other == explained or explained < 0:
        return NAN
    return float(map_correlation(case.explanation, case.of_class(other))[0])


def _keep_minus_delete(case: Case) -> float:
    return float(keep_minus_delete(case.backend, case.inputs, case.explanation)[0])


def _insertion(case: Case) -> Reading:
    return _reading(insertion(case.backend, case.inputs, case.explanation))


def _deletion(case: Case) -> Reading:
    return _reading(deletion(case.backend, case.inputs, case.explanation))


def _published_gain(case: Case) -> float:
    """Measure it for pictures in colour: the code's bare picture is one."""
    last = is_channels_last(case.backend, case.inputs)
    if case.inputs.shape[-1 if last else 1] != len(GAIN_FILL):
        return NAN
    return float(published_gain(case.backend, case.inputs, case.explanation)[0])


def _reading(curve: Curve) -> Reading:
    return Reading(float(curve.auc[0]), curve.shares, curve.probabilities[0])


_TABLE = {
    "energy-in-mask": Metric(
        _in_mask(energy_in_mask),
        "higher",
        "Share of the map's energy on the object. Chance: the object's share of the picture.",
        "Score-CAM, CVPR Workshops 2020",
        needs_mask=True,
    ),
    "rank-accuracy": Metric(
        _in_mask(rank_accuracy),
        "higher",
        "Share of the object that is covered by as many of the hottest positions as it has: the "
        "order counts, contrast does not. Chance: the object's share of the picture.",
        "Arras et al. 2022",
        needs_mask=True,
    ),
    "pointing-game": Metric(
        _in_mask(pointing_game),
        "higher",
        "Share of maps whose highest point lies on the object. On photographs this proves little: "
        "objects are large and in the middle. Chance: the object's share of the picture.",
        "Excitation backprop, ECCV 2016",
        needs_mask=True,
    ),
    "class-sensitivity": Metric(
        _sensitivity,
        "lower",
        "Correlation of the map with that of another class, the one of sixth rank. 1: the method "
        "draws the same map whatever it is asked. 0: no more alike than two unrelated maps. A map "
        "of noise that is the same for every class gets 1, too.",
        "ours",
    ),
    "keep-minus-delete": Metric(
        _keep_minus_delete,
        "higher",
        "Probability of the class with only the hottest fifth of the picture left, minus that with "
        "it blurred away; -1 to 1. The map called random shows the level of chance.",
        "ours",
    ),
    "insertion": Metric(
        _insertion,
        "higher",
        "Area under the probability as the hottest positions come first into a blurred picture. "
        "Chance: see the map called random.",
        "RISE, BMVC 2018",
        is_default=False,
    ),
    "deletion": Metric(
        _deletion,
        "lower",
        "Area under the probability as the hottest positions go first. Pictures with holes are "
        "unlike any the model knows, and scattered holes break it soonest. Chance: see the map "
        "called random.",
        "RISE, BMVC 2018",
        is_default=False,
    ),
    "road": Metric(
        lambda case: float(road(case.backend, case.inputs, case.explanation, seed=case.seed)[0]),
        "higher",
        "How much more probability is lost by removing the hottest positions than the coldest, "
        "half the difference; what is removed is filled in from its neighbours. Chance: 0.",
        "ROAD, ICML 2022",
        is_default=False,
    ),
    "average-drop": Metric(
        lambda case: float(case.confidence.drop[0]),
        "lower",
        "Share of its probability that the class loses when the picture is multiplied by the map. "
        "A map that is bright everywhere loses nothing: read it with a measure of place.",
        "Grad-CAM++, WACV 2018",
    ),
    "average-increase": Metric(
        lambda case: float(case.confidence.increase[0]),
        "higher",
        "Share of images in which the model is surer when the picture is multiplied by the map.",
        "Grad-CAM++, WACV 2018",
    ),
    "average-gain": Metric(
        lambda case: float(case.confidence.gain[0]),
        "higher",
        "Share of the probability that was missing to 1 which the picture multiplied by the map "
        "brings.",
        "Opti-CAM, CVIU 2024",
    ),
    "sparseness": Metric(
        lambda case: float(sparseness(case.explanation)[0]),
        None,
        "Gini index of the map: 0 the same everywhere, 1 a single dot. Neither is right in itself.",
        "ICML 2020",
    ),
    "complexity": Metric(
        lambda case: float(complexity(case.explanation)[0]),
        None,
        "Entropy of the map in nats; small for a single dot. Neither is right in itself.",
        "IJCAI 2020",
        is_default=False,
    ),
    "published-drop": Metric(
        lambda case: float(published_drop(case.backend, case.inputs, case.explanation)[0]),
        "lower",
        "What the public CF-CAM code calls average drop: the mask is hard, at half of the peak, "
        "and a rise is a negative drop.",
        "CF-CAM's code",
        is_default=False,
    ),
    "published-gain": Metric(
        _published_gain,
        "higher",
        "What the public CF-CAM code calls average increase: by how much the probability rises "
        "when the positions above .3 of the peak come into a bare picture; for pictures in colour.",
        "CF-CAM's code",
        is_default=False,
    ),
}

METRICS: Mapping[str, Metric] = MappingProxyType(_TABLE)
"""All metrics, those of users included."""


def find_metric(name: str) -> Metric:
    """Return the metric of that name, or raise `InvalidInputError` with the names there are."""
    if not isinstance(name, str) or name not in METRICS:
        raise InvalidInputError(f"there is no metric {name!r}; allowed are {', '.join(METRICS)}")
    return METRICS[name]


def register_metric(
    name: str,
    function: Callable[[Case], float | Reading],
    *,
    better: Better | None,
    about: str = "",
    source: str = "",
    needs_mask: bool = False,
    is_default: bool = True,
) -> None:
    """Add a metric of your own, for this process.

    Parameters
    ----------
    name : str
        What ``metrics=`` and ``--metric`` will take.
    function : callable
        Takes a `Case` and returns a float, NaN where the map has no value, or a `Reading`. The same
        case must give the same number.
    better : "higher", "lower" or None
        Which values are good.
    about, source : str
        What it says and where it is from, for people.
    needs_mask : bool
        Whether it is left out where no masks are given.
    is_default : bool
        Whether it is measured where none are named.

    Raises
    ------
    InvalidInputError
        There is a metric of that name, or an argument is not understood.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name={name!r} is no name for a metric; pass text")
    if not callable(function):
        raise InvalidInputError(
            f"function is a {type(function).__name__}; pass one that takes a Case and returns a "
            "float"
        )
    if better not in ("higher", "lower", None):
        raise InvalidInputError(
            f"better={better!r} is not understood; allowed are 'higher', 'lower' and None"
        )
    if name in METRICS:
        raise InvalidInputError(f"there is a metric {name!r} already; choose another name")
    _TABLE[name] = Metric(function, better, about, source, needs_mask, is_default)

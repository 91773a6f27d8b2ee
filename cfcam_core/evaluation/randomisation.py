"""Does a map depend on what the model has learned? Maps before and after its weights are mixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Randomisable
from cfcam_core.capture import FloatArray, read_only
from cfcam_core.errors import BlankMapWarning, InvalidInputError
from cfcam_core.explainer import explain
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings

Similarity = Callable[[FloatArray, FloatArray], float]
"""From two heatmaps (*size) to a number, 1 for equal ones."""


@dataclass(frozen=True, slots=True, eq=False)
class ParameterRandomisation:
    """What `parameter_randomisation` returns. Arrays are read-only."""

    similarities: NDArray[np.float64]
    """(D, N): of each sample's heatmap to that of the mixed model, depth by depth; NaN where one of
    the two shows nothing."""
    depths: tuple[int, ...]
    """(D,): how many weights were mixed, counted from the output; of models that were passed their
    number, from 1."""
    weights: tuple[str, ...]
    """(D,): the last weight that was reached at each depth; empty text for models that were
    passed."""
    targets: NDArray[np.intp]
    """(N,): the explained class, the same before and after; -1 where it is no single class."""

    @property
    def undefined(self) -> NDArray[np.intp]:
        """Return the number of samples without a value, (D,)."""
        return np.asarray(np.isnan(self.similarities).sum(axis=1), np.intp)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Return the mean at each depth over the samples that have a value, (D,), or NaN."""
        valued = [row[~np.isnan(row)] for row in self.similarities]
        return np.array([row.mean() if row.size else np.nan for row in valued])


def parameter_randomisation(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    method: str = "cf-cam",
    settings: Settings | None = None,
    layer: Any = None,
    seed: int = 0,
    depths: Literal["all", "cascading"] | Sequence[int] = "all",
    similarity: str | Similarity = "spearman",
    randomised: Sequence[Any] | None = None,
) -> ParameterRandomisation:
    """Compare heatmaps with those of the same model, its weights in random order.

    A method whose maps stay as they were does not show what the model has learned: an edge detector
    would score 1. Both maps are of the same class, the one that is explained of the model itself.

    Parameters
    ----------
    model, inputs, target, method, settings, layer : optional
        As in `cfcam_core.explain`; one layer.
    seed : int
        The same gives the same weights.
    depths : str or sequence of int
        ``all``: every weight is mixed. ``cascading``: the last one, the last two, and so on, which
        costs a copy of the model and a run for each. Or how many, counted from the output.
    similarity : str or callable
        One of `cfcam_core.evaluation.similarity.SIMILARITIES`, every position a segment; or a
        function of two heatmaps (*size). Default: Spearman's correlation.
    randomised : sequence of models, optional
        Mixed models of your own, in place of `seed` and `depths`: for backends that cannot mix
        weights, or to start weights anew as your framework does.

    Returns
    -------
    ParameterRandomisation
        A similarity for each depth and sample; NaN where one of the two maps is blank or flat.

    Raises
    ------
    InvalidInputError
        The model's weights cannot be mixed, or an argument is unknown or out of range.
    CfcamError
        As for `cfcam_core.explain`.

    Warns
    -----
    BlankMapWarning
        As for `cfcam_core.explain`, of the model itself. Blank maps of mixed models are counted.

    Notes
    -----
    Weights are arrays with two or more axes longer than 1. Their values are permuted within each
    (ours: the paper draws new ones as the framework starts weights, which arrays cannot tell), so
    their distribution stays; biases and norms keep their values.

    References
    ----------
    J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 4.
    """
    compare = similarity if callable(similarity) else _by_name(similarity)
    opened = open_model(model)
    if isinstance(layer, list | tuple):
        raise InvalidInputError(f"layer is a {type(layer).__name__}; pass one layer, or None")
    own = explain(opened, inputs, layer=layer, target=target, method=method, settings=settings)
    same = target if (own.targets < 0).any() else own.targets
    found, reached, names = [], [], []
    for depth, name, other in _models(opened, randomised, seed, depths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BlankMapWarning)
            mixed = explain(
                other, inputs, layer=own.layer, target=same, method=method, settings=settings
            )
        pairs = zip(own.heatmaps, mixed.heatmaps, own.status, mixed.status, strict=True)
        found.append([compare(a, b) if s == t == "ok" else np.nan for a, b, s, t in pairs])
        reached.append(depth)
        names.append(name)
    return ParameterRandomisation(
        read_only(np.array(found, np.float64)), tuple(reached), tuple(names), own.targets
    )


def _models(
    opened: Backend, given: Sequence[Any] | None, seed: int, depths: str | Sequence[int]
) -> Iterator[tuple[int, str, Backend]]:
    """Yield each mixed model, one at a time, with its depth and the last weight reached."""
    if given is not None:
        if not isinstance(given, list | tuple) or not given:
            raise InvalidInputError("randomised is no list of models; pass one model or more in it")
        for depth, model in enumerate(given, 1):
            yield depth, "", open_model(model)
        return
    if not isinstance(opened, Randomisable):
        raise InvalidInputError(
            f"a {type(opened).__name__} cannot mix its weights; pass mixed models of your own with "
            "randomised="
        )
    names = opened.weight_names()
    for depth in _depths(depths, len(names)):
        yield depth, names[-depth], opened.randomised(seed, last=depth)


def _depths(depths: str | Sequence[int], count: int) -> Sequence[int]:
    """Return the numbers of weights that are mixed, or raise `InvalidInputError`."""
    if not count:
        raise InvalidInputError(
            "the model has no weights that can be found; pass mixed models of your own with "
            "randomised="
        )
    if isinstance(depths, str) and depths in {"all", "cascading"}:
        return [count] if depths == "all" else range(1, count + 1)
    try:
        numbers = [index(depth) for depth in depths]  # type: ignore[arg-type]
    except TypeError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise InvalidInputError(
            f"depths={depths!r}; allowed are 'all', 'cascading', or numbers of weights from 1 to "
            f"{count}"
        )
    return numbers


def _by_name(name: str) -> Similarity:
    """Return a similarity of the table; SciPy's statistics take a while to import."""
    from cfcam_core.evaluation.similarity import find_similarity, similarities

    find_similarity(name)

    def compare(one: FloatArray, other: FloatArray) -> float:
        maps = np.stack([one, other]).astype(np.float64)
        return float(similarities(name, maps.reshape(2, -1), maps)[0][0])

    return compare

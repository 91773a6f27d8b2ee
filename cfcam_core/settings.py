"""Every tunable of CF-CAM: default, meaning, source. No constant of the method lives anywhere else.

Sources: *paper* is CF-CAM (arXiv 2504.00060 v2), *code* its public implementation
(jerryp-hfut/CF-CAM, cfcam.py), *ours* has no counterpart in either.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from numbers import Integral, Real
from types import MappingProxyType, NoneType
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np

from cfcam_core.errors import InvalidInputError


class Clusterer(Protocol):
    """Anything with scikit-learn's ``fit_predict``; -1 means noise."""

    def fit_predict(self, X: Any, /) -> Any:
        """Return one integer label a row of `X`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What CF-CAM does at each stage. The defaults are the preset ``default``.

    Raises
    ------
    InvalidInputError
        A value outside what its field allows, or an unknown preset.

    Examples
    --------
    >>> Settings.preset("paper").filter
    'gaussian'
    >>> Settings(filter="bilateral", sigma_range=0.5).weighting
    'element-wise'
    """

    cluster_on: Literal["activations", "contributions"] = "activations"
    """What is clustered: a channel's activations (paper), or gradient times activation (ours),
    which makes the clusters depend on the class."""

    unit_norm: bool = True
    """Whether each channel is scaled to length one before the distances are taken (ours)."""

    drop_dead: bool = True
    """Whether channels that are zero everywhere are left out before anything is counted (ours).
    With dead channels kept, many zero distances drive eps to its floor."""

    dominant_percentile: float | None = 75.0
    """Channels whose norm reaches this percentile of all norms are dominant: never clustered, kept
    as they are (paper: hierarchical importance; code: 75). None: no channel is dominant (ours)."""

    gradual: float = 0.3
    """Width of what separates dominant from clustered channels, and clustered from dead ones, as a
    share of the least dominant norm and of the median norm (ours). Within it a channel is partly on
    either side, so that rounding does not decide. 0: all or nothing (code)."""

    eps_rule: Literal["rank", "float32"] = "rank"
    """How DBSCAN's radius follows from `eps_percentile`. ``rank``: two channels are neighbours iff
    their squared distance is at most the k-th smallest of the same float64 distances (ours).
    ``float32``: the radius is interpolated between float32 distances and compared with float64 ones
    (code)."""

    eps_percentile: float = 25.0
    """Percentile of all pairwise distances that becomes the radius (code: 25)."""

    eps_floor: float = 1e-5
    """Least radius: relative to the median norm under ``rank`` (ours), absolute under ``float32``
    (code)."""

    min_samples_share: float = 0.05
    """Neighbours, itself included, that make a core channel, as a share of the clustered channels
    (code)."""

    min_samples_least: int = 2
    """The same as a least number (code)."""

    clusterer: Clusterer | None = None
    """Any scikit-learn clusterer to use in place of the built-in DBSCAN (ours)."""

    noise: Literal["drop", "keep"] = "drop"
    """What happens to channels that belong to no cluster: left out (paper), or kept as they are
    (ours)."""

    average: Literal["gradients", "directions", "both"] = "both"
    """What a cluster's members share. ``gradients``: the mean gradient (paper). ``directions``: the
    mean of their unit-length contributions, each member keeping its norm (ours). ``both``: where
    those two maps agree: their product (ours)."""

    sigma_agreement: float = 0.7
    """How near each other the two maps of ``average="both"`` must show the same: the width, in
    positions of the layer's map, of the Gaussian that smooths their positive parts before they are
    multiplied (ours). 0: at the same position."""

    sign_split: bool = True
    """Whether gradients are averaged apart for members whose mean gradient is positive and those
    whose mean is negative, so that evidence for and against the class does not cancel (ours).
    Directions are averaged together all the same: there the opposed ones shall cancel."""

    filter: Literal["none", "gaussian", "bilateral", "public-code"] = "gaussian"
    """Filter on what a cluster shares: mean gradient, or direction (ours). ``gaussian``: normalised
    (paper v2). ``bilateral``: edge-preserving (paper v1 by its name; Tomasi and Manduchi 1998).
    ``public-code``: what the code computes under the name of bilateral."""

    sigma_spatial: float = 5.0
    """Width of the spatial kernel in positions of the layer's map (code: 5; paper: not given)."""

    sigma_range: float = 1.0
    """Width of the range kernel: in standard deviations of the mean gradient for ``bilateral``
    (ours), in gradient units for ``public-code`` (code: 0.1)."""

    weighting: Literal["softmax", "linear", "element-wise"] = "element-wise"
    """How gradients weigh activations. ``softmax``: softmax over channels of the mean gradients
    (code). ``linear``: the mean gradient itself (Grad-CAM's weight). ``element-wise``: gradient
    times activation at every position (Hadamard product in the paper's figure)."""

    def __post_init__(self) -> None:
        for name, hint in _hints().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        _within("eps_percentile", self.eps_percentile, 0, 100)
        if self.dominant_percentile is not None:
            _within("dominant_percentile", self.dominant_percentile, 0, 100)
        _within("gradual", self.gradual, 0, 1)
        _within("sigma_agreement", self.sigma_agreement, 0, 1e6)
        _within("min_samples_share", self.min_samples_share, 0, 1)
        _within("min_samples_least", self.min_samples_least, 1, 10**9)
        _within("eps_floor", self.eps_floor, 0, 1e30)
        _positive("sigma_spatial", self.sigma_spatial)
        _positive("sigma_range", self.sigma_range)

    @classmethod
    def preset(cls, name: str) -> Settings:
        """Return the settings of that name: ``reference``, ``paper`` or ``default``.

        ``reference`` computes what the public code computes, ``paper`` the same with the normalised
        Gaussian of the paper's second version, ``default`` what the measurements in the benchmarks
        favour.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise InvalidInputError(
                f"there is no preset {name!r}; allowed are {', '.join(PRESETS)}"
            )
        return PRESETS[name]

    def to_json(self) -> str:
        """Return all fields as JSON; a clusterer is written as its ``repr``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values, default=repr)


@lru_cache(maxsize=1)
def _hints() -> dict[str, Any]:
    return get_type_hints(Settings)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return a field's value as plain Python, or raise `InvalidInputError`."""
    allowed = get_args(hint)
    if get_origin(hint) is Literal:
        if isinstance(value, str) and value in allowed:
            return value
        wanted = ", ".join(map(repr, allowed))
    elif value is None and NoneType in allowed:
        return None
    elif Clusterer in allowed:
        if callable(getattr(value, "fit_predict", None)) and not isinstance(value, type):
            return value
        wanted = "a scikit-learn clusterer such as HDBSCAN(), or None"
    elif hint is bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        wanted = "True or False"
    else:
        if hint is int and isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        if hint is not int and isinstance(value, Real) and not isinstance(value, bool):
            return float(value)
        wanted = "an integer" if hint is int else "a number"
    raise InvalidInputError(f"{name}={value!r} is not understood; allowed is {wanted}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInputError(f"{name}={value!r} is out of range; allowed is {low} to {high}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InvalidInputError(f"{name}={value!r} is out of range; it must be positive and finite")


_REFERENCE = Settings(
    unit_norm=False,
    drop_dead=False,
    gradual=0.0,
    eps_rule="float32",
    average="gradients",
    sign_split=False,
    filter="public-code",
    sigma_range=0.1,
    weighting="softmax",
)

PRESETS = MappingProxyType(
    {
        "reference": _REFERENCE,
        "paper": replace(_REFERENCE, filter="gaussian"),
        "default": Settings(),
    }
)
"""Named settings, in the order they are listed to users."""

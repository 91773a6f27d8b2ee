"""What is compared by default, and what names of methods and metrics stand for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.metrics import METRICS, Metric, find_metric
from cfcam_core.methods import METHODS, find_method
from cfcam_core.settings import PRESETS, Settings

MethodChoice: TypeAlias = str | tuple[str, str, Settings | None]
"""A name; a name with a preset, ``cf-cam:reference``; or a label, a name and settings."""


@dataclass(frozen=True, slots=True)
class Column:
    """One method of a comparison."""

    label: str
    method: str
    settings: Settings

    def described(self) -> dict[str, Any]:
        """Return what decides its maps."""
        own = json.loads(self.settings.to_json()) if self.method == "cf-cam" else None
        return {"method": self.method, "settings": own}


def default_methods() -> tuple[str, ...]:
    """Return the methods that need no extra passes through the model, and the public CF-CAM."""
    quick = [name for name, method in METHODS.items() if not method.asks_model]
    return (*quick[:1], f"{quick[0]}:reference", *quick[1:])


def all_methods() -> tuple[str, ...]:
    """Return every method, and every preset of CF-CAM."""
    presets = [f"cf-cam:{name}" for name in PRESETS if name != "default"]
    return ("cf-cam", *presets, *(name for name in METHODS if name != "cf-cam"))


def default_metrics(*, masks: bool) -> tuple[str, ...]:
    """Return the metrics that are measured where none are named."""
    return tuple(
        name for name, m in METRICS.items() if m.is_default and (masks or not m.needs_mask)
    )


def all_metrics(*, masks: bool) -> tuple[str, ...]:
    """Return every metric that can be measured."""
    return tuple(name for name, m in METRICS.items() if masks or not m.needs_mask)


def columns_of(methods: Iterable[MethodChoice], settings: Settings | None) -> tuple[Column, ...]:
    """Return what choices of methods mean.

    Raises
    ------
    InvalidInputError
        There is none, one is unknown, or two have the same label.
    """
    choices = (methods,) if isinstance(methods, str) else methods
    columns = [_column(choice, settings or Settings()) for choice in choices]
    labels = [column.label for column in columns]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise InvalidInputError(f"two methods are called {twice[0]!r}; give each its own label")
    if not columns:
        raise InvalidInputError("there are no methods to compare; leave methods out for the usual")
    return tuple(columns)


def _column(choice: MethodChoice, settings: Settings) -> Column:
    if isinstance(choice, str):
        name, colon, preset = choice.partition(":")
        if colon and choice not in METHODS:
            find_method(name)
            if name != "cf-cam":
                raise InvalidInputError(f"{choice!r}: only cf-cam has presets, {name} has none")
            return Column(choice, name, Settings.preset(preset))
        find_method(choice)
        return Column(choice, choice, settings)
    try:
        label, name, own = choice
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"the method {choice!r} is not understood; wanted a name, or a label, a name and "
            "settings"
        ) from None
    find_method(name)
    if not isinstance(own, Settings | None):
        raise InvalidInputError(f"settings of {label!r} is a {type(own).__name__}; pass a Settings")
    return Column(str(label), name, own or settings)


def metrics_of(names: Iterable[str]) -> dict[str, Metric]:
    """Return the metrics of these names.

    Raises
    ------
    InvalidInputError
        There is none, or one is unknown.
    """
    found = {name: find_metric(name) for name in ((names,) if isinstance(names, str) else names)}
    if not found:
        raise InvalidInputError("there are no metrics to measure; leave metrics out for the usual")
    return found

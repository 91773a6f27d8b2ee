"""Scores of a model with a layer's output replaced.

Where one picture comes many times, as when channels are ablated, what lies before the layer runs
for one of them, if a trial has shown that this gives the same.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.layout import Layout
from cfcam_torch._classifier import Classifier
from cfcam_torch._explaining import replaced
from cfcam_torch._inputs import Feeds, rows, samples
from cfcam_torch._learned import learned
from cfcam_torch._outputs import numpy_of
from cfcam_torch._places import module_of
from cfcam_torch._trial import Facts

TRIED = 3
"""Maps of the trial: more than one, and no usual number of anything in a model."""
CLOSE = 1e-4
"""How far scores of the trial may differ, as a share of the largest."""


def scores_with(
    model: Classifier, maps: NDArray[np.float32], feeds: Feeds, facts: Facts, place: Layout
) -> NDArray[np.float32]:
    """Return the logits with maps (N, C, *s) in the place of a layer's own.

    Raises
    ------
    InvalidInputError
        The maps do not fit the layer.
    LayerNotFoundError
        The layer does not run, or hands on what no score depends on.
    """
    reading = model.reading(facts)
    is_inside = module_of(model.module, place.name) is not None
    if is_inside and len(maps) > 1 and not callable(reading.output) and _is_one_picture(feeds):
        sizes = tuple((name, tuple(value.shape[1:])) for name, value in feeds.items())
        key = ("one picture will do", place.name, sizes, maps.shape[1:], reading)
        if learned(model.module, key, lambda: _one_will_do(model, maps, feeds, facts, place)):
            feeds = rows(feeds, 1)
    return _put_in(model, maps, feeds, facts, place)


def _is_one_picture(feeds: Feeds) -> bool:
    """Return whether all inputs are arrays, each of as many samples, and all of these are equal."""
    count = samples(feeds)
    return all(
        isinstance(value, Tensor)
        and value.shape[:1] == (count,)
        and bool((value == value[:1]).all())
        for value in feeds.values()
    )


def _one_will_do(
    model: Classifier, maps: NDArray[np.float32], feeds: Feeds, facts: Facts, place: Layout
) -> bool:
    """Return whether different maps give the same scores with one picture as with one for each.

    A model may take the number of samples from its input, and mix them up or fail then. The maps
    are the first, each channel times a number of its own: what is positive stays so.
    """
    factors = np.random.default_rng(0).uniform(0, 2, (TRIED, maps.shape[1]))
    trial = maps[:1] * factors.reshape(*factors.shape, *[1] * (maps.ndim - 2)).astype(np.float32)
    many = {name: value[:1].expand(TRIED, *value.shape[1:]) for name, value in feeds.items()}
    with suppress(Exception):  # whatever the model fails with
        wanted = _put_in(model, trial, many, facts, place)
        found = _put_in(model, trial, rows(feeds, 1), facts, place)
        close = CLOSE * np.abs(wanted).max()
        apart = min(np.abs(wanted[i] - wanted[i - 1]).max() for i in range(TRIED))
        return bool(np.abs(found - wanted).max() <= close and apart > 10 * close)
    return False


def _put_in(
    model: Classifier, maps: NDArray[np.float32], feeds: Feeds, facts: Facts, place: Layout
) -> NDArray[np.float32]:
    """Return the logits (N, K) of N maps and as many samples, or one sample."""
    size = facts.size(feeds) or None
    is_new = False

    def change(own: NDArray[np.float32]) -> NDArray[Any]:
        nonlocal is_new
        if samples(feeds) < len(maps):
            own = np.repeat(own, len(maps), axis=0)
        before = place.maps(own, size)
        if maps.shape != before.shape:
            raise InvalidInputError(
                f"activations have shape {maps.shape}; layer {place.name!r} has {before.shape}"
            )
        is_new = not np.array_equal(maps, before)
        return place.array(maps, own)

    module = module_of(model.module, place.name)
    if module is None:
        name = str(facts.source)
        array = np.array(change(numpy_of(feeds[name])), np.float32)
        return model.scores({**feeds, name: torch.from_numpy(array).to(feeds[name])}, facts)
    turn = facts.runs.get(place.name, 1)
    action, runs = replaced(turn, change)
    scores = model.scores(feeds, facts, [(module, action)], count=len(maps))
    if len(runs) < turn:
        raise LayerNotFoundError(f"layer {place.name!r} did not run on these inputs")
    is_hidden = is_new and not runs[turn - 1]
    if is_hidden and np.array_equal(scores, model.scores(feeds, facts)):
        raise LayerNotFoundError(
            f"no score depends on what layer {place.name!r} hands on; name a layer inside it"
        )
    return scores

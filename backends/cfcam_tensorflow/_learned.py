"""What was learned of a model is kept as long as it is built of the same layers.

Of a run on the user's inputs that may be names and numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras

from cfcam_core.remembered import Parts, remembered
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._naming import Names

Learn = Callable[[Hashable, Callable[[], Any]], Any]
"""Takes what something is called and what finds it out; returns what that has found, once."""


def structure(roots: Sequence[Any], names: Names) -> Parts:
    """Return of which layers some models are built, under which names, with which activations."""
    layers = [*roots, *names.operations.values()]
    activations = [vars(one).get("activation") for one in layers]
    named = [one if one is None or isinstance(one, str) else "" for one in activations]
    return Parts([*layers, *activations], (list(names.operations), names.modules, named))


def learning(model: Any, parts: Parts, given: Hashable) -> Learn:
    """Return what remembers what is learned of a model on inputs, and with options, of one kind."""

    def learn(what: Hashable, find: Callable[[], Any]) -> Any:
        return remembered(model, parts, (what, given), find)

    return learn


def not_learning(what: Hashable, find: Callable[[], Any]) -> Any:
    """Find it out anew: what a function of the user's makes may hold anything."""
    del what
    return find()


def kind_of(feeds: Feeds) -> Hashable:
    """Return what a trial run depends on, of inputs: sizes, dtypes, and how they are held."""
    held = repr(feeds.hold(list(range(len(feeds.arrays)))))
    return feeds.kinds, held, keras.config.image_data_format()

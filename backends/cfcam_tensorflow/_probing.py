"""Runs of a model on one sample of ours, and what becomes of what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_tensorflow._engines import Tap
from cfcam_tensorflow._intercepting import Around
from cfcam_tensorflow._logits import (
    Closing,
    activation_between,
    find_closing,
    kept_logits,
    without_activation,
)
from cfcam_tensorflow._observing import Call, Observer
from cfcam_tensorflow._outputs import as_scores, choose
from cfcam_tensorflow._running import Runner, at_call, both
from cfcam_tensorflow._seen import Seen


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of what a model returns."""

    output: Any
    """Which part of it is explained; see `choose`."""
    names: list[str]
    """What the model calls its outputs."""
    closing: Closing | None = None
    """The layer whose activation is left out."""
    kept: bool = False
    """Whether the logits are those that Keras keeps beside probabilities."""
    behind: tuple[str, ...] = ()
    """Names of the activations that are looked through."""

    def arounds(
        self, operations: Mapping[str, Any], reached: Callable[[str], None] = lambda _: None
    ) -> dict[Any, Around]:
        """Return what the closing layer's call goes through in one run, and tell of it."""
        if self.closing is None:
            return {}
        path, operation = self.closing.path, operations[self.closing.path]

        def leave_out(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            reached(path)
            return without_activation(operation, args, kwargs)

        return {operation: at_call(self.closing.call, leave_out)}

    def of(self, raw: Any) -> Any:
        """Return what is explained, before it is given the shape of scores."""
        leaf = choose(raw, self.output, self.names)
        return kept_logits(leaf) if self.kept else leaf


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A model, how it holds its inputs together, and what is explained of its output."""

    runner: Runner
    hold: Callable[[list[Any]], Any]
    ending: Ending

    def observe(self, tensors: Sequence[Any]) -> tuple[Sequence[Call], Any]:
        """Return all calls of a run, and what the model returned."""
        runner = self.runner
        observer = Observer(runner.engine.is_value)
        arounds = observer.arounds(runner.names.operations)
        raw, _ = runner.engine.forward(lambda _: runner.run(self.hold(list(tensors)), arounds))
        return observer.calls, raw

    def scores(
        self, tensors: Sequence[Any], arounds: Mapping[Any, Around] | None = None
    ) -> NDArray[Any]:
        """Return all that is explained of a run, as one row."""
        engine = self.runner.engine
        made, _ = engine.forward(lambda _: self._row(tensors, arounds or {}))
        return engine.array(made)

    def output(self, tensors: Sequence[Any], one: Seen) -> Any:
        """Return what a layer makes at its last call."""

        def run(tap: Tap) -> Any:
            return self._row(tensors, self._taps([one], tap))

        return self.runner.engine.forward(run)[1].get(one.path)

    def influences(
        self, tensors: Sequence[Any], layers: Iterable[Seen]
    ) -> dict[str, NDArray[Any] | None]:
        """Return where the gradient of the largest score differs from zero, by path.

        None where the score does not depend on a layer; (1, C, 1) of a layer with maps, for all
        others an empty array.
        """
        rows = list(layers)

        def run(tap: Tap) -> Any:
            return self._row(tensors, self._taps(rows, tap))

        recording = self.runner.engine.record(run)
        scores = self.runner.engine.array(recording.explained)
        seed = np.zeros_like(scores)
        seed[0, scores.argmax()] = 1
        found = recording.pull(seed)
        return {one.path: _per_channel(one, found.get(one.path)) for one in rows}

    def look_through(self, tensors: Sequence[Any], calls: Sequence[Call], raw: Any) -> Ending:
        """Return an ending that leaves the closing activation out, if that is what it is."""
        leaf = choose(raw, self.ending.output, self.ending.names)
        scores = as_scores(leaf, 1)
        if scores is None:
            return self.ending
        wanted = self.runner.engine.array(scores)
        closing = find_closing(leaf, calls)
        tries = [replace(self.ending, closing=closing)] if closing else []
        if self.runner.engine.KEEPS_NOTES and kept_logits(leaf) is not None:
            tries.append(replace(self.ending, kept=True))
        for one in tries:
            made = replace(self, ending=one).scores(tensors)
            name = activation_between(made, wanted) if made.shape == wanted.shape else None
            if name is not None:
                return replace(one, behind=(name,))
        return self.ending

    def _taps(self, layers: Iterable[Seen], tap: Tap) -> dict[Any, Around]:
        operations = self.runner.names.operations
        return {operations[one.path]: self.runner.tapping(one.path, tap) for one in layers}

    def _row(self, tensors: Sequence[Any], arounds: Mapping[Any, Around]) -> Any:
        ending = self.ending.arounds(self.runner.names.operations)
        raw = self.runner.run(self.hold(list(tensors)), merged(ending, arounds))
        leaves = keras.tree.flatten(self.ending.of(raw))
        rows = [keras.ops.reshape(x, (1, -1)) for x in leaves if self.runner.engine.is_value(x)]
        return rows[0] if len(rows) == 1 else keras.ops.concatenate(rows, axis=1)


def merged(first: Mapping[Any, Around], then: Mapping[Any, Around]) -> dict[Any, Around]:
    """Return what calls go through: `first`, then `then`, or the one that there is."""
    shared = {one: both(first[one], then[one]) for one in first if one in then}
    return {**first, **then, **shared}


def _per_channel(one: Seen, gradient: NDArray[Any] | None) -> NDArray[Any] | None:
    if gradient is None:
        return None
    if one.layout is None:
        return np.zeros(0)
    maps = one.layout.maps(gradient, one.layout.size)
    return np.asarray(maps.reshape(*maps.shape[:2], -1).any(axis=2, keepdims=True))

"""What a few runs on one sample show of a model: its maps, its logits, where all paths meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Layer
from cfcam_core.layers import find_default, is_bottleneck
from cfcam_core.layout import Layout
from cfcam_tensorflow._cuts import Cuts, find_cuts
from cfcam_tensorflow._engines import Tap
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._intercepting import Around
from cfcam_tensorflow._logits import Closing, activation_between, find_closing, kept_logits
from cfcam_tensorflow._observing import Call, Observer
from cfcam_tensorflow._outputs import as_scores, choose, described
from cfcam_tensorflow._running import Runner, at_call, both
from cfcam_tensorflow._seen import Seen, channel_axis, seen_layers


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

    def arounds(self) -> dict[Any, Around]:
        """Return what the closing layer's call goes through."""
        if self.closing is None:
            return {}
        return {self.closing.operation: at_call(self.closing.call, self.closing.leave_out)}

    def of(self, raw: Any) -> Any:
        """Return what is explained, before it is given the shape of scores."""
        leaf = choose(raw, self.output, self.names)
        return kept_logits(leaf) if self.kept else leaf


class Trial:
    """Runs on one sample, and what they show.

    Parameters
    ----------
    runner : Runner
    feeds : Feeds
        One sample.
    ending : Ending
        Which output is explained; what its activation is, is found out.
    look_through : bool
        Whether to explain the logits behind a closing activation.
    """

    def __init__(self, runner: Runner, feeds: Feeds, ending: Ending, *, look_through: bool) -> None:
        self._runner = runner
        self.picture = feeds.picture
        self._own = [runner.engine.tensor(one) for one in feeds.arrays]
        self._other = [runner.engine.tensor(_noise_like(one)) for one in feeds.arrays]
        self._hold = feeds.hold
        runner.build(self._hold(self._own))
        observer, raw = self._observe(self._own)
        self._calls: Sequence[Call] = observer.calls
        self.returned = described(raw, ending.names)
        self._leaf = choose(raw, ending.output, ending.names)
        self.channels = (
            None
            if self.picture is None
            else channel_axis(runner.names.operations, len(self._own[self.picture].shape))
        )
        picture = None if self.picture is None else self._own[self.picture]
        self.seen: Mapping[str, Seen] = seen_layers(self._calls, picture, self.channels)
        self.ending = self._look_through(ending) if look_through else ending
        scores = as_scores(self._leaf, 1)
        self.classes = None if scores is None else int(scores.shape[1])
        """Number of classes K; None if the output is no classifier's."""

    @property
    def input_layout(self) -> Layout | None:
        """Where the input that is a picture or signal has its channels."""
        if self.picture is None or self.channels is None:
            return None
        shape = tuple(self._own[self.picture].shape)
        return Layout("input", self.channels, None, tuple(np.delete(shape, [0, self.channels])))

    @cached_property
    def default(self) -> str | None:
        """Path of the layer that is explained if none is named."""
        rows = [one for one in self._maps if one.makes_maps]
        layout = self.input_layout
        place = find_default(
            [one.maps_shape for one in rows],
            axes=2 if layout is None else len(layout.size),
            gradient=lambda i: self._gradient(rows[i]),
            is_cut=lambda i: self._is_cut(rows[i]),
        )
        return None if place is None else rows[place].path

    @cached_property
    def listed(self) -> tuple[Layer, ...]:
        """Maps that all paths run through, in the order of execution."""
        rows = [
            one
            for one in self._maps
            if min(one.maps_shape[2:]) > 1
            and self._gradients.get(one.path) is not None
            and self._is_cut(one)
        ]
        return tuple(
            Layer(
                name=one.path,
                shape=(None, *one.shape[1:]),
                kind=one.kind,
                is_default=one.path == self.default,
                module=self._runner.names.modules.get(one.path, ""),
            )
            for one in rows
        )

    # ------------------------------------------------------------------------------- within

    @property
    def _maps(self) -> list[Seen]:
        return [one for one in self.seen.values() if one.is_first and one.layout is not None]

    def _observe(self, tensors: Sequence[Any]) -> tuple[Observer, Any]:
        runner = self._runner
        observer = Observer(runner.names.operations, runner.engine.is_value)
        raw, _ = runner.engine.forward(
            lambda _: runner.run(self._hold(list(tensors)), observer.arounds)
        )
        return observer, raw

    def _look_through(self, ending: Ending) -> Ending:
        """Return an ending that leaves the closing activation out, if that is what it is."""
        scores = as_scores(self._leaf, 1)
        if scores is None:
            return ending
        wanted = self._runner.engine.array(scores)
        closing = find_closing(self._leaf, self._calls)
        tries = [Ending(ending.output, ending.names, closing)] if closing else []
        if kept_logits(self._leaf) is not None:
            tries.append(Ending(ending.output, ending.names, kept=True))
        for one in tries:
            made = as_scores(self._run(self._own, ending=one), 1)
            if made is None or tuple(made.shape) != wanted.shape:
                continue
            name = activation_between(self._runner.engine.array(made), wanted)
            if name is not None:
                return Ending(one.output, one.names, one.closing, one.kept, (name,))
        return ending

    def _run(
        self,
        tensors: Sequence[Any],
        arounds: Mapping[Any, Around] | None = None,
        ending: Ending | None = None,
    ) -> Any:
        """Return what is explained of one run."""
        last = ending or self.ending
        return last.of(
            self._runner.run(self._hold(list(tensors)), merged(last.arounds(), arounds or {}))
        )

    def _flat(self, explained: Any) -> Any:
        """Return all that is explained as one row."""
        rows = [keras.ops.reshape(x, (1, -1)) for x in keras.tree.flatten(explained)]
        rows = [x for x in rows if self._runner.engine.is_value(x)]
        return rows[0] if len(rows) == 1 else keras.ops.concatenate(rows, axis=1)

    @cached_property
    def _gradients(self) -> Mapping[str, NDArray[np.float32] | None]:
        """Gradients of the largest score with respect to every map, by path."""
        runner = self._runner

        def run(tap: Tap) -> Any:
            arounds = {one.operation: runner.tapping(one.path, tap) for one in self._maps}
            return self._flat(self._run(self._own, arounds))

        recording = runner.engine.record(run)
        scores = runner.engine.array(recording.explained)
        seed = np.zeros_like(scores)
        seed[0, scores.argmax()] = 1
        return recording.pull(seed)

    def _gradient(self, one: Seen) -> NDArray[np.float32] | None:
        found = self._gradients.get(one.path)
        if found is None or one.layout is None:
            return None
        return one.layout.maps(found, one.layout.size)

    @cached_property
    def _cuts(self) -> Cuts:
        other, _ = self._observe(self._other)
        twins = {(one.path, one.number): one.main for one in other.calls}
        array = self._runner.engine.array

        def varies(call: Call) -> bool:
            twin = twins.get((call.path, call.number))
            if twin is None or call.main is None or twin.shape != call.main.shape:
                return True
            return not np.array_equal(array(twin), array(call.main))

        def matters(call: Call) -> bool:
            seen = self.seen.get(call.path)
            if seen is None or not seen.is_first or call.number != seen.calls - 1:
                return True
            return call.path not in self._gradients or self._gradients[call.path] is not None

        return find_cuts(self._calls, self._own, self._leaf, varies=varies, matters=matters)

    @cached_property
    def _own_scores(self) -> NDArray[Any]:
        return self._scores(self._own)

    @cached_property
    def _other_scores(self) -> NDArray[Any]:
        return self._scores(self._other)

    def _scores(
        self, tensors: Sequence[Any], arounds: Mapping[Any, Around] | None = None
    ) -> NDArray[Any]:
        engine = self._runner.engine
        made, _ = engine.forward(lambda _: self._flat(self._run(tensors, arounds)))
        return engine.array(made)

    def _is_cut(self, one: Seen) -> bool:
        """Whether all paths run through a layer: nothing is seen to go past it, nor by trial."""
        if not self._cuts.may_cut(one.ended):
            return False
        return self._cuts.is_complete or self._is_bottleneck(one)

    def _is_bottleneck(self, one: Seen) -> bool:
        runner = self._runner

        def run(tap: Tap) -> Any:
            return self._run(self._other, {one.operation: runner.tapping(one.path, tap)})

        _, taken = runner.engine.forward(run)
        if one.path not in taken or tuple(taken[one.path].shape) != one.shape:
            return False
        around = runner.replacing(one.calls - 1, lambda _: taken[one.path])
        swapped = self._scores(self._own, {one.operation: around})
        return is_bottleneck(swapped, self._own_scores, self._other_scores)


def merged(first: Mapping[Any, Around], then: Mapping[Any, Around]) -> dict[Any, Around]:
    """Return what calls go through: `first`, then `then`, or the one that there is."""
    shared = {one: both(first[one], then[one]) for one in first if one in then}
    return {**first, **then, **shared}


def _noise_like(array: NDArray[Any]) -> NDArray[Any]:
    """Return noise of the same range, shape and dtype."""
    rng = np.random.default_rng(0)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        spread = (low, high) if high > low else (low - 1, high + 1)
        return rng.uniform(*spread, array.shape).astype(array.dtype)
    if array.dtype.kind == "b":
        return ~array
    return rng.integers(low, int(high) + (2 if high == low else 1), array.shape).astype(array.dtype)

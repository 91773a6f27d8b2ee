"""What is run: functions built of a flat graph, made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_tensorflow._saved_model.graph import ADVICE, SavedGraph
from cfcam_tensorflow._saved_model.inputs import SavedInput

Arrays = list[NDArray[Any]]


class Programs:
    """The functions of one model. May be called from many threads.

    All take arrays with the batch first and return such. Where the model has a batch of its own,
    they are run in pieces of that.

    Parameters
    ----------
    graph : SavedGraph
    inputs : sequence of SavedInput
    ends : sequence of str
        Tensors to explain: the logits, or all outputs where there are none.
    classifier : bool
        Whether the ends are logits, to be made (N, K).
    """

    def __init__(
        self,
        graph: SavedGraph,
        inputs: Sequence[SavedInput],
        *,
        ends: Sequence[str],
        classifier: bool,
    ) -> None:
        self._graph, self._inputs = graph, inputs
        self._ends, self._classifier = tuple(ends), classifier
        self._kept: dict[tuple[str, ...], Any] = {}
        self._lock = RLock()
        shapes = [one.shape for one in inputs if one.shape]
        self.batch = next((shape[0] for shape in shapes if shape[0] is not None), None)

    def forward(self, feeds: Mapping[str, Any]) -> Arrays:
        """Return the ends."""
        return self._run("forward", (), feeds)

    def raw(self, feeds: Mapping[str, Any]) -> list[Any]:
        """Return the ends as TensorFlow's tensors, in their own dtypes."""
        return self._called("raw", (), self._tensors(feeds))

    def shapes(self, names: Sequence[str], feeds: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """Return the shapes that tensors have."""
        found = self._called("shapes", tuple(names), self._tensors(feeds))
        return [tuple(int(size) for size in one) for one in found]

    def tail(self, name: str, tensor: NDArray[Any], feeds: Mapping[str, Any]) -> Arrays:
        """Return the ends with a tensor replaced."""
        return self._run("tail", (name,), feeds, tensor)

    def layers(self, names: Sequence[str], feeds: Mapping[str, Any]) -> Arrays:
        """Return tensors."""
        return self._run("layers", tuple(names), feeds)

    def gradients(
        self, names: Sequence[str], feeds: Mapping[str, Any], cotangents: Sequence[NDArray[Any]]
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Return the ends, the tensors, and the gradients of the ends with respect to these.

        Parameters
        ----------
        names : sequence of str
        feeds : mapping
        cotangents : sequence of ndarray
            One an end; NaN in the first column of a row stands for the class with the largest
            logit.
        """
        found = self._run("gradients", tuple(names), feeds, *cotangents)
        ends = len(self._ends)
        return found[:ends], found[ends : ends + len(names)], found[ends + len(names) :]

    # ------------------------------------------------------------------------------- within

    def _tensors(self, feeds: Mapping[str, Any]) -> list[Any]:
        return [tf.constant(feeds[one.name]) for one in self._inputs]

    def _run(
        self, what: str, names: tuple[str, ...], feeds: Mapping[str, Any], *more: NDArray[Any]
    ) -> Arrays:
        arrays = [*more, *(feeds[one.name] for one in self._inputs)]
        samples = len(arrays[-1])
        if self.batch in {None, samples}:
            found = self._called(what, names, [tf.constant(array) for array in arrays])
            return [one.numpy() for one in found]
        pieces = []
        for start in range(0, samples, self.batch):
            chosen = np.minimum(np.arange(start, start + self.batch), samples - 1)
            found = self._called(what, names, [tf.constant(array[chosen]) for array in arrays])
            pieces.append([one.numpy()[: samples - start] for one in found])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _called(self, what: str, names: tuple[str, ...], tensors: Sequence[Any]) -> list[Any]:
        run = self._made(what, names)
        try:
            return list(run(*tensors))
        except (tf.errors.OpError, ValueError) as error:
            raise InvalidInputError(f"TensorFlow cannot run the model on this: {error}") from error

    def _made(self, what: str, names: tuple[str, ...]) -> Any:
        with self._lock:
            if (what, *names) not in self._kept:
                self._kept[what, *names] = self._build(what, names)
            return self._kept[what, *names]

    def _build(self, what: str, names: tuple[str, ...]) -> Any:
        """Make a function of what is fed before the inputs, and of the inputs."""
        given = [one.tensor for one in self._inputs]
        before = {"tail": list(names), "gradients": list(self._ends)}.get(what, [])
        specs = [self._spec(name, what) for name in before] + [self._own(name) for name in given]

        def run(graph: SavedGraph, *tensors: Any) -> list[Any]:
            extra, inputs = tensors[: len(before)], tensors[len(before) :]
            known = dict(zip(given, inputs, strict=True))
            if what == "tail":
                name = names[0]
                known[name] = tf.cast(extra[0], self._graph.tensor(name).dtype)
                return self._finished(graph.place(self._ends, known))
            found = graph.place([*self._ends, *names], known)
            ends, layers = found[: len(self._ends)], found[len(self._ends) :]
            if what == "raw":
                return ends
            if what == "shapes":
                return [tf.shape(one) for one in layers]
            if what == "layers":
                return [tf.cast(one, tf.float32) for one in layers]
            if what == "forward":
                return self._finished(ends)
            return self._finished(ends) + self._differentiated(names, ends, layers, extra)

        made = tf.compat.v1.wrap_function(partial(run, self._graph), specs)
        if all(hasattr(one, "numpy") for one in made.graph.external_captures):
            return made
        # a custom gradient that was saved may read tensors of a function that has been inlined
        plain = self._graph.without_custom_gradients()
        return tf.compat.v1.wrap_function(partial(run, plain), specs)

    def _own(self, name: str) -> Any:
        tensor = self._graph.tensor(name)
        return tf.TensorSpec(tensor.shape, tensor.dtype)

    def _spec(self, name: str, what: str) -> Any:
        shape = self._graph.tensor(name).shape
        if what == "gradients" and self._classifier:
            shape = tf.TensorShape([None, None])
        return tf.TensorSpec(shape, tf.float32)

    def _finished(self, ends: Sequence[Any]) -> list[Any]:
        """Return the ends in float32, logits as (N, K)."""
        floats = [tf.cast(one, tf.float32) for one in ends]
        return (
            [tf.reshape(one, (len_of(one), -1)) for one in floats] if self._classifier else floats
        )

    def _differentiated(
        self, names: Sequence[str], ends: Sequence[Any], layers: Sequence[Any], seeds: Sequence[Any]
    ) -> list[Any]:
        if self._classifier:
            (logits,) = self._finished(ends)
            largest = tf.one_hot(tf.argmax(logits, axis=1), tf.shape(logits)[1])
            seeds = [tf.where(tf.math.is_nan(seeds[0][:, :1]), largest, seeds[0])]
        ways = [(end, seed) for end, seed in zip(ends, seeds, strict=True) if end.dtype.is_floating]
        cotangents = [tf.cast(tf.reshape(seed, tf.shape(end)), end.dtype) for end, seed in ways]
        try:
            found = tf.gradients([end for end, _ in ways], list(layers), grad_ys=cotangents)
        except (LookupError, NotImplementedError, TypeError, ValueError) as error:
            raise UnsupportedOpError(
                f"TensorFlow has no gradient at {', '.join(names)}: {error}; name a later layer, "
                f"or {ADVICE}"
            ) from error
        lost = [name for name, one in zip(names, found, strict=True) if one is None]
        if lost:
            raise LayerNotFoundError(
                f"the logits do not depend on {', '.join(lost)} in a way that has a gradient; "
                "name another layer"
            )
        return [tf.cast(one, tf.float32) for one in [*layers, *map(tf.convert_to_tensor, found)]]


def len_of(tensor: Any) -> Any:
    """Return the number of samples of a tensor."""
    return tf.shape(tensor)[0]

"""What is run: functions built of a flat graph, made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import RLock
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_tensorflow._saved_model.graph import ADVICE, SavedGraph

Arrays = list[NDArray[Any]]


class Programs:
    """The functions of one model. May be called from many threads.

    All take arrays by tensor, with the batch first, and return such. Where the model has a batch of
    its own, they are run in pieces of that.
    """

    def __init__(self, graph: SavedGraph, ends: Sequence[str], inputs: Sequence[str]) -> None:
        self._graph, self._ends = graph, tuple(ends)
        self._kept: dict[Any, Any] = {}
        self._lock = RLock()
        shapes = [graph.tensor(name).shape for name in inputs]
        batches = [shape[0] for shape in shapes if shape.rank]
        self.batch: int | None = next((one for one in batches if one is not None), None)
        self._body = _body(graph, ends, {*graph.weights, *inputs})

    def tensors(
        self,
        names: Sequence[str],
        fed: Mapping[str, NDArray[Any]],
        replaced: Mapping[str, NDArray[Any]] | None = None,
    ) -> Arrays:
        """Return tensors; others may be replaced."""
        return self._run("tensors", names, {**fed, **(replaced or {})})

    def shapes(
        self, names: Sequence[str], fed: Mapping[str, NDArray[Any]]
    ) -> list[tuple[int, ...]]:
        """Return the shapes that tensors have, of a batch that the model takes at once."""
        return [tuple(one.tolist()) for one in self._run("shapes", names, fed)]

    def gradients(
        self, names: Sequence[str], fed: Mapping[str, NDArray[Any]], seeds: Sequence[NDArray[Any]]
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Return the ends, tensors, and the gradients of the ends with respect to these.

        `seeds` are cotangents, one an end; none for the largest logit of the only end.
        """
        found = self._run("gradients", [*self._ends, *names], fed, seeds)
        ends, layers = len(self._ends), len(self._ends) + len(names)
        return found[:ends], found[ends:layers], found[layers:]

    # ------------------------------------------------------------------------------- within

    def _run(
        self,
        what: str,
        names: Sequence[str],
        fed: Mapping[str, NDArray[Any]],
        seeds: Sequence[NDArray[Any]] = (),
    ) -> Arrays:
        arrays = [*fed.values(), *seeds]
        key = (what, *names, *fed, len(seeds))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._built(what, names, list(fed), arrays)
            program = self._kept[key]
        samples = len(arrays[0])
        if self.batch in {None, samples}:
            return _called(program, arrays)
        pieces = []
        for start in range(0, samples, self.batch):
            chosen = np.minimum(np.arange(start, start + self.batch), samples - 1)
            found = _called(program, [array[chosen] for array in arrays])
            pieces.append([one[: samples - start] for one in found])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _built(self, what: str, names: Sequence[str], fed: list[str], arrays: Arrays) -> Any:
        shapes = [self._graph.tensor(name).shape for name in fed]
        shapes += [[None] * array.ndim for array in arrays[len(fed) :]]
        specs = [tf.TensorSpec(s, a.dtype) for s, a in zip(shapes, arrays, strict=True)]

        def run(*given: Any) -> list[Any]:
            found = self._placed(names, dict(zip(fed, given, strict=False)))
            if what == "shapes":
                return [tf.shape(one) for one in found]
            if what == "gradients":
                ends = len(self._ends)
                found += _differentiated(
                    found[:ends], found[ends:], given[len(fed) :], names[ends:]
                )
            return found

        return tf.compat.v1.wrap_function(run, specs)

    def _placed(self, names: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
        """Build the graph inside the one that is being built, and return tensors of it."""
        own = {name: tf.cast(x, self._graph.tensor(name).dtype) for name, x in given.items()}
        read = {name if ":" in name else f"{name}:0" for n in self._body.node for name in n.input}
        weights = {name: tf.identity(x) for name, x in self._graph.weights.items() if name in read}
        known = {name: x for name, x in {**weights, **own}.items() if name in read}
        wanted = [name for name in names if name not in own]
        found = tf.graph_util.import_graph_def(
            self._body, input_map=known, return_elements=wanted, name="net"
        )
        own.update(zip(wanted, found, strict=True))
        return [own[name] for name in names]


def _body(graph: SavedGraph, ends: Sequence[str], fed: set[str]) -> Any:
    """Return the operations that make the ends, as a message, without those that are fed.

    What must only run before others, such as checks and tables of labels, is left out.
    """
    body, nodes, wanted = graph.facts.as_graph_def(), [], set(ends)
    whole = {node.name: node for node in body.node}
    for op in reversed(graph.facts.get_operations()):
        if wanted.intersection(t.name for t in op.outputs) and f"{op.name}:0" not in fed:
            wanted.update(t.name for t in op.inputs)
            node = whole[op.name]
            node.input[:] = [name for name in node.input if not name.startswith("^")]
            nodes.append(node)
    return type(body)(node=nodes[::-1], versions=body.versions, library=body.library)


def _called(program: Any, arrays: Arrays) -> Arrays:
    try:
        return [one.numpy() for one in program(*map(tf.constant, arrays))]
    except (tf.errors.OpError, ValueError) as error:
        raise InvalidInputError(f"TensorFlow cannot run the model on this: {error}") from error


def _differentiated(
    ends: list[Any], layers: list[Any], seeds: Sequence[Any], names: Sequence[str]
) -> list[Any]:
    if not seeds:
        rows = tf.reshape(ends[0], (tf.shape(ends[0])[0], -1))
        seeds = [tf.one_hot(tf.argmax(rows, axis=1), tf.shape(rows)[1])]
    ways = [(end, seed) for end, seed in zip(ends, seeds, strict=True) if end.dtype.is_floating]
    cotangents = [tf.cast(tf.reshape(seed, tf.shape(end)), end.dtype) for end, seed in ways]
    try:
        found = tf.gradients([end for end, _ in ways], layers, grad_ys=cotangents)
    except (LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise UnsupportedOpError(
            f"TensorFlow has no gradient at {', '.join(names)}: {error}; name a later layer, or "
            f"{ADVICE}"
        ) from error
    lost = [name for name, one in zip(names, found, strict=True) if one is None]
    if lost:
        raise LayerNotFoundError(
            f"the logits do not depend on {', '.join(lost)} in a way that has a gradient; name "
            "another layer"
        )
    return [tf.convert_to_tensor(one) for one in found]

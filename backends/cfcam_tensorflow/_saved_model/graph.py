"""A SavedModel as one flat graph: its signature, functions inlined, weights beside it.

The only place that reads SavedModels. What is built of the graph is built by `SavedGraph.place`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import tensorflow as tf

from cfcam_core.errors import InvalidInputError, UnsupportedOpError

SMALL = 1024
"""Elements of a constant that stays in the graph: shapes and axes are read there, weights are
not."""

PREFERRED = "serving_default"
"""Signature that is taken where there are several."""

CUSTOM = "_gradient_op_type"
"""Attribute that names the gradient of a function with one of its own (`tf.custom_gradient`)."""

ADVICE = "pass the .keras file or the Keras model itself"


@dataclass(frozen=True, slots=True, eq=False)
class SavedGraph:
    """What one signature computes.

    Tensors are named as TensorFlow names them: ``operation:0``.
    """

    facts: tf.Graph
    """The graph to be looked at: static shapes, attributes, operations in order."""
    body: Any
    """The same operations as a message, without those that are fed."""
    weights: Mapping[str, tf.Tensor]
    """Large constants by the tensor that they are."""
    inputs: Mapping[str, str]
    """Tensors that are fed, by the names that users know."""
    outputs: tuple[str, ...]
    structure: Any
    """What the signature returns, as `tf.nest` packs the outputs."""
    read: frozenset[str]
    """Tensors that some operation of the body reads."""

    def tensor(self, name: str) -> Any:
        """Return a tensor of `facts`."""
        return self.facts.get_tensor_by_name(name)

    def place(self, fetches: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
        """Build the graph inside the one that is being built, and return tensors of it.

        Parameters
        ----------
        fetches : sequence of str
            Tensors to return.
        given : mapping of str to tf.Tensor
            What stands for the inputs, and for any other tensor that is replaced.
        """
        weights = {name: tf.identity(value) for name, value in self.weights.items()}
        known = {name: value for name, value in {**weights, **given}.items() if name in self.read}
        made = [name for name in fetches if name not in given]
        found = tf.graph_util.import_graph_def(
            self.body, input_map=known, return_elements=made, name="net"
        )
        return [{**dict(zip(made, found, strict=True)), **given}[name] for name in fetches]

    def without_custom_gradients(self) -> SavedGraph:
        """Return the same graph, in which only operators have gradients, not functions."""
        body = type(self.body)()
        body.CopyFrom(self.body)
        for node in body.node:
            node.attr.pop(CUSTOM, None)
        return replace(self, body=body)

    def raw(self, tensors: Sequence[Any]) -> Any:
        """Return outputs as the signature does, or the tensor itself where there is one."""
        return (
            tensors[0] if len(tensors) == 1 else tf.nest.pack_sequence_as(self.structure, tensors)
        )


def read_saved_model(model: Any, output: Callable[[Any], Any] | None = None) -> SavedGraph:
    """Read a folder, a loaded SavedModel, or one of its functions.

    Parameters
    ----------
    model : str, path or object
        A folder that ``model.export`` or `tf.saved_model.save` wrote, what `tf.saved_model.load`
        returned, or a concrete function.
    output : callable, optional
        Takes what the signature returns, and returns what is to be explained.

    Raises
    ------
    InvalidInputError
        It cannot be read, or there is more than one signature and none is the usual one.
    UnsupportedOpError
        Its graph cannot be flattened: it reads tables, strings or other state.
    """
    loaded = _loaded(model)  # functions do not keep the variables that they read alive
    function = _signature(loaded)
    if output is not None:
        inner = function

        def changed(*args: Any, **kwargs: Any) -> Any:
            found = inner(*args, **kwargs)
            flat = tf.nest.flatten(found)
            return output(flat[0] if len(flat) == 1 else found)

        args, kwargs = inner.structured_input_signature
        outer = tf.function(changed, autograph=False)
        function = outer.get_concrete_function(*args, **kwargs)
    return _flattened(function)


def _loaded(model: Any) -> Any:
    if not isinstance(model, str | PathLike):
        return model
    folder = Path(model).parent if Path(model).name == "saved_model.pb" else Path(model)
    try:
        return tf.saved_model.load(fspath(folder))
    except (OSError, ValueError, KeyError, tf.errors.InvalidArgumentError) as error:
        raise InvalidInputError(
            f"{fspath(model)!r} cannot be read as a SavedModel: {error}"
        ) from error
    except tf.errors.OpError as error:
        raise UnsupportedOpError(
            f"TensorFlow cannot load {fspath(model)!r}: {error.message}. Import the package that "
            f"its operators come from first, or {ADVICE}"
        ) from error


def _signature(loaded: Any) -> Any:
    """Return the function that is explained.

    Raises
    ------
    InvalidInputError
        It is not clear which.
    """
    if hasattr(loaded, "structured_input_signature"):
        return loaded
    signatures = getattr(loaded, "signatures", None)
    if signatures is None:
        raise InvalidInputError(
            f"a {type(loaded).__name__} is no SavedModel: it has no signatures; pass a folder, "
            "what tf.saved_model.load returns, or a concrete function"
        )
    if PREFERRED in signatures:
        return signatures[PREFERRED]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    there = ", ".join(signatures) or "none"
    raise InvalidInputError(
        f"the SavedModel has no signature {PREFERRED!r}; there are: {there}. Pass one of the "
        "loaded object's signatures, such as tf.saved_model.load(folder).signatures[name], or "
        "a concrete function of it: loaded.__call__.get_concrete_function(tf.TensorSpec(...))"
    )


def _flattened(function: Any) -> SavedGraph:
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    try:
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    except AssertionError as error:
        raise InvalidInputError(
            "the function's variables are gone; keep the object that it was loaded with"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise UnsupportedOpError(
            f"the SavedModel's graph cannot be flattened: {error}; {ADVICE}"
        ) from error
    inputs = _named_inputs(function, frozen)
    strange = sorted({t.dtype.name for t in frozen.inputs} & {"resource", "string", "variant"})
    if strange or len(inputs) != len(frozen.inputs):
        raise UnsupportedOpError(
            f"the SavedModel reads {', '.join(strange) or 'state'} besides arrays of numbers, such "
            f"as tables; {ADVICE}"
        )
    message, weights = _without_weights(frozen.graph.as_graph_def())
    _forget_lost_gradients(message)
    facts = tf.Graph()
    with facts.as_default():
        tf.graph_util.import_graph_def(message, name="")
    body = type(message)()
    body.CopyFrom(message)
    fed = {name.split(":")[0] for name in [*weights, *inputs.values()]}
    del body.node[:]
    body.node.extend(node for node in message.node if node.name not in fed)
    read = (name for node in body.node for name in node.input)
    return SavedGraph(
        facts=facts,
        body=body,
        weights=weights,
        inputs=inputs,
        outputs=tuple(t.name for t in frozen.outputs),
        structure=function.structured_outputs,
        read=frozenset(name if ":" in name else f"{name}:0" for name in read),
    )


def _named_inputs(function: Any, frozen: Any) -> dict[str, str]:
    """Return the tensors to feed by name: the signature's keyword, else the specification's."""
    args, kwargs = function.structured_input_signature
    keywords = [name for name in sorted(kwargs) for _ in tf.nest.flatten(kwargs[name])]
    given = [tensor.name.split(":")[0] for tensor in frozen.inputs]
    positional = given[: len(tf.nest.flatten(args))]
    names = [*positional, *keywords]
    names = names if len(set(names)) == len(given) else given
    return {name: t.name for name, t in zip(names, frozen.inputs, strict=True)}


def _forget_lost_gradients(message: Any) -> None:
    """Leave custom gradients out that were not saved; the operators' own take their place."""
    from tensorflow.python.framework.ops import gradient_registry

    for node in message.node:
        if CUSTOM in node.attr:
            try:
                gradient_registry.lookup(node.attr[CUSTOM].s.decode())
            except LookupError:
                del node.attr[CUSTOM]


def _without_weights(message: Any) -> tuple[Any, dict[str, tf.Tensor]]:
    """Return a graph with places for its large constants, and these."""
    weights = {}
    for node in message.node:
        if node.op != "Const":
            continue
        value = node.attr["value"].tensor
        shape = [axis.size for axis in value.tensor_shape.dim]
        if tf.TensorShape(shape).num_elements() > SMALL:
            weights[f"{node.name}:0"] = tf.constant(tf.make_ndarray(value))
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(value.tensor_shape)
            del node.attr["value"]
    return message, weights

"""A SavedModel as one flat graph: its signature, functions inlined, weights beside it.

The only place that reads SavedModels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import tensorflow as tf

from cfcam_core.errors import InvalidInputError, UnsupportedOpError

SMALL = 1024
"""Elements of a constant of integers that stays in the graph: shapes and axes are read there.

Arrays of floats never stay: of kernels that are constants TensorFlow makes others, and ends the
process where a size of what they are multiplied with is open.
"""

PREFERRED = "serving_default"
"""Signature that is taken where there are several."""

CUSTOM = "_gradient_op_type"
"""Attribute that names the gradient of a function with one of its own (`tf.custom_gradient`)."""

ADVICE = "pass the .keras file or the Keras model itself"


@dataclass(frozen=True, slots=True, eq=False)
class SavedGraph:
    """What one signature computes. Tensors are named as TensorFlow names them, ``operation:0``."""

    facts: tf.Graph
    """Operations in order, static shapes, attributes; weights are placeholders."""
    weights: Mapping[str, tf.Tensor]
    """These, by tensor."""
    inputs: Mapping[str, str]
    """Tensors that are fed, by the names that users know."""
    outputs: tuple[str, ...]
    structure: Any
    """What the signature returns, as `tf.nest` packs the outputs."""

    def tensor(self, name: str) -> Any:
        """Return a tensor of `facts`."""
        return self.facts.get_tensor_by_name(name)

    def raw(self, tensors: list[Any]) -> Any:
        """Return outputs as the signature does, or the tensor itself where there is one."""
        return (
            tensors[0] if len(tensors) == 1 else tf.nest.pack_sequence_as(self.structure, tensors)
        )

    @property
    def output_names(self) -> dict[str, str]:
        """The outputs by the signature's names."""
        keys = sorted(self.structure) if isinstance(self.structure, Mapping) else []
        if len(keys) != len(self.outputs):
            keys = [f"output_{i}" for i in range(len(self.outputs))]
        return dict(zip(keys, self.outputs, strict=True))


def read_saved_model(model: Any, output: Callable[[Any], Any] | None = None) -> SavedGraph:
    """Read a folder, a loaded SavedModel, or one of its functions; `output` comes behind it."""
    loaded = _loaded(model)  # functions do not keep the variables that they read alive
    function = _signature(loaded)
    if output is not None:
        inner = function

        def changed(*args: Any, **kwargs: Any) -> Any:
            found = inner(*args, **kwargs)
            flat = tf.nest.flatten(found)
            return output(flat[0] if len(flat) == 1 else found)

        args, kwargs = inner.structured_input_signature
        function = tf.function(changed, autograph=False).get_concrete_function(*args, **kwargs)
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
    """Return the function that is explained."""
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
    raise InvalidInputError(
        f"the SavedModel has no signature {PREFERRED!r}; there are: "
        f"{', '.join(signatures) or 'none'}. Pass one of the loaded object's signatures, such as "
        "tf.saved_model.load(folder).signatures[name], or a concrete function of it: "
        "loaded.__call__.get_concrete_function(tf.TensorSpec(...))"
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
    message = frozen.graph.as_graph_def()
    weights = _taken_out(message)
    _forget_lost_gradients(message)
    facts = tf.Graph()
    with facts.as_default():
        tf.graph_util.import_graph_def(message, name="")
    return SavedGraph(
        facts=facts,
        weights=weights,
        inputs=_named_inputs(function, [tensor.name for tensor in frozen.inputs]),
        outputs=tuple(tensor.name for tensor in frozen.outputs),
        structure=function.structured_outputs,
    )


def _named_inputs(function: Any, tensors: list[str]) -> dict[str, str]:
    """Return the tensors to feed by name: the signature's keyword, else the specification's.

    Behind them are tables and the like, which the function holds itself.
    """
    args, kwargs = function.structured_input_signature
    keywords = [name for name in sorted(kwargs) for _ in tf.nest.flatten(kwargs[name])]
    positional = len(tf.nest.flatten(args))
    given = [name.split(":")[0] for name in tensors[: positional + len(keywords)]]
    names = [*given[:positional], *keywords]
    return dict(zip(names if len(set(names)) == len(given) else given, tensors, strict=False))


def _forget_lost_gradients(message: Any) -> None:
    """Leave out custom gradients that cannot be had; the operators' own take their place.

    They were not saved, or read tensors of a function that has been inlined.
    """
    from tensorflow.python.framework.ops import gradient_registry

    lost = set()

    def called() -> None:
        tf.graph_util.import_graph_def(message, name="")
        graph = tf.compat.v1.get_default_graph()
        for op in graph.get_operations():
            if CUSTOM not in op.node_def.attr:
                continue
            kind, before = op.get_attr(CUSTOM), len(graph.external_captures)
            try:
                gradient_registry.lookup(kind.decode())(op, *map(tf.zeros_like, op.outputs))
            except Exception:  # noqa: BLE001 - somebody's own function
                lost.add(kind)
            if any(not hasattr(one, "numpy") for one in graph.external_captures[before:]):
                lost.add(kind)

    if any(CUSTOM in node.attr for node in message.node):
        tf.compat.v1.wrap_function(called, [])
    for node in message.node:
        if CUSTOM in node.attr and node.attr[CUSTOM].s in lost:
            del node.attr[CUSTOM]


def _taken_out(message: Any) -> dict[str, tf.Tensor]:
    """Put placeholders where a graph has weights, and return these."""
    weights = {}
    for node in message.node:
        value = node.attr["value"].tensor if node.op == "Const" else None
        if value is None:
            continue
        count = math.prod(axis.size for axis in value.tensor_shape.dim)
        if count > (1 if tf.as_dtype(value.dtype).is_floating else SMALL):
            weights[f"{node.name}:0"] = tf.constant(tf.make_ndarray(value))
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(value.tensor_shape)
            del node.attr["value"]
    return weights

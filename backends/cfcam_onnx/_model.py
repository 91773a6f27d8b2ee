"""From what a user passes to a model to work on: read, checked, in a modern operator set.

The user's file and ModelProto are only read. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import shape_inference

from cfcam_core.errors import CfcamError, InvalidInputError, UnsupportedOpError
from cfcam_onnx._graph import STANDARD, operator, opset_of
from cfcam_onnx._rules import RULES, ZERO_GRADIENT

LEAST_OPSET = 16
"""First operator set in which ScatterElements adds, as the gradient of a MaxPool must."""

TARGET_OPSET = 17
"""Operator set that older models are converted to."""

RUNTIME_DOMAINS = frozenset({*STANDARD, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Operator domains that onnxruntime brings along."""


def read_model(model: Any) -> onnx.ModelProto:
    """Return a copy of the model that may be changed.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto

    Raises
    ------
    InvalidInputError
        The file is missing or empty, is no ONNX model, or keeps its weights outside its own folder.
    """
    if isinstance(model, str | PathLike):
        path = Path(fspath(model))
        where = f"{str(path)!r}"
        if not path.is_file():
            raise InvalidInputError(f"there is no model file {where}; check the path")
        proto = _parse(path, where)
    elif isinstance(model, bytes):
        where = f"the {len(model)} bytes"
        proto = _parse(model, where)
    elif isinstance(model, onnx.ModelProto):
        where = "the ModelProto"
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    else:
        raise InvalidInputError(
            f"a {type(model).__name__} is not an ONNX model; pass a path, bytes or an "
            "onnx.ModelProto"
        )
    if not proto.graph.node or not proto.graph.output:
        raise InvalidInputError(
            f"{where} holds no ONNX graph with nodes and outputs; export the model again, or "
            "copy it again in full"
        )
    external = onnx.TensorProto.EXTERNAL
    if any(tensor.data_location == external for tensor in proto.graph.initializer):
        raise InvalidInputError(
            f"{where} refers to weights in another file; pass the path of the .onnx file, with "
            "the weights beside it"
        )
    return proto


def _parse(source: Path | bytes, where: str) -> onnx.ModelProto:
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(source)
    except onnx.checker.ValidationError as error:
        raise InvalidInputError(
            f"the weights of {where} cannot be read: {error}. They must lie in the model's "
            "folder or below it"
        ) from error
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{where} cannot be read as an ONNX model: {error}. Check that the file is complete"
        ) from error


@contextmanager
def blaming(model: onnx.ModelProto) -> Iterator[None]:
    """Turn an unforeseen error into `InvalidInputError` if ONNX's own checker faults the model."""
    try:
        yield
    except CfcamError:
        raise
    except Exception as error:
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as fault:
            raise InvalidInputError(
                f"the model is not valid ONNX: {fault}. Export it again"
            ) from error
        raise


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with functions inlined, in an operator set that gradients can be written in.

    Sizes noted in the file are dropped and inferred anew: they are stale where somebody has
    edited the batch axis.

    Raises
    ------
    InvalidInputError
        The operator set is too old and cannot be converted.
    UnsupportedOpError
        Operators that onnxruntime does not have.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse_unknown(model)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    opset = opset_of(model)
    if opset < LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, TARGET_OPSET)
        except RuntimeError as error:
            if opset < 13:
                raise InvalidInputError(
                    f"the model uses operator set {opset}, which cannot be converted to "
                    f"{TARGET_OPSET}: {error}. "
                    "Export it with a newer operator set"
                ) from error
    model = _without_compositions(model)
    model.ir_version = max(model.ir_version, 8)
    return shape_inference.infer_shapes(model, data_prop=True)


def _without_compositions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators that ONNX itself defines by others, unless they have a rule."""
    opset = opset_of(model)
    for _ in range(4):  # a definition may use another composition
        found = {node.op_type for node in model.graph.node if node.domain in STANDARD}
        unknown = found - RULES.keys() - ZERO_GRADIENT
        composed = [("", name) for name in sorted(unknown) if _is_composed(name, opset)]
        if not composed:
            break
        model = onnx.inliner.inline_selected_functions(
            model, composed, inline_schema_functions=True
        )
    return model


def _is_composed(name: str, opset: int) -> bool:
    if not onnx.defs.has(name):
        return False
    schema = onnx.defs.get_schema(name, max_inclusive_version=opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _refuse_unknown(model: onnx.ModelProto) -> None:
    unknown = [node for node in model.graph.node if node.domain not in RUNTIME_DOMAINS]
    if unknown:
        names = _counted(map(operator, unknown))
        raise UnsupportedOpError(
            f"onnxruntime has no operators {names}, the first at "
            f"{unknown[0].name or unknown[0].output[0]!r}; "
            "export the model with standard operators"
        )


def _counted(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"{name} ({listed.count(name)}x)" for name in sorted(set(listed)))

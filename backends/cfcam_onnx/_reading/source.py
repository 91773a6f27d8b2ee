"""Reading what a user passes, which may be damaged or hostile: what leaves is sound, or refused.

Nothing is run here, and nothing of the user's is written to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference
import onnx.version_converter
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from cfcam_core.errors import CfcamError, InvalidInputError
from cfcam_onnx._limits import Limits
from cfcam_onnx._reading.external import Beside, is_elsewhere
from cfcam_onnx._reading.sparse import write_out
from cfcam_onnx._reading.structure import check_size, parts, put_in_order
from cfcam_onnx._reading.weights import Weights, bring_in, take_out

LARGEST_MESSAGE = (1 << 31) - 1
"""Bytes that a protobuf message may have; weights beside it have no such bound."""

FAULTS: tuple[type[Exception], ...] = (
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
)
"""What onnx raises of a model that is wrong; its errors have no common root."""

INVALID: tuple[type[Exception], ...] = (*FAULTS, CfcamError, ValueError)
"""What says that the checker, or we, find a model invalid."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a user passed, read."""

    model: onnx.ModelProto
    """May be changed; its nodes are in order, and its large weights are inputs."""
    weights: Weights
    """What those inputs are."""
    path: Path | None = None
    """Its file, if it came in one."""


def read_model(model: Any, limits: Limits | None = None) -> Source:
    """Return the model, and its large weights apart.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto
        What has been read already comes back as it is.
    limits : Limits, optional

    Raises
    ------
    InvalidInputError
        The file is missing or empty, is no ONNX model, keeps its weights outside its own folder,
        reads tensors that nothing makes, runs in a circle, or grows without bounds.
    """
    if isinstance(model, Source):
        return model
    limits = limits or Limits()
    folders: tuple[Path, ...] = ()
    path = None
    if isinstance(model, str | PathLike):
        path = Path(fspath(model))
        where = f"{str(path)!r}"
        if not path.is_file():
            raise InvalidInputError(f"there is no model file {where}; check the path")
        proto = _parse(path, where)
        folders = (path.parent.resolve(), path.resolve().parent)  # of a link: where it leads, too
    elif isinstance(model, bytes):
        where = f"the {len(model)} bytes"
        proto = _parse(model, where)
    elif isinstance(model, onnx.ModelProto):
        where = "the ModelProto"
        deque(parts(model, limits, where), maxlen=0)  # what is too deep cannot be copied
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
    odd = [part for part in parts(proto, limits, where) if _is_odd(part)]
    check_size(proto, limits, where)
    put_in_order(proto.graph, where)
    sparse = sum(isinstance(part, onnx.SparseTensorProto) for part in odd)
    if sparse:
        write_out(proto, sparse, limits, where)
    beside = Beside(where, folders)
    weights = take_out(proto, beside, limits)
    if len(odd) > sparse:
        bring_in(filter(is_elsewhere, parts(proto, limits, where)), beside)
    slim = onnx.ModelProto()
    slim.CopyFrom(proto)  # what was taken out is freed with the message that it was read into
    return Source(slim, weights, path)


@contextmanager
def blaming(source: onnx.ModelProto) -> Iterator[None]:
    """Turn an unforeseen error into `InvalidInputError` if ONNX's own checker faults the model.

    The checker is shown what was read, not what has been made of it meanwhile.
    """
    read = onnx.ModelProto()
    read.CopyFrom(source)
    try:
        yield
    except CfcamError:
        raise
    except MemoryError as error:
        raise InvalidInputError(
            "the model needs more memory than there is; check the sizes it declares"
        ) from error
    except FAULTS as error:
        raise InvalidInputError(
            f"onnx cannot work with the model: {error}. Export it again"
        ) from error
    except Exception as error:
        try:
            shaped = onnx.shape_inference.infer_shapes(read)  # outputs may lack shapes
            onnx.checker.check_model(shaped, full_check=True)
        except INVALID as fault:
            raise InvalidInputError(
                f"the model is not valid ONNX: {fault}. Export it again"
            ) from error
        raise


def _parse(source: Path | bytes, where: str) -> onnx.ModelProto:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > LARGEST_MESSAGE:
        raise InvalidInputError(
            f"{where} has {size:,} bytes; an ONNX model has at most {LARGEST_MESSAGE:,}. Export it "
            "with its weights in another file"
        )
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        # whatever the file is called
        return onnx.load(source, format="protobuf", load_external_data=False)
    except (DecodeError, MemoryError, OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{where} cannot be read as an ONNX model: {error}. Check that the file is complete"
        ) from error


def _is_odd(part: Message) -> bool:
    return is_elsewhere(part) or isinstance(part, onnx.SparseTensorProto)

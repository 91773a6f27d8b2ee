"""Writing an explain-ready file: an .onnx that says what it looked at, wherever it is run."""

from __future__ import annotations

import warnings
from hashlib import file_digest, sha256
from os import PathLike, fspath
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from cfcam_core.backend import Layer
from cfcam_core.errors import InvalidInputError
from cfcam_core.tokens import Fold
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._layers.sites import Site
from cfcam_onnx._ready.format import ACTIVATIONS, KEY, Facts
from cfcam_onnx._ready.program import export_program
from cfcam_onnx._ready.saving import save

SUFFIX = ".onnx"
"""What the file must end in, for that is how models are told apart."""


def write_export(
    opened: Classifier, layer: Site, path: str | PathLike[str], *, with_map: bool
) -> Layer:
    """Write the explain-ready file of a model; see `OnnxBackend.export`."""
    place = _checked(path, opened)
    source, fold = opened.layers.input_of(layer), _fold(opened, layer)
    if with_map and layer.prefix is not None and fold is None:
        raise InvalidInputError(
            f"the map of layer {layer.name!r} cannot be made inside the file: how its tokens lie "
            "on a grid depends on the input's size, which the model leaves open. Export without "
            "the map, or a model of fixed size"
        )
    model, names = export_program(
        opened.graph, opened.logits, layer, source=source, fold=fold, with_map=with_map
    )
    in_a_row = layer.prefix is not None and fold is None
    laid_out = in_a_row and opened.is_tiled(layer)  # by who reads the file
    over = None if in_a_row and not laid_out else source
    facts = Facts(
        layer=layer.name,
        kind=layer.kind,
        source_sha256=_digest(opened),
        module=layer.module,
        logits_behind=opened.logits_behind,
        input=names.get(over.name, over.name) if over else "",
        input_axes=over.spatial if over else (),
        prefix=layer.prefix if laid_out else None,
    )
    model.metadata_props.extend(
        entry for entry in opened.source.metadata_props if not entry.key.startswith(KEY)
    )
    facts.write(model)
    onnx.checker.check_model(_bare(model), full_check=True)
    weights = {names.get(name, name): array for name, array in opened.graph.weights.items()}
    save(model, weights, place)
    if in_a_row:
        reading = "cfcam lays them out when it reads the file; for other runtimes " * laid_out
        warnings.warn(
            f"in the file, the tokens of layer {layer.name!r} stay in a row: how many rows and "
            "columns they make depends on the input's size, which the model leaves open. "
            f"{reading or 'To have a map, '}export a model of fixed size",
            stacklevel=3,
        )
    return _exported(model, facts)


def _checked(path: str | PathLike[str], opened: Classifier) -> Path:
    """Return where to write, unless that cannot be."""
    place = Path(fspath(path))
    if place.suffix.lower() != SUFFIX:
        raise InvalidInputError(
            f"cannot export to {str(place)!r}: the name must end in {SUFFIX}; "
            f"call it {place.name + SUFFIX!r}"
        )
    if opened.path is not None and place.exists() and place.samefile(opened.path):
        raise InvalidInputError(
            f"cannot export to {str(place)!r}: it is the model itself; choose another name"
        )
    if Facts.read(opened.source) is not None:
        raise InvalidInputError("the model is explain-ready already; export the original")
    return place


def _fold(opened: Classifier, layer: Site) -> Fold | None:
    """Return how tokens lie on a grid, if that is the same whatever is fed."""
    source, shape = opened.layers.input_of(layer), opened.shape(layer.name)
    if layer.prefix is None or source is None:
        return None
    tokens, *size = shape[3 - layer.channels], *(source.shape[axis] for axis in source.spatial)
    fixed = tuple(n for n in size if n is not None)
    if tokens is None or len(fixed) < len(size):
        return None
    return opened.fold(layer, tokens, fixed)


def _digest(opened: Classifier) -> str:
    """Return the SHA-256 of the model's file; of a model without a file, that of its contents."""
    if opened.path is not None:
        with opened.path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    digest = sha256(opened.source.SerializeToString(deterministic=True))
    for _, array in sorted(opened.graph.weights.items()):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the weights that live outside it as inputs."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            bare.graph.input.append(info)
        else:
            bare.graph.initializer.append(tensor)
    return bare


def _exported(model: onnx.ModelProto, facts: Facts) -> Layer:
    (info,) = (info for info in model.graph.output if info.name == ACTIVATIONS)
    sizes = (
        d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim
    )
    return Layer(facts.layer, tuple(sizes), facts.kind, is_default=True, module=facts.module)

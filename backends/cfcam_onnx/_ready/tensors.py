"""What the tensors of a ready model are called, and whether they can be what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import Sizes, shown
from cfcam_onnx._graph import Graph
from cfcam_onnx._ready.format import ACTIVATIONS, CLASS_INDEX, GRADIENTS, LOGITS


@dataclass(frozen=True, slots=True)
class Tensors:
    """What the tensors of a ready model are called."""

    activations: str
    """Output (N, C, *s)."""
    gradients: str
    """Output of the same shape: the gradient of a class score with respect to it."""
    scores: str | None = None
    """Output (N, K): the logits."""
    class_index: str | None = None
    """Input (N,), integers: the class that the gradients are of."""
    channels_last: bool = False
    """Whether activations and gradients are (N, *s, C)."""


OURS = Tensors(ACTIVATIONS, GRADIENTS, LOGITS, CLASS_INDEX)
"""What they are called in a file that we have written."""


def check(graph: Graph, tensors: Tensors) -> None:
    """Refuse names that are not there, and tensors that cannot be what they are said to be.

    Raises
    ------
    InvalidInputError
        With what is there instead.
    """
    outputs = [info.name for info in graph.model.graph.output]
    inputs = [info.name for info in graph.inputs]
    for option, name, there in (
        ("activations", tensors.activations, outputs),
        ("gradients", tensors.gradients, outputs),
        ("scores", tensors.scores, outputs),
        ("class_index", tensors.class_index, inputs),
    ):
        if name is None:
            continue
        kind = "output" if there is outputs else "input"
        if name not in there:
            listed = ", ".join(get_close_matches(str(name), there, n=5, cutoff=0.4) or there)
            raise InvalidInputError(
                f"{option}={name!r} is no {kind} of the model; the {kind}s are {listed}"
            )
        is_float = graph.is_float(name)
        if is_float == (option == "class_index"):
            raise InvalidInputError(
                f"{option}={name!r} holds {graph.dtype(name)}; wanted "
                + ("integers, a class for each sample" if is_float else "floats")
            )
    if tensors.activations == tensors.gradients:
        raise InvalidInputError(
            f"activations and gradients are both {tensors.activations!r}; name two outputs"
        )
    if tensors.class_index is not None:
        _check_index(graph, tensors)
    A, G = (graph.sizes(name) for name in (tensors.activations, tensors.gradients))
    for name, shape in ((tensors.activations, A), (tensors.gradients, G)):
        if shape is not None and not 3 <= len(shape) <= 5:
            raise InvalidInputError(
                f"{name!r} has shape {shown(shape)}; wanted samples, channels and one to three "
                "spatial axes"
            )
    if A and G and not _agree(A, G):
        raise InvalidInputError(
            f"activations {tensors.activations!r} have shape {shown(A)} and gradients "
            f"{tensors.gradients!r} {shown(G)}; both must be of the same layer"
        )


def _check_index(graph: Graph, tensors: Tensors) -> None:
    shape = graph.sizes(str(tensors.class_index))
    if shape is None or len(shape) != 1:
        raise InvalidInputError(
            f"class_index={tensors.class_index!r} has shape {shown(shape or ())}; wanted (N,), a "
            "class for each sample"
        )
    if tensors.scores is None:
        raise InvalidInputError(
            f"class_index={tensors.class_index!r} needs scores=, the output that says which "
            "classes there are and which is the best"
        )


def _agree(a: Sizes, b: Sizes) -> bool:
    return len(a) == len(b) and all(
        x == y or None in (x, y) for x, y in zip(a[1:], b[1:], strict=True)
    )

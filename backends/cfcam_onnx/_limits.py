"""How much a model may ask for: it may come from anywhere, and whoever opens it may not be near.

Numbers only; they are held where reading, trial runs and runs happen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from cfcam_core.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may ask for before it is refused with `InvalidInputError`.

    Raise one for a model that is trusted and large: ``Limits(memory=64 << 30)``.

    Raises
    ------
    InvalidInputError
        A limit is no number above zero.

    Notes
    -----
    Time is looked at between two operators, so a single one that takes long, such as a product of
    giant matrices, is waited for. Memory is that of onnxruntime on the CPU; a GPU has the option
    ``gpu_mem_limit`` of its provider. A flaw in onnxruntime or onnx itself may still end the
    process: a service that takes models from strangers should open them in a process of its own.
    """

    nodes: int = 50_000
    """Nodes of a model, its functions written out and its subgraphs included. The largest exports
    have some ten thousand; two functions that call each other can make more than memory holds."""

    depth: int = 32
    """How deep graphs may lie within graphs, and functions within functions. Exports have
    a few."""

    memory: int = 8 << 30
    """Bytes that one run may take besides the weights. Sizes that are known are added up when the
    model is opened, for a batch of one where it is open. Watched is the trial run, and later runs
    where numbers that the model computes decide how large something gets; what grows with the
    inputs alone is not, however fast it grows."""

    weights: int = 64 << 30
    """Bytes of all weights. Those in another file are mapped there, and read once where a cache on
    disk is used; such a file may have holes."""

    sparse: int = 256 << 20
    """Bytes that all weights stored sparsely may take once they are written out."""

    trial_seconds: float = 30.0
    """Time that one trial run may take; there are mostly three when a model is opened, and more
    where it refuses some sizes."""

    trial_elements: int = 1 << 26
    """Elements of one input of a trial run, its batch included: 445 RGB images of 224 x 224."""

    trial_sample: int = 1 << 22
    """Elements of one sample of a trial run: an RGB image of 1182 x 1182. Larger models are opened
    without one, and sizes tried later are left out."""

    loop_seconds: float = 60.0
    """Time that a later run may take if the model has a Loop or a Scan; nothing else can be without
    end."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or math.isnan(value) or value <= 0:
                raise InvalidInputError(
                    f"the limit {field.name}={value!r} is not allowed; give a number above zero"
                )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one run may take; None where nothing has to be watched."""

    memory: int | None = None
    """Bytes besides inputs and weights."""
    seconds: float | None = None

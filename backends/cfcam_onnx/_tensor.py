"""Tensors and nodes as a gradient rule sees them: a `Tensor` is a name with arithmetic.

``g * (1 - y * y)`` adds three nodes to the graph under construction. Facts come from the model's
graph, nodes go to the emitter; neither is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cfcam_onnx._graph import Shape

if TYPE_CHECKING:
    from cfcam_onnx._emit import Emitter


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the graph under construction; arithmetic on it emits nodes."""

    emit: Emitter
    name: str
    dtype: np.dtype[Any]
    own: str | None = None
    """The model's tensor that this is; None for what has been emitted."""

    @property
    def shape(self) -> Shape | None:
        """Shape, where it is known: for the model's own tensors, not for emitted ones."""
        return None if self.own is None else self.emit.graph.shape(self.own)

    @property
    def rank(self) -> int:
        """Number of axes.

        Raises
        ------
        NotImplementedError
            It is not known.
        """
        if self.shape is None:
            raise NotImplementedError(f"the rank of {self.name!r} is not known")
        return len(self.shape)

    @property
    def value(self) -> NDArray[Any] | None:
        """Value, if it is a constant of the model."""
        value = None if self.own is None else self.emit.graph.value(self.own)
        return None if value is None else value.astype(self.dtype, copy=False)

    def fixed(self, *axes: int) -> list[int] | None:
        """Return the sizes along `axes` (default: all), or None unless every one is fixed."""
        if self.shape is None:
            return None
        sizes = [self.shape[a] for a in axes] if axes else list(self.shape)
        fixed = [s for s in sizes if isinstance(s, int)]
        return fixed if len(fixed) == len(sizes) else None

    @property
    def grid(self) -> list[int] | None:
        """Sizes behind the batch and channel axes, or None unless all are fixed."""
        return None if self.shape is None else self.fixed(*range(2, self.rank))

    def __add__(self, other: Operand) -> Tensor:
        return self._binary("Add", other)

    def __sub__(self, other: Operand) -> Tensor:
        return self._binary("Sub", other)

    def __rsub__(self, other: float) -> Tensor:
        return self.emit.op("Sub", self.emit.scalar(other, self.dtype), self)

    def __mul__(self, other: Operand) -> Tensor:
        return self._binary("Mul", other)

    def __truediv__(self, other: Operand) -> Tensor:
        return self._binary("Div", other)

    def __pow__(self, other: Operand) -> Tensor:
        return self._binary("Pow", other)

    def __gt__(self, other: Operand) -> Tensor:
        return self._binary("Greater", other, np.bool_)

    def __lt__(self, other: Operand) -> Tensor:
        return self._binary("Less", other, np.bool_)

    def __and__(self, other: Tensor) -> Tensor:
        return self._binary("And", other, np.bool_)

    def __neg__(self) -> Tensor:
        return self.emit.op("Neg", self)

    __radd__, __rmul__ = __add__, __mul__

    def _binary(self, op_type: str, other: Operand, dtype: Any = None) -> Tensor:
        operand = other if isinstance(other, Tensor) else self.emit.scalar(other, self.dtype)
        return self.emit.op(op_type, self, operand, dtype=dtype)


Operand = Tensor | float


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node of the model as a gradient rule sees it."""

    proto: onnx.NodeProto
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    attributes: dict[str, Any]

    @property
    def op_type(self) -> str:
        """Operator, in ONNX's spelling."""
        return str(self.proto.op_type)

    @property
    def x(self) -> Tensor:
        """First input."""
        return self.required(0)

    @property
    def y(self) -> Tensor:
        """First output."""
        tensor = self.outputs[0]
        if tensor is None:
            raise NotImplementedError("its first output is left out")
        return tensor

    def required(self, index: int) -> Tensor:
        """Return an input that the operator cannot do without."""
        tensor = self.optional(index)
        if tensor is None:
            raise NotImplementedError(f"its input {index} is left out")
        return tensor

    @property
    def given(self) -> list[Tensor]:
        """Inputs that are not left out."""
        return [tensor for tensor in self.inputs if tensor is not None]

    def optional(self, index: int) -> Tensor | None:
        """Return an input, or None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

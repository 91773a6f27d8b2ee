"""The table of gradient rules, and the operators whose gradient is zero by nature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cfcam_onnx._tensor import Tensor

Function = Callable[..., Sequence[Tensor | None]]
"""``(emitter, node, cotangent) -> [cotangent or None, one for each input]``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator passes a cotangent back."""

    function: Function
    """Called with the emitter, the node, and the cotangent of its first output.

    It may be generous and return a cotangent for every input: what nobody needs is removed. None
    means that there is no gradient with respect to this input, which is an error where one is
    needed. ``NotImplementedError(reason)`` refuses the node.
    """
    broadcasts: int | None = None
    """For operators that broadcast: the number of last axes that they do not. The sweep then adds
    the cotangent up over the broadcast axes; the rule returns it unsummed."""
    every_output: bool = False
    """Whether the rule takes the cotangents of all outputs, None for those nobody reads."""


RULES: dict[str, Rule] = {}
"""Operator of the standard domain to its rule."""


def rule(
    *operators: str, broadcasts: int | None = None, every_output: bool = False
) -> Callable[[Function], Function]:
    """Register a gradient rule; see `Rule`.

    Raises
    ------
    ValueError
        An operator has a rule already.
    """

    def register(function: Function) -> Function:
        for operator in operators:
            if operator in RULES or operator in ZERO_GRADIENT:
                raise ValueError(f"{operator} has a gradient rule already")
            RULES[operator] = Rule(function, broadcasts, every_output)
        return function

    return register


ZERO_GRADIENT = frozenset(
    {
        # what they return is made of integers or truth values
        *("And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"),
        *("Less", "LessOrEqual", "NonZero", "Not", "Or", "Shape", "Size", "Xor"),
        # constant almost everywhere
        *("Ceil", "Floor", "Hardmax", "Round", "Sign"),
        # only the shape of their input counts
        *("ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"),
    }
)
"""Operators that no gradient flows through: listed, so that they are not taken for forgotten."""

INTEGER_ARITHMETIC = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)
"""Operators of quantized models that compute with integers: they have no gradient rule."""

"""Gradient rules, one short function an operator, in ONNX's own spelling.

To add one: write it in the module it belongs to, under ``@rule("Operator")``, and give it a case in
``tests/helpers/rule_cases.py``; a test fails for a rule without a case.
"""

from cfcam_onnx._rules import (
    conv,
    elementwise,
    linalg,
    norm,
    pool,
    quantize,
    reduce,
    resize,
    selection,
    shape,
    units,
)
from cfcam_onnx._rules._registry import INTEGER_ARITHMETIC as INTEGER_ARITHMETIC
from cfcam_onnx._rules._registry import RULES as RULES
from cfcam_onnx._rules._registry import ZERO_GRADIENT as ZERO_GRADIENT
from cfcam_onnx._rules._registry import Rule as Rule
from cfcam_onnx._rules._registry import rule as rule

__all__ = ["INTEGER_ARITHMETIC", "RULES", "ZERO_GRADIENT", "Rule", "rule"]

MODULES = (
    *(conv, elementwise, linalg, norm, pool, quantize),
    *(reduce, resize, selection, shape, units),
)
"""Where the rules stand; importing them fills `RULES`."""

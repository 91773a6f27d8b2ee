"""Every gradient rule by itself: <J v, u> = <v, J' u>, J v being what onnxruntime itself computes.

For operators that are affine in the input, J v is f(x + v) - f(x), with no step to choose; for
the others it is a central difference, taken where no kink is near. A case runs with all sizes
fixed, with an open batch, and with all sizes but the channels open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from cfcam_onnx._graph import Graph
from cfcam_onnx._model import prepare
from cfcam_onnx._programs import COTANGENT, EXPLAIN_TOP, GRADIENT, gradient_program
from cfcam_onnx._rules import RULES, ZERO_GRADIENT, rule
from cfcam_onnx._session import Session
from onnx import TensorProto, helper, numpy_helper

from cfcam_core import InvalidInputError, UnsupportedOpError

RNG = np.random.default_rng(7)
ALL = ("fixed", "batch", "open")


@dataclass(eq=False)
class Case:
    op: str
    shape: tuple[int, ...]
    others: tuple[Any, ...] = ()
    at: int = 0
    outputs: int = 1
    opset: int = 17
    kind: str = "affine"
    sizes: tuple[str, ...] = ALL
    positive: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        shapes = "x".join(map(str, self.shape))
        return f"{self.op}-{shapes}@{self.at}-opset{self.opset}-{attrs}".replace(" ", "")


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def above_half(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def affine(op: str, shape: tuple[int, ...], *others: Any, **how: Any) -> Case:
    known = {
        k: how.pop(k) for k in ("at", "outputs", "opset", "kind", "sizes", "positive") if k in how
    }
    return Case(op, shape, others, attrs=how, **known)


def smooth(op: str, shape: tuple[int, ...], *others: Any, **how: Any) -> Case:
    return affine(op, shape, *others, kind="smooth", **how)


FIXED_IMAGE = ("fixed", "batch")
IMAGE = (2, 6, 9, 8)
CONV = [
    affine("Conv", IMAGE, normal(4, 6, 3, 3), pads=[1] * 4),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), normal(4)),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), pads=[0, 1, 1, 0], strides=[2, 2]),
    affine("Conv", (2, 6, 11, 10), normal(4, 3, 3, 3), group=2, dilations=[2, 2], strides=[2, 2]),
    affine("Conv", (2, 6, 11, 10), normal(4, 6, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]),
    affine("Conv", IMAGE, normal(4, 6, 1, 1)),
    affine("Conv", IMAGE, normal(4, 6, 1, 1), strides=[2, 2]),
    affine("Conv", IMAGE, normal(4, 6, 1, 1), pads=[1, 1, 1, 1]),
    affine("Conv", IMAGE, normal(4, 3, 1, 1), group=2),
    affine("Conv", IMAGE, normal(6, 1, 5, 5), group=6, pads=[2] * 4),
    affine("Conv", IMAGE, normal(12, 1, 3, 3), group=6, pads=[1, 0, 2, 1]),
    affine("Conv", IMAGE, normal(6, 1, 3, 3), group=6, pads=[1] * 4, strides=[2, 2]),
    affine("Conv", IMAGE, normal(6, 1, 3, 3), group=6, dilations=[2, 2], pads=[2] * 4),
    affine("Conv", IMAGE, normal(8, 3, 3, 3), group=2),
    affine("Conv", (2, 3, 18, 17), normal(5, 3, 4, 4), strides=[4, 4]),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="SAME_UPPER"),
    affine("Conv", IMAGE, normal(4, 6, 4, 4), auto_pad="SAME_LOWER"),
    affine("Conv", IMAGE, normal(6, 1, 4, 4), auto_pad="SAME_LOWER", group=6),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="VALID", strides=[2, 1]),
    affine(
        "Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="SAME_UPPER", strides=[2, 3], sizes=FIXED_IMAGE
    ),
    affine(
        "Conv", IMAGE, normal(4, 6, 4, 4), auto_pad="SAME_LOWER", strides=[2, 2], sizes=FIXED_IMAGE
    ),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="SAME_UPPER", opset=7),
    affine("Conv", (2, 4, 12), normal(3, 4, 3), strides=[2], pads=[1, 1]),
    affine("Conv", (2, 4, 12), normal(4, 1, 5), group=4, pads=[2, 2]),
    affine("Conv", (2, 2, 5, 6, 5), normal(3, 2, 3, 3, 3), strides=[1, 2, 2], pads=[1] * 6),
    affine(
        "Conv", IMAGE, normal(4, 6, 1, 1), auto_pad="SAME_UPPER", strides=[3, 3], sizes=FIXED_IMAGE
    ),
    affine("ConvTranspose", (2, 6, 5, 4), normal(6, 4, 3, 3)),
    affine("ConvTranspose", (2, 6, 5, 4), normal(6, 2, 2, 2), strides=[2, 2], group=2),
    affine(
        "ConvTranspose",
        *((2, 6, 5, 4), normal(6, 4, 3, 3)),
        strides=[2, 2],
        pads=[1] * 4,
        output_padding=[1, 1],
    ),
]
POOL = [
    affine("GlobalAveragePool", (2, 3, 9, 8)),
    affine("GlobalAveragePool", (2, 3, 9)),
    affine("GlobalAveragePool", (2, 3, 4, 5, 6)),
    smooth("GlobalMaxPool", (2, 3, 9, 8)),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 3]),
    affine("AveragePool", (2, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2]),
    affine("AveragePool", (2, 3, 9, 7), kernel_shape=[2, 2], strides=[2, 2]),
    affine("AveragePool", (2, 3, 9, 7), kernel_shape=[9, 7]),
    affine("AveragePool", (2, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 2], pads=[1, 0, 2, 1]),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
    affine("AveragePool", (2, 3, 8), kernel_shape=[4], strides=[4]),
    # as many places as tiles would have, but shifted, or with holes
    *(
        affine("AveragePool", (2, 3, 9, 9), kernel_shape=[3, 3], strides=[3, 3], pads=pads)
        for pads in ([1] * 4, [1, 1, 0, 0], [0, 0, 1, 1])
    ),
    affine(
        "AveragePool",
        (2, 3, 4, 4),
        kernel_shape=[2, 2],
        strides=[2, 2],
        dilations=[2, 2],
        pads=[0, 0, 1, 1],
        opset=19,
    ),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 2], pads=[0, 0, 1, 1]),
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[2, 2], dilations=[2, 3], opset=19),
    *(
        affine("AveragePool", (2, 3, 9, 8), sizes=FIXED_IMAGE, **how)
        for how in (
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
            {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        )
    ),
    *(
        affine(
            *("AveragePool", (2, 3, 9, 8)),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=pads,
            ceil_mode=1,
            count_include_pad=1,
            opset=opset,
            sizes=FIXED_IMAGE,
        )
        for opset in (17, 19)
        for pads in ([0] * 4, [0, 0, 1, 1], [1] * 4)
    ),
    smooth("MaxPool", (2, 3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    smooth("MaxPool", (2, 3, 8, 8), kernel_shape=[2, 2], strides=[2, 2]),
    smooth("MaxPool", (2, 3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    smooth("MaxPool", (2, 3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], opset=7),
    smooth(
        "MaxPool",
        (2, 3, 11, 10),
        kernel_shape=[3, 3],
        strides=[2, 2],
        dilations=[2, 1],
        ceil_mode=1,
    ),
    smooth("MaxPool", (2, 3, 11), kernel_shape=[3], strides=[2]),
    smooth("MaxPool", (2, 2, 5, 6, 5), kernel_shape=[2, 2, 2]),
    smooth("LRN", (2, 8, 5, 5), size=5, alpha=0.3),
    smooth("LRN", (2, 8, 5, 5), size=3, alpha=0.3, beta=0.5, bias=2.0),
    smooth("LRN", (2, 8, 5, 5), size=3, alpha=0.3, opset=7),
]
NORM = [
    affine("BatchNormalization", IMAGE, normal(6), normal(6), normal(6), above_half(6)),
    affine("BatchNormalization", IMAGE, normal(6), normal(6), normal(6), above_half(6), opset=7),
    affine("BatchNormalization", (2, 6), normal(6), normal(6), normal(6), above_half(6)),
    affine(
        "BatchNormalization",
        (2, 6, 5),
        *(normal(6), normal(6), normal(6), above_half(6)),
        epsilon=0.1,
    ),
    smooth("InstanceNormalization", IMAGE, normal(6), normal(6)),
    smooth("LayerNormalization", (2, 5, 6), normal(6), normal(6)),
    smooth("LayerNormalization", (2, 5, 6), normal(5, 6), axis=1, epsilon=0.1),
    smooth("GroupNormalization", (2, 6, 4, 4), normal(3), normal(3), num_groups=3, opset=18),
    smooth("GroupNormalization", (2, 6, 4, 4), normal(6), normal(6), num_groups=3, opset=21),
    smooth("RMSNormalization", (2, 3, 6), normal(6), opset=23),
    smooth("RMSNormalization", (2, 3, 6), normal(3, 6), axis=1, epsilon=0.1, opset=23),
    smooth("MeanVarianceNormalization", (2, 3, 4, 4)),
    smooth("MeanVarianceNormalization", (2, 3, 4, 4), axes=[2, 3]),
    smooth("LpNormalization", (3, 5), axis=-1, p=2),
    smooth("LpNormalization", (3, 5, 2), axis=1),
    smooth("Softmax", (2, 5, 6)),
    smooth("Softmax", (2, 5, 6), axis=1),
    smooth("Softmax", (2, 5, 6), axis=1, opset=11),
    smooth("Softmax", (2, 5, 2, 3), opset=7),
    smooth("LogSoftmax", (2, 5, 6)),
    smooth("LogSoftmax", (2, 5, 6), axis=1, opset=11),
]
REDUCE = [
    case
    for op in (
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
        *("ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum"),
    )
    for how in [{"kind": "affine" if op in {"ReduceSum", "ReduceMean"} else "smooth"}]
    for positive in [op in {"ReduceLogSum", "ReduceL1"}]
    for axes in [((2, 3), 1), ((-1,), 0), ((1, 3), 0)]
    for case in (
        affine(
            op, (2, 3, 4, 5), ints(*axes[0]), keepdims=axes[1], opset=18, positive=positive, **how
        ),
        affine(
            op, (2, 3, 4, 5), axes=axes[0], keepdims=axes[1], opset=11, positive=positive, **how
        ),
        affine(op, (2, 3, 4), keepdims=axes[1], positive=positive, **how),
    )
] + [
    affine("ReduceSum", (2, 3), ints(), noop_with_empty_axes=1),
    affine("ReduceMean", (2, 3), ints(), noop_with_empty_axes=1, opset=18),
    affine("ReduceMean", (2, 3), ints(), keepdims=0, opset=18),
]
SMOOTH = (2, 7, 5)
ELEMENTWISE = [
    *(
        smooth(op, SMOOTH)
        for op in ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")
    ),
    *(smooth(op, SMOOTH) for op in ("Elu", "Selu", "Celu", "Softplus", "Softsign", "Erf", "Exp")),
    *(smooth(op, SMOOTH) for op in ("Abs", "Sin", "Cos")),
    smooth("ThresholdedRelu", (2, 7, 4)),  # away from the jump at 1
    *(smooth(op, SMOOTH, positive=True) for op in ("Log", "Sqrt", "Reciprocal")),
    affine("Neg", SMOOTH),
    smooth("Relu", SMOOTH, opset=7),
    smooth("LeakyRelu", SMOOTH, alpha=0.3),
    smooth("HardSigmoid", SMOOTH, alpha=0.3, beta=0.4),
    smooth("Elu", SMOOTH, alpha=0.7),
    smooth("Celu", SMOOTH, alpha=0.7),
    smooth("Selu", SMOOTH, alpha=0.7, gamma=1.9),
    smooth("ThresholdedRelu", SMOOTH, alpha=0.4),
    smooth("Mish", SMOOTH, opset=18),
    smooth("Gelu", SMOOTH, opset=20),
    smooth("Gelu", SMOOTH, opset=20, approximate="tanh"),
    smooth("Swish", SMOOTH, opset=24),
    smooth("Swish", SMOOTH, opset=24, alpha=1.7),
    smooth("Clip", SMOOTH, np.float32(-0.6), np.float32(0.8)),
    smooth("Clip", SMOOTH, None, np.float32(0.8)),
    smooth("Clip", SMOOTH, np.float32(-0.6)),
    smooth("Clip", SMOOTH, opset=7, min=-0.6, max=0.8),
    smooth("PRelu", (2, 3, 4, 5), normal(3, 1, 1)),
    smooth("PRelu", (3, 1, 1), normal(2, 3, 4, 5), at=1),
    smooth("Pow", SMOOTH, np.float32(3)),
    smooth("Pow", SMOOTH, np.float32(2)),
    smooth("Pow", SMOOTH, np.int64(2)),
    smooth("Pow", SMOOTH, np.float32(0.5), positive=True),
    smooth("Pow", SMOOTH, above_half(3, 2, 1, 5), positive=True),
    *(affine(op, (2, 1, 5), above_half(2, 4, 5)) for op in ("Add", "Sub", "Mul", "Div")),
    *(affine(op, (3, 1, 5), above_half(2, 3, 4, 5), at=1) for op in ("Add", "Sub", "Mul")),
    affine("Add", (4, 5), np.float32(2), opset=7),
    smooth("Div", (3, 1, 5), above_half(2, 3, 4, 5), at=1, positive=True),
    affine("Sum", (3, 1), normal(3, 4), normal(2, 1, 4)),
    affine("Mean", (3, 1), normal(3, 4), normal(2, 1, 4), at=1),
    affine("Mean", (3, 1), normal(3, 4)),
    affine("Mean", (3, 4)),
    smooth("Max", (3, 5), normal(3, 5), normal(5)),
    smooth("Min", (3, 5), normal(2, 3, 5)),
    affine("Where", (3, 1), RNG.random((3, 5)) > 0.5, normal(3, 5), at=1),
    affine("Where", (3, 5), RNG.random((3, 5)) > 0.5, normal(3, 5), at=2),
]
LINALG = [
    affine("MatMul", (2, 3, 4, 5), normal(5, 6)),
    affine("MatMul", (4, 5), normal(2, 3, 5, 6)),
    affine("MatMul", (1, 4, 5), normal(3, 5, 6)),
    affine("MatMul", (2, 5, 6), normal(2, 4, 5), at=1),
    affine("MatMul", (5, 6), normal(2, 4, 5), at=1),
    affine("MatMul", (4, 5), normal(5, 6), opset=7),
    *(
        affine(
            "Gemm",
            (5, 4) if a else (4, 5),
            normal(*((6, 5) if b else (5, 6))),
            normal(6),
            transA=a,
            transB=b,
            alpha=0.5,
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    *(
        affine(
            "Gemm",
            (6, 5) if b else (5, 6),
            normal(*((5, 4) if a else (4, 5))),
            at=1,
            transA=a,
            transB=b,
            alpha=0.5,
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    affine("Einsum", (2, 3, 4), normal(2, 4, 5), equation="bij,bjk->bik"),
    affine("Einsum", (2, 3, 4), normal(2, 4), equation="bij,bj->b"),
    affine("Einsum", (2, 3, 4), equation="bij -> bj"),
    affine("Einsum", (2, 4, 5), normal(2, 3, 4), at=1, equation="bij,bjk->bik"),
]
SHAPE = [
    affine("Identity", (2, 3)),
    affine("Dropout", (2, 3)),
    affine("Dropout", (2, 3), opset=7),
    affine("Cast", (2, 3), to=TensorProto.DOUBLE),
    affine("CastLike", (2, 3), np.zeros(1)),
    affine("Reshape", (2, 3, 4), ints(0, -1)),
    affine("Flatten", (2, 3, 4)),
    affine("Flatten", (2, 3, 4), axis=2),
    affine("Squeeze", (2, 1, 4), ints(1)),
    affine("Squeeze", (2, 1, 4), axes=[1], opset=11),
    affine("Unsqueeze", (2, 4), ints(1, -1)),
    affine("Transpose", (2, 3, 4), perm=[2, 0, 1]),
    affine("Transpose", (2, 3, 4)),
    affine("Expand", (2, 1, 4), ints(3, 1, 5, 1)),
    affine("Expand", (2, 1, 4), ints(1, 1, 4)),
    affine("Concat", (2, 3, 4), normal(2, 2, 4), axis=1),
    affine("Concat", (2, 3, 4), normal(2, 2, 4), at=1, axis=-2),
    affine("Concat", (2, 3, 4), normal(2, 3, 5), normal(2, 3, 1), at=1, axis=2),
    affine("Split", (2, 7, 3), ints(2, 4, 1), axis=1, outputs=3),
    affine("Split", (2, 6, 3), axis=1, outputs=2, opset=11),
    affine("Pad", (2, 3, 4), ints(0, 1, 2, 0, 0, 1)),
    affine("Pad", (2, 3, 4), ints(0, 1, -2, 0, 0, 1)),
    affine("Pad", (2, 3, 4), ints(2, 1), np.float32(3), ints(2), opset=18),
    affine("Pad", (2, 3, 5), ints(0, 0, 2, 0, 0, 1), mode="reflect"),
    affine("Pad", (2, 3, 5), ints(0, 0, 2, 0, 0, 1), mode="edge"),
    affine("Pad", (2, 3, 5), ints(0, 0, 2, 0, 0, 1), np.float32(1), mode="edge"),
    affine("Slice", (2, 9, 8), ints(1, -3), ints(7, 100), ints(1, 2)),
    affine("Slice", (2, 9, 8), ints(8, 0), ints(-100, 8), ints(1, 2), ints(-2, 3)),
    affine("Slice", (2, 9, 8), ints(1, -3), ints(7, 100), ints(-2, -1)),
    affine("Slice", (4, 9), ints(1), ints(3), ints(0)),
    affine("Slice", (2, 9, 8), starts=[1, 2], ends=[9, 5], axes=[1, 2], opset=7),
    affine("Slice", (2, 9), ints(0, 1), ints(2, 4)),
    affine("Gather", (2, 5, 3), np.int64(0), axis=1),
    affine("Gather", (2, 5, 3), ints(-1), axis=1),
    affine("Gather", (2, 5, 3), ints(-4), axis=-2),
    affine("Gather", (2, 5, 3), np.array([[0, 2], [2, 4]]), axis=1),
    affine("Gather", (4, 3), np.int64(2)),
    affine("GatherElements", (3, 4), np.array([[0, 0, 1], [3, 3, 3], [1, 1, 1]]), axis=1),
    affine("GatherND", (3, 4, 2), np.array([[0, 1], [0, 1], [2, 3]])),
    affine("Tile", (2, 3, 4), ints(1, 2, 3)),
    affine("Compress", (3, 4), np.array([True, False, True]), axis=0),
    affine("DepthToSpace", (2, 8, 3, 4), blocksize=2),
    affine("DepthToSpace", (2, 8, 3, 4), blocksize=2, mode="CRD"),
    affine("SpaceToDepth", (2, 2, 4, 6), blocksize=2),
    *(
        affine("Resize", (2, 3, 5, 6), *target, mode=mode, sizes=FIXED_IMAGE, **how)
        for mode in ("nearest", "linear", "cubic")
        for target, how in (
            ((None, np.array([1, 1, 1.7, 0.6], np.float32)), {}),
            ((None, None, ints(2, 3, 9, 4)), {"coordinate_transformation_mode": "asymmetric"}),
            (
                (None, np.array([1, 1, 2, 2], np.float32)),
                {"coordinate_transformation_mode": "align_corners"},
            ),
        )
    ),
    affine(
        "Resize", (2, 3, 5), None, np.array([1, 1, 2], np.float32), mode="linear", sizes=FIXED_IMAGE
    ),
    *(
        affine("Resize", shape, *target, mode=mode, sizes=FIXED_IMAGE, opset=18, **how)
        for shape, target, mode, how in (
            # 5 x 1.1 is 5 again, but not the same 5, unless nothing else changes
            ((2, 3, 5, 5), (None, np.array([1, 1, 1.1, 2], np.float32)), "linear", {}),
            ((2, 3, 5, 5), (None, np.array([1, 1, 1.1, 2], np.float32)), "cubic", {}),
            ((2, 3, 5, 5), (None, np.array([1, 1, 1.1, 1], np.float32)), "linear", {}),
            # channels last, and channels as well
            ((2, 5, 6, 3), (None, np.array([1, 1.7, 0.6, 1], np.float32)), "linear", {}),
            ((2, 5, 6, 3), (None, None, ints(2, 9, 4, 3)), "nearest", {}),
            ((2, 4, 5), (None, None, ints(2, 7, 5)), "nearest", {}),
            ((2, 3, 8, 9), (None, None, ints(2, 3, 5, 4)), "linear", {"antialias": 1}),
        )
    ),
    affine(
        "Resize", (2, 3, 4), None, np.array([2, 1, 1], np.float32), mode="linear", sizes=("fixed",)
    ),
]
CASES = [*CONV, *POOL, *NORM, *REDUCE, *ELEMENTWISE, *LINALG, *SHAPE]


def newest_opset() -> int:
    """Return the newest operator set that the installed onnxruntime runs."""
    kind = helper.make_tensor_value_info
    for opset in range(onnx.defs.onnx_opset_version(), 6, -1):
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [kind("x", TensorProto.FLOAT, [1])],
            [kind("y", TensorProto.FLOAT, [1])],
        )
        opsets = [helper.make_opsetid("", opset)]
        try:
            Session(helper.make_model(graph, opset_imports=opsets, ir_version=10))
        except InvalidInputError:
            continue
        return opset
    raise AssertionError


RUNNABLE = [case for case in CASES if case.opset <= newest_opset()]


def one_operator(case: Case, sizes: str) -> onnx.ModelProto:
    """Return a model: input times one ("a"), then the operator, its outputs strung together."""
    constants = [
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(ints(1, -1), "row"),
    ]
    names, others = [], list(case.others)
    for i in range(len(others) + 1):
        if i == case.at:
            names.append("a")
            continue
        value = others.pop(0)
        names.append("" if value is None else f"other{i}")
        if value is not None:
            constants.append(numpy_helper.from_array(np.asarray(value), f"other{i}"))
    outputs = [f"y{i}" for i in range(case.outputs)]
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["a"]),
        helper.make_node(case.op, names, outputs, **case.attrs),
    ]
    for y in outputs:
        nodes.append(helper.make_node("Cast", [y], [f"{y}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Reshape", [f"{y}_float", "row"], [f"{y}_row"]))
    nodes.append(helper.make_node("Concat", [f"{y}_row" for y in outputs], ["z"], axis=1))
    dims: list[Any] = list(case.shape)
    if sizes == "batch":
        dims[0] = "N"
    elif sizes == "open":
        dims = [d if i == 1 else f"d{i}" for i, d in enumerate(dims)]
    graph = helper.make_graph(
        nodes,
        "one_operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, None])],
        constants,
    )
    opsets = [helper.make_opsetid("", case.opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(10, 8 + (case.opset > 18)))


def away_from_kinks(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Return values no two of which, and no sum of which with a kink, lie within the step."""
    count = int(np.prod(case.shape))
    values = rng.permutation(np.linspace(-1.95, 2.04, count))
    return (np.abs(values) + 0.5 if case.positive else values).reshape(case.shape)


@pytest.mark.parametrize("case", RUNNABLE, ids=str)
@pytest.mark.parametrize("sizes", ALL)
def test_adjoint(case: Case, sizes: str) -> None:
    if sizes not in case.sizes:
        with pytest.raises(NotImplementedError):
            gradient_program(Graph(prepare(one_operator(case, sizes))), "z", "a")
        return
    rng = np.random.default_rng(3)
    graph = Graph(prepare(one_operator(case, sizes)))
    session = Session(gradient_program(graph, "z", "a"), threads=1)
    x = away_from_kinks(case, rng)

    def run(at: np.ndarray, cotangent: np.ndarray) -> list[np.ndarray]:
        feeds = {"x": at.astype(np.float32), COTANGENT: cotangent, EXPLAIN_TOP: np.array(False)}
        return [array.astype(np.float64) for array in session(feeds)]

    forward = Session(one_operator(case, sizes), threads=1)
    plain = forward({"x": x.astype(np.float32)})[0]
    for _ in range(2):  # by chance, an error can lie across one direction
        v = rng.uniform(-1, 1, case.shape)
        u = rng.standard_normal(plain.shape).astype(np.float32)
        z, a, gradient = run(x, u)
        np.testing.assert_allclose(z, plain, rtol=1e-6, atol=1e-6)  # the model is not changed
        assert gradient.shape == a.shape == case.shape
        if case.kind == "affine":
            change = run(x + v, u)[0] - z
            tolerance = 2e-5
        else:
            step = 2e-3
            change = (run(x + step * v, u)[0] - run(x - step * v, u)[0]) / (2 * step)
            tolerance = 5e-3
        forwards, backwards = (change * u).sum(), (gradient * v).sum()
        scale = np.abs(change * u).sum() / np.sqrt(u.size) + np.linalg.norm(gradient) + 1e-3
        assert abs(forwards - backwards) < tolerance * scale, (forwards, backwards)


def test_the_first_axis_can_be_resized_where_it_is_no_open_batch() -> None:
    test_adjoint(affine("Resize", (2, 3, 4), None, None, ints(5, 3, 4), mode="linear"), "fixed")


CROP = {"coordinate_transformation_mode": "tf_crop_and_resize"}
AVERAGE = {"kernel_shape": [2, 2], "opset": 19}
REFUSED = {
    affine("AveragePool", IMAGE, auto_pad="SAME_UPPER", dilations=[2, 2], **AVERAGE): "auto_pad",
    affine("AveragePool", IMAGE, auto_pad="SAME_LOWER", dilations=[2, 1], **AVERAGE): "auto_pad",
    affine("AveragePool", IMAGE, auto_pad="SAME_UPPER", strides=[1, 4], **AVERAGE): "auto_pad",
    affine("BatchNormalization", IMAGE, *[above_half(6)] * 4, training_mode=1): "training mode",
    affine("Dropout", (2, 3), np.float32(0.5), np.array(True)): "training mode",
    affine("Resize", (1, 4), np.zeros(4, "f"), np.array([1, 2], "f"), **CROP): "cropping",
    affine("Resize", (2, 4), None, np.array([2], "f"), axes=[1], opset=18): "axes",
    affine("Einsum", (2, 3, 3), equation="bii->b"): "a repeated index",
    affine(
        *("ConvTranspose", (2, 6, 5, 4), normal(6, 4, 3, 3)),
        dilations=[2, 2],
        output_padding=[1, 0],
    ): "output_padding as large as the stride",
    smooth("LpNormalization", (3, 5), p=1): "p other than 2",
    smooth("LayerNormalization", (2, 6), normal(6), outputs=2): "an output other than the first",
}


@pytest.mark.parametrize(("case", "reason"), REFUSED.items(), ids=str)
def test_refused(case: Case, reason: str) -> None:
    """What has no gradient here says so, instead of returning a wrong one."""
    with pytest.raises(UnsupportedOpError, match=f"{case.op} .*: .*{reason}"):
        gradient_program(Graph(prepare(one_operator(case, "fixed"))), "z", "a")


def gradient_at(case: Case, x: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of all that the operator returns."""
    session = Session(gradient_program(Graph(prepare(one_operator(case, "fixed"))), "z", "a"))
    rows = np.ones((1, Session(one_operator(case, "fixed"))({"x": x})[0].size), np.float32)
    return session({"x": x, COTANGENT: rows, EXPLAIN_TOP: np.array(False)})[2]


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("others", [1, 2])
def test_operands_that_tie_share(op: str, others: int) -> None:
    x = np.array([[1, 2, 3]], np.float32)
    case = smooth(op, (1, 3), *[x] * others)
    np.testing.assert_allclose(gradient_at(case, x), np.full_like(x, 1 / (1 + others)))


@pytest.mark.parametrize("op", ["LpNormalization", "ReduceL2"])
def test_a_vector_of_zeros_has_a_finite_gradient(op: str) -> None:
    x = np.array([[0, 0], [3, 4]], np.float32)
    how = {"axis": 1} if op == "LpNormalization" else {"axes": [1]}
    zero, other = gradient_at(smooth(op, (2, 2), **how), x)
    np.testing.assert_array_equal(zero, 0)
    wanted = [0.6, 0.8] if op == "ReduceL2" else [0.2 - 0.6 * 0.28, 0.2 - 0.8 * 0.28]
    np.testing.assert_allclose(other, wanted, rtol=1e-5)


def test_an_output_without_a_name_is_refused() -> None:
    """Its size is not known; onnxruntime crashes on such a Split, so that it is not run here."""
    graph = Graph(prepare(one_operator(affine("Split", (2, 6), axis=1, outputs=2), "fixed")))
    split, reader = (next(n for n in graph.nodes if n.op_type == op) for op in ("Split", "Cast"))
    reader.input[0], split.output[0] = split.output[1], ""
    with pytest.raises(UnsupportedOpError, match=r"Split .*: an output without a name"):
        gradient_program(graph, "z", "a")


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == {case.op for case in CASES}


def test_rules_name_real_operators() -> None:
    assert all(onnx.defs.has(name) for name in {*RULES, *ZERO_GRADIENT})


def test_a_second_rule_for_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="Conv has a gradient rule already"):
        rule("Conv")(lambda *_: [])
    with pytest.raises(ValueError, match="Floor has a gradient rule already"):
        rule("Floor")(lambda *_: [])


def test_an_operator_set_that_cannot_add_up_is_refused() -> None:
    """Models that cannot be converted keep theirs; what does not overlap works all the same."""
    for stride, works in ((2, True), (1, False)):
        how = {"kernel_shape": [2, 2], "strides": [stride, stride]}
        model = one_operator(smooth("MaxPool", (1, 2, 4, 4), opset=13, **how), "fixed")
        graph = Graph(onnx.shape_inference.infer_shapes(model))
        if works:
            assert Session(gradient_program(graph, "z", "a"))
        else:
            with pytest.raises(NotImplementedError, match="adding up needs operator set 16"):
                gradient_program(graph, "z", "a")


def test_gradient_is_the_last_output() -> None:
    program = gradient_program(Graph(prepare(one_operator(CASES[0], "fixed"))), "z", "a")
    assert [output.name for output in program.graph.output] == ["z", "a", GRADIENT]

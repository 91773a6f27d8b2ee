"""The operators whose gradient rules are tested, each with its inputs and attributes.

`CASES` have a gradient; `REFUSED` say why they have none. One random generator fills them in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

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

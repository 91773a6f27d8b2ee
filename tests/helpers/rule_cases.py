"""The operators whose gradient rules are tested, each with its inputs and attributes.

`CASES` have a gradient; `REFUSED` say why they have none. One random generator fills them in order.
A case is written for one operator set, and holds for all around it that take the same inputs and
attributes, unless it says `since` or `until` when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

RNG = np.random.default_rng(7)
ALL = ("fixed", "batch", "open")
KNOWN = ("at", "outputs", "opset", "since", "until", "kind", "sizes", "span")
POSITIVE = (0.5, 2.5)


@dataclass(eq=False)
class Case:
    op: str
    shape: tuple[int, ...]
    others: tuple[Any, ...] = ()
    at: int = 0
    outputs: int = 1
    opset: int = 17
    since: int = 7
    until: int = 99
    kind: str = "affine"
    sizes: tuple[str, ...] = ALL
    span: tuple[float, float] = (-1.95, 2.04)
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        shapes = "x".join(map(str, self.shape))
        return f"{self.op}-{shapes}@{self.at}-{attrs}".replace(" ", "")


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def above_half(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def affine(op: str, shape: tuple[int, ...], *others: Any, **how: Any) -> Case:
    known = {name: how.pop(name) for name in KNOWN if name in how}
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
    affine("Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="SAME_UPPER", strides=[2, 3]),
    affine("Conv", IMAGE, normal(4, 6, 4, 4), auto_pad="SAME_LOWER", strides=[2, 2]),
    affine("Conv", IMAGE, normal(4, 6, 3, 3), auto_pad="SAME_UPPER", opset=7),
    affine("Conv", (2, 4, 12), normal(3, 4, 3), strides=[2], pads=[1, 1]),
    affine("Conv", (2, 4, 12), normal(4, 1, 5), group=4, pads=[2, 2]),
    affine("Conv", (2, 2, 5, 6, 5), normal(3, 2, 3, 3, 3), strides=[1, 2, 2], pads=[1] * 6),
    affine("Conv", IMAGE, normal(4, 6, 1, 1), auto_pad="SAME_UPPER", strides=[3, 3]),
    affine("ConvTranspose", (2, 6, 5, 4), normal(6, 4, 3, 3)),
    affine("ConvTranspose", (2, 6, 5, 4), normal(6, 2, 2, 2), strides=[2, 2], group=2),
    affine(
        "ConvTranspose",
        *((2, 6, 5, 4), normal(6, 4, 3, 3)),
        strides=[2, 2],
        pads=[1] * 4,
        output_padding=[1, 1],
    ),
    *(
        affine("ConvTranspose", (2, 6, 5, 4), normal(6, 4, 3, 3), strides=[2, 3], **how)
        for how in (
            {"auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"auto_pad": "VALID", "output_padding": [1, 2]},
            {"auto_pad": "SAME_LOWER", "dilations": [1, 2]},
            {"output_shape": [10, 11], "sizes": FIXED_IMAGE},
            {"output_shape": [8, 9], "auto_pad": "SAME_UPPER", "sizes": FIXED_IMAGE},
            {"output_shape": [12, 12], "sizes": FIXED_IMAGE},
        )
    ),
    # kernels and biases that are computed
    *(
        affine(op, kernel, x, at=1, sizes=FIXED_IMAGE, **how)
        for op, x, kernel, how in (
            ("Conv", normal(2, 6, 9, 8), (4, 6, 3, 3), {"pads": [1, 0, 2, 1]}),
            ("Conv", normal(2, 6, 9, 8), (4, 3, 3, 2), {"group": 2, "strides": [2, 3]}),
            ("Conv", normal(2, 6, 9, 8), (6, 1, 3, 3), {"group": 6, "dilations": [2, 1]}),
            ("Conv", normal(2, 6, 9, 8), (4, 6, 3, 3), {"auto_pad": "SAME_UPPER"}),
            ("Conv", normal(2, 6, 9), (4, 3, 3), {"group": 2, "strides": [2], "pads": [1, 1]}),
            ("ConvTranspose", normal(2, 6, 5, 4), (6, 4, 3, 3), {"strides": [2, 2]}),
            ("ConvTranspose", normal(2, 6, 5, 4), (6, 2, 2, 3), {"group": 3, "pads": [1, 0, 0, 1]}),
        )
    ),
    affine("Conv", (4,), normal(2, 6, 5, 5), normal(4, 6, 3, 3), at=2),
    affine("ConvTranspose", (4,), normal(2, 6, 5), normal(6, 4, 3), at=2),
    *(
        affine("Col2Im", shape, ints(*image), ints(*block), opset=18, **how)
        for shape, image, block, how in (
            ((2, 12, 12), (6, 8), (2, 2), {"strides": [2, 2]}),
            ((2, 18, 30), (6, 8), (2, 3), {}),
            (
                *((2, 12, 12), (5, 6), (2, 3)),
                {"strides": [1, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1]},
            ),
            ((2, 6, 4), (9,), (3,), {"strides": [2]}),
            ((1, 8, 24), (3, 4, 5), (2, 2, 2), {}),
        )
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
    affine("AveragePool", (2, 3, 9, 7), kernel_shape=[40, 50], strides=[40, 50], ceil_mode=1),
    affine("AveragePool", (2, 3, 9, 7), kernel_shape=[11, 9], pads=[1] * 4, count_include_pad=1),
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
        affine("AveragePool", (2, 3, 9, 8), **how)
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
        )
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
    affine("AveragePool", (2, 3, 9, 8), kernel_shape=[3, 4], auto_pad="SAME_UPPER", strides=[2, 3]),
    affine("AveragePool", (2, 2, 5, 6, 5), kernel_shape=[2, 3, 2], pads=[1] * 6),
    *(
        smooth("MaxPool", (2, 3, 9, 8), outputs=n, storage_order=order, **how)
        for how in ({"kernel_shape": [3, 3], "strides": [2, 2]},)
        for n, order in ((1, 1), (2, 0), (2, 1))
    ),
    *(
        smooth("LpPool", (2, 3, 9, 8), span=POSITIVE, **how)
        for how in (
            {"kernel_shape": [3, 2]},
            {"kernel_shape": [3, 3], "p": 1, "strides": [2, 2]},
            {"kernel_shape": [3, 3], "p": 3, "pads": [1, 0, 1, 1]},
            {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"kernel_shape": [2, 2], "dilations": [2, 3], "ceil_mode": 1, "opset": 18},
        )
    ),
    smooth("LpPool", (2, 3, 9, 8), kernel_shape=[3, 3]),
    smooth("GlobalLpPool", (2, 3, 4, 5), until=21),  # where onnxruntime has it
    smooth("GlobalLpPool", (2, 3, 4, 5), until=21, p=3, span=POSITIVE),
    affine(
        "MaxUnpool",
        (1, 1, 2, 2),
        ints(0, 2, 9, 15).reshape(1, 1, 2, 2),
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    smooth("LRN", (2, 8, 5, 5), size=5, alpha=0.3),
    smooth("LRN", (2, 8, 5, 5), size=3, alpha=0.3, beta=0.5, bias=2.0),
    smooth("LRN", (2, 8, 5, 5), size=3, alpha=0.3, opset=7),
]
NORM = [
    affine("BatchNormalization", IMAGE, normal(6), normal(6), normal(6), above_half(6)),
    affine("BatchNormalization", IMAGE, normal(6), normal(6), normal(6), above_half(6), opset=7),
    affine("BatchNormalization", (2, 6), normal(6), normal(6), normal(6), above_half(6)),
    *(
        affine("BatchNormalization", (6,), *[normal(2, 6, 5), *[above_half(6)] * 3], at=at)
        for at in (1, 2)
    ),
    *(affine("LayerNormalization", (6,), normal(2, 5, 6), normal(6), at=at) for at in (1, 2)),
    affine("LayerNormalization", (5, 1), normal(2, 5, 6), normal(5, 6), at=2, axis=1),
    *(affine("InstanceNormalization", (6,), normal(*IMAGE), normal(6), at=at) for at in (1, 2)),
    *(
        affine("GroupNormalization", (n,), normal(2, 6, 5), normal(n), at=at, num_groups=3, **how)
        for n, how in ((3, {"opset": 18, "until": 20}), (6, {"opset": 21}))
        for at in (1, 2)
    ),
    affine("RMSNormalization", (6,), normal(2, 3, 6), at=1, opset=23),
    affine(
        "BatchNormalization",
        (2, 6, 5),
        *(normal(6), normal(6), normal(6), above_half(6)),
        epsilon=0.1,
    ),
    smooth("InstanceNormalization", IMAGE, normal(6), normal(6)),
    smooth("LayerNormalization", (2, 5, 6), normal(6), normal(6)),
    smooth("LayerNormalization", (2, 5, 6), normal(5, 6), axis=1, epsilon=0.1),
    smooth(
        "GroupNormalization", (2, 6, 4, 4), normal(3), normal(3), num_groups=3, opset=18, until=20
    ),
    smooth("GroupNormalization", (2, 6, 4, 4), normal(6), normal(6), num_groups=3, opset=21),
    smooth("RMSNormalization", (2, 3, 6), normal(6), opset=23),
    smooth("RMSNormalization", (2, 3, 6), normal(3, 6), axis=1, epsilon=0.1, opset=23),
    smooth("MeanVarianceNormalization", (2, 3, 4, 4)),
    smooth("MeanVarianceNormalization", (2, 3, 4, 4), axes=[2, 3]),
    smooth("LpNormalization", (3, 5), axis=-1, p=2),
    smooth("LpNormalization", (3, 5, 2), axis=1),
    smooth("LpNormalization", (3, 5), p=1),
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
        *("ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum", "ReduceProd"),
    )
    for how in [{"kind": "affine" if op in {"ReduceSum", "ReduceMean"} else "smooth"}]
    for span in [POSITIVE if op in {"ReduceLogSum", "ReduceL1"} else (-1.95, 2.04)]
    for axes in [((2, 3), 1), ((-1,), 0), ((1, 3), 0)]
    for case in (
        affine(op, (2, 3, 4, 5), ints(*axes[0]), keepdims=axes[1], opset=18, span=span, **how),
        affine(op, (2, 3, 4, 5), axes=axes[0], keepdims=axes[1], opset=11, span=span, **how),
        affine(op, (2, 3, 4), keepdims=axes[1], span=span, **how),
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
    *(smooth(op, SMOOTH) for op in ("Abs", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh")),
    *(smooth(op, SMOOTH, span=(-0.9, 0.8)) for op in ("Tan", "Asin", "Acos", "Atanh")),
    smooth("Acosh", SMOOTH, span=(1.2, 3)),
    smooth("Mod", (3, 1), np.float32([[0.7, 5, -6]]), fmod=1, span=(-0.6, 0.65)),
    smooth("Pow", (3, 5), above_half(2, 3, 1), at=1),
    smooth("Shrink", SMOOTH, lambd=0.4, bias=0.3),
    smooth("ThresholdedRelu", (2, 7, 4)),  # away from the jump at 1
    *(smooth(op, SMOOTH, span=POSITIVE) for op in ("Log", "Sqrt", "Reciprocal")),
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
    smooth("Swish", SMOOTH, opset=24, until=24),  # onnxruntime has it in this one only
    smooth("Swish", SMOOTH, opset=24, until=24, alpha=1.7),
    smooth("Clip", SMOOTH, np.float32(-0.6), np.float32(0.8)),
    smooth("Clip", SMOOTH, None, np.float32(0.8)),
    smooth("Clip", SMOOTH, np.float32(-0.6)),
    smooth("Clip", SMOOTH, opset=7, min=-0.6, max=0.8),
    smooth("PRelu", (2, 3, 4, 5), normal(3, 1, 1)),
    smooth("PRelu", (3, 1, 1), normal(2, 3, 4, 5), at=1),
    smooth("Pow", SMOOTH, np.float32(3)),
    smooth("Pow", SMOOTH, np.float32(2)),
    smooth("Pow", SMOOTH, np.int64(2)),
    smooth("Pow", SMOOTH, np.float32(0.5), span=POSITIVE),
    smooth("Pow", SMOOTH, above_half(3, 2, 1, 5), span=POSITIVE),
    *(affine(op, (2, 1, 5), above_half(2, 4, 5)) for op in ("Add", "Sub", "Mul", "Div")),
    *(affine(op, (3, 1, 5), above_half(2, 3, 4, 5), at=1) for op in ("Add", "Sub", "Mul")),
    affine("Add", (4, 5), np.float32(2), opset=7),
    smooth("Div", (3, 1, 5), above_half(2, 3, 4, 5), at=1, span=POSITIVE),
    affine("Sum", (3, 1), normal(3, 4), normal(2, 1, 4), since=8),
    affine("Mean", (3, 1), normal(3, 4), normal(2, 1, 4), at=1, since=8),
    affine("Mean", (3, 1), normal(3, 4), since=8),
    affine("Mean", (3, 4)),
    smooth("Max", (3, 5), normal(3, 5), normal(5), since=8),
    smooth("Min", (3, 5), normal(2, 3, 5), since=8),
    affine("Where", (3, 1), RNG.random((3, 5)) > 0.5, normal(3, 5), at=1),
    affine("Where", (3, 5), RNG.random((3, 5)) > 0.5, normal(3, 5), at=2),
]
LINALG = [
    affine("MatMul", (2, 3, 4, 5), normal(5, 6)),
    affine("MatMul", (4, 5), normal(2, 3, 5, 6)),
    affine("MatMul", (1, 4, 5), normal(3, 5, 6)),
    affine("MatMul", (2, 5, 6), normal(2, 4, 5), at=1),
    affine("MatMul", (5, 6), normal(2, 4, 5), at=1),
    affine("MatMul", (4, 5), normal(5, 6)),
    affine("MatMul", (5,), normal(5)),
    affine("MatMul", (5,), normal(5), at=1),
    *(affine("MatMul", (5,), normal(*lead, 5, 6)) for lead in ((), (3,), (2, 3))),
    *(affine("MatMul", (*lead, 5, 6), normal(5), at=1) for lead in ((), (3,), (2, 3))),
    *(affine("MatMul", (*lead, 4, 5), normal(5)) for lead in ((), (3,), (2, 3))),
    *(affine("MatMul", (5,), normal(*lead, 4, 5), at=1) for lead in ((), (3,), (2, 3))),
    *(
        affine("Gemm", shape, normal(4, 5), normal(5, 6), at=2, beta=0.7)
        for shape in ((6,), (4, 6), (1, 6), (4, 1))
    ),
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
    affine("Einsum", (2, 3, 3), equation="bii->b"),
    affine("Einsum", (2, 3, 3), normal(3, 4), equation="bii,ij->bij"),
    affine("Einsum", (3, 2, 3, 3), equation="ibii->ib"),
    affine("Einsum", (2, 3, 4), normal(4, 5), equation="bij,jk"),
    affine("Einsum", (2, 3, 4, 5), normal(2, 3, 5, 6), equation="...ij,...jk->...ik"),
    affine("Einsum", (3, 4, 5), normal(3, 5, 6), equation="...ij,...jk"),
    affine("Einsum", (2, 1, 4, 5), normal(1, 3, 5, 6), equation="...ij,...jk->...ik"),
    affine("Einsum", (1, 3, 5, 6), normal(2, 1, 4, 5), at=1, equation="...ij,...jk->...ik"),
    affine("Einsum", (2, 3, 4), normal(4), equation="b...j,j->b..."),
    affine("Einsum", (2, 1, 4), normal(2, 3, 4), equation="bij,bij->b"),
    affine("Einsum", (2, 3), normal(3, 4), normal(4, 5), equation="ij,jk,kl->il"),
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
    *(
        affine("OneHot", (2,), np.array([[1, 0, -2], [3, 9, 1]]), depth, at=2, **how)
        for depth, how in ((np.int64(4), {}), (ints(5), {"axis": 1}))
    ),
    smooth("TopK", (2, 7), ints(3), outputs=2),
    smooth("TopK", (2, 7, 4), ints(3), axis=1, largest=0, outputs=2),
    *(
        affine("ScatterElements", shape, *others, at=at, axis=1, opset=18, **how)
        for shape, at, others in (
            ((3, 4), 0, (np.array([[0, 2], [3, 1], [1, 0]]), normal(3, 2))),
            ((3, 2), 2, (normal(3, 4), np.array([[0, 2], [3, 1], [1, 0]]))),
        )
        for how in ({}, {"reduction": "add"})
    ),
    affine("Scatter", (3, 4), np.array([[0, 2], [3, 1], [1, 0]]), normal(3, 2), axis=1, opset=9),
    *(
        affine("ScatterND", shape, *others, at=at, opset=18, **how)
        for shape, at, others in (
            ((4, 3), 0, (np.array([[0], [2]]), normal(2, 3))),
            ((2, 3), 2, (normal(4, 3), np.array([[0], [2]]))),
        )
        for how in ({}, {"reduction": "add"})
    ),
    affine(
        "ScatterND", (2, 3), normal(4, 3), np.array([[1], [1]]), at=2, opset=18, reduction="add"
    ),
    affine("Trilu", (2, 4, 5)),
    affine("Trilu", (2, 4, 5), np.int64(-1), upper=0),
    affine("ReverseSequence", (4, 3, 2), ints(1, 4, 3)),
    affine("ReverseSequence", (3, 4), ints(1, 4, 3), batch_axis=0, time_axis=1),
    *(
        affine("CumSum", (2, 3, 4), np.int64(axis), exclusive=exclusive, reverse=reverse)
        for axis, exclusive, reverse in ((1, 0, 0), (-1, 1, 0), (2, 0, 1), (2, 1, 1))
    ),
    affine("CenterCropPad", (2, 5, 4), ints(3, 7), axes=[1, 2], opset=18),
    affine("DepthToSpace", (2, 8, 3, 4), blocksize=2),
    affine("DepthToSpace", (2, 8, 3, 4), blocksize=2, mode="CRD"),
    affine("SpaceToDepth", (2, 2, 4, 6), blocksize=2),
    *(
        affine("Resize", (2, 3, 5, 6), *target, mode=mode, **how)
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
    affine("Resize", (2, 3, 5), None, np.array([1, 1, 2], np.float32), mode="linear"),
    *(
        affine("Resize", shape, *target, mode=mode, opset=18, **how)
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
    affine("Resize", (2, 3, 4), None, np.array([2, 1, 1], np.float32), mode="linear"),
    affine("Resize", (2, 3, 5, 6), None, np.array([1.7, 2], "f"), axes=[2, -1], opset=18),
    affine("Resize", (2, 3, 5, 6), None, None, ints(9, 3), axes=[3, 2], opset=18, mode="linear"),
]
HEADS = (2, 3, 4, 6)
ATTENTION = [
    smooth("Attention", HEADS, normal(2, 3, 5, 6), normal(2, 3, 5, 6), opset=23),
    *(smooth("Attention", HEADS, *[normal(*HEADS)] * 2, at=at, opset=23) for at in (1, 2)),
    smooth("Attention", HEADS, normal(*HEADS), normal(*HEADS), is_causal=1, opset=23),
    smooth(
        "Attention",
        *((2, 4, 18), normal(2, 5, 18), normal(2, 5, 18), normal(4, 5)),
        q_num_heads=3,
        kv_num_heads=3,
        opset=23,
    ),
    affine(
        "RotaryEmbedding",
        *(HEADS, above_half(9, 3), above_half(9, 3), np.arange(8).reshape(2, 4)),
        opset=23,
    ),
]
"""Operators that ONNX writes in terms of others."""
OLD = [
    affine("Unsqueeze", (2, 4), axes=[1, 3], opset=11),
    affine("Pad", (2, 3, 4), pads=[0, 1, 2, 0, 0, 1], opset=10),
    affine("Pad", (2, 3, 5), pads=[0, 0, 2, 0, 0, 1], mode="reflect", opset=10),
    affine("Split", (2, 7, 3), split=[2, 4, 1], axis=1, outputs=3, opset=11),
    smooth("TopK", (2, 7), k=3, outputs=2, opset=9),
    smooth("Resize", (2, 3, 4, 5), np.array([1, 1, 2, 0.6], np.float32), opset=10),
    *(affine(op, (3, 4), normal(3, 4), opset=7) for op in ("Sum", "Mean")),
    *(smooth(op, (3, 4), normal(3, 4), opset=7) for op in ("Max", "Min")),
    affine("Upsample", (2, 3, 4, 5), scales=[1.0, 1.0, 2.0, 3.0], opset=7),
    affine("Upsample", (2, 3, 4, 5), np.array([1, 1, 2, 3], np.float32), mode="linear", opset=9),
]
CASES = [*CONV, *POOL, *NORM, *REDUCE, *ELEMENTWISE, *LINALG, *SHAPE, *ATTENTION, *OLD]
CROP = {"coordinate_transformation_mode": "tf_crop_and_resize"}
REFUSED = {
    **{
        affine("AveragePool", IMAGE, kernel_shape=[2, 2], opset=19, **how): "auto_pad with"
        for how in (
            {"auto_pad": "SAME_UPPER", "dilations": [2, 2]},
            {"auto_pad": "SAME_LOWER", "dilations": [2, 1]},
            {"auto_pad": "SAME_UPPER", "strides": [1, 4]},
        )
    },
    affine("BatchNormalization", IMAGE, *[above_half(6)] * 4, training_mode=1): "training mode",
    affine("Dropout", (2, 3), np.float32(0.5), np.array(True)): "training mode",
    affine("Resize", (1, 4), np.zeros(4, "f"), np.array([1, 2], "f"), **CROP): "cropping",
    affine(
        *("Resize", (2, 4), None, None, ints(3, 3)),
        keep_aspect_ratio_policy="not_larger",
        opset=18,
    ): "keep_aspect_ratio_policy",
    affine(
        *("ScatterElements", (2, 3), np.array([[0], [0]]), above_half(2, 1)),
        reduction="mul",
        opset=18,
    ): "reduction=mul",
    smooth("LayerNormalization", (2, 6), normal(6), outputs=2): "an output other than the first",
    affine("OneHot", (3,), ints(4), above_half(2)): "no gradient with respect to input 0",
}

"""The nine classifiers that come with onnx itself: architectures of 2012 to 2017, operator set 9.

Their weights are all the same number, so that they get random ones here, and narrow dense layers
where the files would take half a gigabyte.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from other_gradients import gradient_by_onnx_ad
from whole_models import opened

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
WIDE, NARROW = 4096, 64
EXPECTED = {
    "bvlc_alexnet": ("Relu", (256, 12, 12)),
    "densenet121": ("Relu", (1024, 7, 7)),
    "inception_v1": ("Concat", (1024, 6, 6)),
    "inception_v2": ("Concat", (1024, 7, 7)),
    "resnet50": ("Relu", (2048, 7, 7)),
    "shufflenet": ("Relu", (544, 7, 7)),
    "squeezenet": ("Concat", (512, 13, 13)),
    "vgg19": ("Relu", (512, 14, 14)),
    "zfnet512": ("Relu", (512, 12, 12)),
}
"""The default layer: what makes it, and its channels and sizes."""


def with_weights(name: str) -> onnx.ModelProto:
    """Return the model with random weights that keep activations near one."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    model.ir_version = 8  # from 4 on weights need not be inputs
    rng, nodes = np.random.default_rng(0), list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "ConstantOfShape":
            model.graph.node.append(node)
            continue
        shape = [NARROW if size == WIDE else int(size) for size in shapes[node.input[0]]]
        if len(shape) > 1:
            weight = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            weight = rng.uniform(0.5, 1.5, shape)
        tensor = numpy_helper.from_array(weight.astype(np.float32), node.output[0])
        model.graph.initializer.append(tensor)
    return model


def test_all_of_them_are_here() -> None:
    names = {path.stem.removeprefix("light_") for path in LIGHT.glob("*.onnx")}
    assert names == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_gradients_are_those_of_another_differentiator(name: str) -> None:
    model = with_weights(name)
    backend = opened(model)
    kind, sizes = EXPECTED[name]
    (default,) = [layer for layer in backend.layers() if layer.is_default]
    assert (default.kind, default.shape[1:]) == (kind, sizes)
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    early = backend.layers()[len(backend.layers()) // 2]
    for layer, tolerance in ((default.name, 1e-5), (early.name, 5e-2)):
        capture = backend.capture(x, layer=layer, target=7)
        wanted = gradient_by_onnx_ad(model, capture, x, 7)
        error = np.linalg.norm(capture.gradients - wanted) / np.linalg.norm(wanted)
        assert error < tolerance  # early on, rounding tips a Relu or a maximum now and then

"""The README's Python runs as it stands."""

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from cfcam_onnx._rules import RULES
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import cfcam_core as cfcam
from cfcam_core.demo.run import METHODS, measure, measure_chance
from cfcam_core.demo.shipped import MODEL, load_scenes

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def small_classifier():
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "d": rng.normal(size=(8, 4))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    onnx.save(small_classifier(), "model.onnx")
    cv2.imwrite("photo.jpg", rng.integers(0, 256, (90, 120, 3), np.uint8))
    for name in ("activations", "gradients"):
        np.save(f"{name}.npy", rng.normal(0.1, 1, (32, 7, 7)).astype(np.float32))
    exec(block, own_model())  # noqa: S102 - that is the point


def own_model():
    """Return the names of the first example: a reader's model and batch."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential()
    model.features, model.head = features, head
    return {"model": model, "x": torch.randn(2, 3, 24, 32)}


def test_numbers_are_those_of_the_demo_and_of_the_rules():
    """What depends on the machine, times and ratios, is left to the benchmarks."""
    assert f"| {len(RULES)} operators with a gradient rule |" in README
    scenes, model = load_scenes(), cfcam.open_model(MODEL)
    measured = [
        measure(
            cfcam.explain(
                model, scenes.inputs(), target=scenes.targets(), method=method, settings=settings
            ).heatmaps,
            scenes,
        )
        for _, method, settings in METHODS
    ]
    measured.append(measure_chance(scenes))
    for name in ("right", "box", "pointing"):
        row = " / ".join(f"{getattr(m, name):.2f}".lstrip("0") for m in measured)
        assert f"| {row} |" in README


def test_readme_has_its_blocks_and_is_short():
    assert len(BLOCKS) == 2
    assert len(README.splitlines()) <= 150

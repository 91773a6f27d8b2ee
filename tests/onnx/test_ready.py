"""Models that somebody exported with their activations and gradients among the outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cfcam_onnx import OnnxBackend, ReadyBackend
from exporting import EXPORTERS, quiet
from onnx import TensorProto, helper
from whole_models import CLOSE, images, opened

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, LayerNotFoundError, UnsupportedOpError

pytestmark = pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")

NAMES = {"activations": "maps", "gradients": "slopes"}


@pytest.fixture
def by_hand(net: Any) -> Callable[..., tuple[onnx.ModelProto, onnx.ModelProto]]:
    """Make a plain model, and the same with the gradient of its linear head written out by hand.

    The logit is ``mean(maps) @ W + b``, so its gradient is a row of W over the size of the grid.
    """

    def make(
        *, index: str = "input", last: bool = False, batch: Any = "N", size: Any = (9, 7)
    ) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        n = net(batch, 3, *size)
        maps = n.add("Tanh", n.conv(n.x, 3, 6), name="maps")
        weight = n.normal(6, 5)
        pooled = n.add("Flatten", n.add("GlobalAveragePool", maps))
        n.add("Add", n.add("MatMul", pooled, weight), n.normal(5), name="logits")
        plain = n.model("logits")
        if index == "input":
            n.inputs.append(helper.make_tensor_value_info("index", TensorProto.INT64, [batch]))
        else:
            n.add("ArgMax", "logits", axis=1, keepdims=0, name="index")
        row = n.add("Unsqueeze", n.add("Gather", weight.T.copy(), "index"), np.array([2, 3]))
        share = np.float32(1 / np.prod(size)) if None not in size else None
        row = n.add("Mul", row, share)
        n.add("Expand", row, n.add("Shape", maps), name="slopes")
        if last:
            n.add("Transpose", "maps", perm=[0, 2, 3, 1], name="maps_last")
            n.add("Transpose", "slopes", perm=[0, 2, 3, 1], name="slopes_last")
            return plain, n.model("logits", "maps_last", "slopes_last")
        return plain, n.model("logits", "maps", "slopes")

    return make


def test_the_class_is_chosen_through_the_named_input(by_hand: Any) -> None:
    plain, ready = by_hand()
    backend = opened(ready, **NAMES, scores="logits", class_index="index")
    assert isinstance(backend, ReadyBackend)
    assert (backend.input_names, backend.input_shape) == (("x",), (None, 3, 9, 7))
    original, x = opened(plain), images(4, 3, 9, 7)
    for target in (None, 3, [0, 4, 2, 2], lambda scores: scores.argmin(axis=1)):
        wanted = original.capture(x, layer="maps", target=target)
        found = backend.capture(x, target=target)
        for name in ("activations", "gradients", "scores"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), **CLOSE)
        np.testing.assert_array_equal(found.targets, wanted.targets)
        assert found.input_size == (9, 7)
        explanations = [
            cfcam.explain(model, x, layer="maps", target=target) for model in (backend, original)
        ]
        np.testing.assert_allclose(*(e.heatmaps for e in explanations), atol=1e-5)
    np.testing.assert_allclose(backend.scores(x), original.scores(x), **CLOSE)
    with pytest.raises(InvalidInputError, match="5 classes, 0 to 4"):
        backend.capture(x, target=5)
    with pytest.raises(InvalidInputError, match="coefficients"):
        backend.capture(x, target=lambda scores: scores + 1)


def test_a_class_that_the_file_settles_itself_is_not_guessed(by_hand: Any) -> None:
    plain, ready = by_hand(index="arg-max")
    backend, x = opened(ready, **NAMES, scores="logits"), images(3, 3, 9, 7)
    found = backend.capture(x)
    np.testing.assert_array_equal(found.targets, [-1, -1, -1])
    wanted = opened(plain).capture(x, layer="maps")
    np.testing.assert_allclose(found.gradients, wanted.gradients, **CLOSE)
    for target in (0, [0, 1, 2], lambda scores: 1):
        with pytest.raises(InvalidInputError, match=r"cannot be chosen.*class_index="):
            backend.capture(x, target=target)


def test_scores_need_not_be_named(by_hand: Any) -> None:
    _, ready = by_hand(index="arg-max")
    backend, x = opened(ready, **NAMES), images(2, 3, 9, 7)
    explanation = cfcam.explain(backend, x)
    assert explanation.scores is None
    assert explanation.layer == "maps"
    with pytest.raises(InvalidInputError, match="name it with scores="):
        backend.scores(x)


def test_channels_last_is_said(by_hand: Any) -> None:
    plain, ready = by_hand(last=True)
    backend = opened(
        ready,
        activations="maps_last",
        gradients="slopes_last",
        scores="logits",
        class_index="index",
        channels_last=True,
    )
    x = images(2, 3, 9, 7)
    wanted = opened(plain).capture(x, layer="maps", target=1)
    np.testing.assert_allclose(backend.capture(x, target=1).gradients, wanted.gradients, **CLOSE)
    assert backend.layers()[0].shape == (None, 6, 9, 7)


def test_a_fixed_batch_takes_any_number_of_samples(by_hand: Any) -> None:
    plain, ready = by_hand(batch=2)
    backend = opened(ready, **NAMES, scores="logits", class_index="index")
    x = images(5, 3, 9, 7)
    wanted = opened(plain).capture(x, layer="maps", target=[0, 1, 2, 3, 4])
    found = backend.capture(x, target=[0, 1, 2, 3, 4])
    np.testing.assert_allclose(found.gradients, wanted.gradients, **CLOSE)


def test_a_file_on_disk_and_int32_classes(by_hand: Any, tmp_path: Path) -> None:
    plain, ready = by_hand()
    (index,) = (one for one in ready.graph.input if one.name == "index")
    index.type.tensor_type.elem_type = TensorProto.INT32
    path = tmp_path / "ready.onnx"
    onnx.save(ready, path)
    before = path.read_bytes()
    backend = cfcam.open_model(path, **NAMES, scores="logits", class_index="index")
    x = images(2, 3, 9, 7)
    np.testing.assert_allclose(
        backend.capture(x, target=2).gradients,
        opened(plain).capture(x, layer="maps", target=2).gradients,
        **CLOSE,
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_export_from_torch_with_a_gradient_by_hand(tmp_path: Path, exporter: str) -> None:
    class Ready(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Softplus(), torch.nn.Conv2d(8, 6, 3)
            )
            self.head = torch.nn.Linear(6, 4)

        def forward(self, x: Any) -> Any:
            maps = self.features(x)
            logits = self.head(maps.mean((2, 3)))
            rows = self.head.weight[logits.argmax(1)] / (maps.shape[2] * maps.shape[3])
            return logits, maps, rows[:, :, None, None].expand_as(maps)

    torch.manual_seed(0)
    module, path = Ready().eval(), tmp_path / "ready.onnx"
    how: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}}
    if exporter == "dynamo":
        batch = torch.export.Dim("batch")
        how = {"dynamo": True, "dynamic_shapes": ({0: batch},), "external_data": False}
    names = {"input_names": ["x"], "output_names": ["logits", "maps", "slopes"]}
    with quiet():
        torch.onnx.export(module, (torch.zeros(2, 3, 20, 16),), path, **names, **how)
    x = images(3, 3, 20, 16)
    backend = opened(path, **NAMES, scores="logits")
    maps = module.features(torch.tensor(x)).detach().requires_grad_()
    logits = module.head(maps.mean((2, 3)))
    (slopes,) = torch.autograd.grad(logits.max(1).values.sum(), maps)
    found = backend.capture(x)
    np.testing.assert_allclose(found.activations, maps.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradients, slopes, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.scores, logits.detach(), rtol=1e-4, atol=1e-5)


def test_the_one_layer_and_what_cannot_be_done(by_hand: Any) -> None:
    _, ready = by_hand()
    backend = opened(ready, **NAMES, scores="logits", class_index="index")
    (layer,) = backend.layers()
    assert (layer.name, layer.kind, layer.is_default) == ("maps", "Tanh", True)
    with pytest.raises(LayerNotFoundError, match="'maps' alone"):
        backend.capture(images(1, 3, 9, 7), layer="logits")
    with pytest.raises(UnsupportedOpError, match="open the original"):
        backend.scores_from(images(1, 6, 9, 7), images(1, 3, 9, 7))
    with pytest.raises(InvalidInputError, match="resize or reshape it"):
        cfcam.explain(backend, images(1, 3, 9, 8))


def test_threads_may_share_it(by_hand: Any) -> None:
    _, ready = by_hand()
    backend = opened(ready, **NAMES, scores="logits", class_index="index")
    x = images(2, 3, 9, 7)
    wanted = [backend.capture(x, target=k).gradients for k in range(5)]
    fresh = opened(ready, **NAMES, scores="logits", class_index="index")
    found: dict[int, Any] = {}
    threads = [
        Thread(target=lambda k=k: found.update({k: fresh.capture(x, target=k).gradients}))
        for k in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(5):
        np.testing.assert_array_equal(found[k], wanted[k])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"activations": "maps"}, "name both outputs"),
        ({"gradients": "slopes"}, "name both outputs"),
        ({"scores": "logits"}, "name both outputs"),
        ({"channels_last": True}, "name both outputs"),
        ({**NAMES, "activations": "map"}, r"activations='map' is no output.*maps"),
        ({**NAMES, "gradients": "index"}, r"gradients='index' is no output.*outputs are"),
        ({**NAMES, "gradients": "maps"}, "are both 'maps'"),
        ({**NAMES, "gradients": "logits"}, r"'logits' has shape \(N, 5\); wanted samples"),
        ({**NAMES, "gradients": "small"}, r"\(N, 6, 9, 7\) and gradients 'small' \(N, 6, 4, 3\)"),
        ({**NAMES, "gradients": "count"}, "'count' holds int64; wanted floats"),
        ({**NAMES, "scores": "nope"}, r"scores='nope' is no output"),
        ({**NAMES, "scores": "count"}, "'count' holds int64; wanted floats"),
        ({**NAMES, "scores": "logits", "class_index": "logits"}, "is no input of the model"),
        ({**NAMES, "scores": "logits", "class_index": "x"}, "'x' holds float32; wanted integers"),
        ({**NAMES, "class_index": "index"}, "needs scores="),
        ({**NAMES, "scores": "logits", "class_index": "one"}, r"'one' has shape \(\)"),
        ({**NAMES, "output": "logits"}, "output='logits' cannot be chosen"),
        ({**NAMES, "providers": ["Nope"]}, "no execution provider Nope"),
    ],
)
def test_names_that_do_not_fit(by_hand: Any, names: dict[str, Any], message: str) -> None:
    _, ready = by_hand()
    add, outputs = ready.graph.node.add, ready.graph.output
    add().CopyFrom(
        helper.make_node("MaxPool", ["maps"], ["small"], kernel_shape=[2, 2], strides=[2, 2])
    )
    add().CopyFrom(helper.make_node("Cast", ["maps"], ["count"], to=TensorProto.INT64))
    ready.graph.input.append(helper.make_tensor_value_info("one", TensorProto.INT64, []))
    add().CopyFrom(helper.make_node("Identity", ["one"], ["same"]))
    for name, kind in (("small", 1), ("count", 7), ("same", 7)):
        outputs.append(helper.make_tensor_value_info(name, kind, None))
    with pytest.raises(InvalidInputError, match=message):
        opened(ready, **names)


def test_shapes_that_only_a_run_shows_are_refused_then(net: Any) -> None:
    n = net("N", 3, "H", "W")
    maps = n.add("Tanh", n.x, name="maps")
    n.add("MaxPool", maps, kernel_shape=[2, 2], name="slopes")
    n.add("ReduceMean", maps, axes=[2], keepdims=0, name="wide")
    backend = opened(n.model("maps", "slopes", "wide"), **NAMES)
    with pytest.raises(InvalidInputError, match="must have the same shape"):
        backend.capture(images(2, 3, 8, 6))
    backend = opened(
        n.model("maps", "slopes", "wide"),
        **{**NAMES, "gradients": "maps"} | {"activations": "slopes"},
        scores="wide",
    )
    with pytest.raises(InvalidInputError, match="wanted one number a sample and class"):
        backend.capture(images(2, 3, 8, 6))


def test_gradients_that_are_not_finite_are_refused(net: Any) -> None:
    n = net("N", 3, 8, 6)
    n.add("Tanh", n.x, name="maps")
    n.add("Log", n.x, name="slopes")
    with pytest.raises(InvalidInputError, match="not finite"):
        cfcam.explain(opened(n.model("maps", "slopes"), **NAMES), images(1, 3, 8, 6))


def test_a_plain_model_is_opened_as_before(small: Any) -> None:
    assert isinstance(opened(small()), OnnxBackend)


def test_a_model_of_a_class_alone_is_refused(net: Any) -> None:
    n = net("N", dtype=np.int64)
    logits = n.add("Cast", n.add("Unsqueeze", n.x, np.array([1])), to=TensorProto.FLOAT)
    n.add("Unsqueeze", logits, np.array([2]), name="maps")
    n.add("Neg", "maps", name="slopes")
    model = n.model(logits, "maps", "slopes")
    for info in model.graph.output:
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(InvalidInputError, match="no input but the class"):
        opened(model, **NAMES, scores=logits, class_index="x")

"""Layers by the names that modules had in the framework a model was exported from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
import torch
from cfcam_onnx._layers.scopes import match, module_of, modules
from torch import nn
from whole_models import CLOSE, images, opened

from cfcam_core import LayerNotFoundError

KEY = "pkg.torch.onnx.name_scopes"


def node(name: str = "", output: str = "y", scopes: str | None = None) -> onnx.NodeProto:
    made = onnx.helper.make_node("Relu", ["x"], [output], name=name)
    if scopes is not None:
        made.metadata_props.add(key="namespace", value="other")
        made.metadata_props.add(key=KEY, value=scopes)
    return made


@pytest.mark.parametrize(
    ("made", "module"),
    [
        (node("node_relu_3", scopes="['', 'm', 'm.stages.3', 'relu_3']"), "m.stages.3"),
        (node("node_view", scopes="['', 'view']"), ""),
        (node("node_view", scopes="['view']"), ""),
        (node("/looks/like/Relu", scopes="damaged"), ""),
        (node("/layer4/layer4.1/conv1/Conv"), "layer4.1.conv1"),
        (node("/features/features.3/features.3.1/mlp/mlp.0/MatMul"), "features.3.1.mlp.0"),
        (node("/m/resnet/encoder/stages.3/layers.2/Add"), "m.resnet.encoder.stages.3.layers.2"),
        (node("/layer1/layer10.0/Relu"), "layer1.layer10.0"),
        (node("/Flatten"), ""),
        (node("model/conv5_block3_out/Relu"), "model.conv5_block3_out"),
        (node("", "PartitionedCall/net/conv1/Relu:0"), "PartitionedCall.net.conv1"),
        (node("a/b/Conv2D;c/d/BiasAdd"), "a.b"),
        (node("node_relu", "fire9/concat_1"), "fire9"),
        (node("Relu_17", "301"), ""),
    ],
)
def test_module_of_a_node(made: onnx.NodeProto, module: str) -> None:
    assert module_of(made) == module


TORCH = ["conv1", "layer3", "layer3.0", "layer4", "layer4.0", "layer4.0.relu", "layer4.1"]
WRAPPED = ["m", "m.vit", "m.vit.layers", "m.vit.layers.0", "m.vit.layers.10", "m.vit.layers.9"]
KERAS = ["net_1", "net_1.conv2d_1", "net_1.conv2d_1_1", "net_1.conv2d_1_1.bias", "net_1.out_1"]


@pytest.mark.parametrize(
    ("path", "there", "found"),
    [
        ("layer4", TORCH, ["layer4"]),
        ("model.layer4", TORCH, ["layer4"]),
        ("layer4[1]", TORCH, ["layer4.1"]),
        ("layer4[-1]", TORCH, ["layer4.1"]),
        ("model.layer4[0].relu", TORCH, ["layer4.0.relu"]),
        ("layer4[-2]", TORCH, []),
        ("conv1[-1]", TORCH, []),
        ("ayer4", TORCH, []),
        ("0", TORCH, ["layer3.0", "layer4.0"]),
        ("", TORCH, []),
        ("vit.layers.9", WRAPPED, ["m.vit.layers.9"]),
        ("model.vit.layers[-1]", WRAPPED, ["m.vit.layers.10"]),
        ("a.b.vit.layers.9", WRAPPED, []),
        ("m.vit", ["m.vit", "x.m.vit"], ["m.vit"]),
        ("net_1.conv2d_1", KERAS, ["net_1.conv2d_1"]),
        ("conv2d", KERAS, ["net_1.conv2d_1"]),
        ("conv2d_1", KERAS, ["net_1.conv2d_1", "net_1.conv2d_1_1"]),  # the file's, Keras's
        ("net.out", KERAS, ["net_1.out_1"]),
        ("out", [*KERAS, "head"], []),  # not all are numbered: it is not Keras
    ],
)
def test_which_modules_are_meant(path: str, there: list[str], found: list[str]) -> None:
    assert match(path, there) == found


def test_modules_hold_the_nodes_of_their_parts() -> None:
    nodes = [node(f"/{name}/Relu") for name in ("a/b", "a/c", "a", "d")]
    found = {path: [n.name for n in held] for path, held in modules(nodes).items()}
    assert found == {
        "a": ["/a/b/Relu", "/a/c/Relu", "/a/Relu"],
        "a.b": ["/a/b/Relu"],
        "a.c": ["/a/c/Relu"],
        "d": ["/d/Relu"],
    }


# ------------------------------------------------------------------------------------ whole models


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(x + self.conv(x))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2)
        self.layer3 = nn.Sequential(Block(), Block())
        self.layer4 = nn.Sequential(Block(), nn.Sequential(Block(), nn.Tanh()))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x: Any) -> Any:
        x = self.layer3(self.conv1(x))
        return self.head(self.layer4(x)), self.unused(x)


@pytest.fixture(scope="module", params=["dynamo", "TorchScript"])
def exported(request: Any, tmp_path_factory: Any) -> tuple[nn.Module, cfcam_onnx.OnnxBackend]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Classifier().eval()
    path: Path = tmp_path_factory.mktemp("models") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model,
            (torch.randn(2, 3, 12, 10),),
            path,
            dynamo=request.param == "dynamo",
            verbose=False,
        )
    return model, opened(path)


@pytest.mark.parametrize(
    ("layer", "module"),
    [
        ("conv1", "conv1"),
        ("model.conv1", "conv1"),
        ("layer3", "layer3"),
        ("layer3[0]", "layer3.0"),
        ("layer4.0.relu", "layer4.0.relu"),
        ("model.layer4[-1]", "layer4.1"),
        ("layer4.1.0.conv", "layer4.1.0.conv"),
        ("model.layer4", "layer4"),
    ],
)
def test_a_module_of_a_torch_model(exported: Any, layer: str, module: str) -> None:
    """The oracle is what a hook on the module sees."""
    model, backend = exported
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(module).register_forward_hook(lambda *made: seen.append(made[-1]))
    x = torch.randn(2, 3, 12, 10)
    model(x)
    hook.remove()
    capture = backend.capture(x, layer=layer)
    np.testing.assert_allclose(capture.activations, seen[0].detach(), rtol=1e-4, atol=1e-5)
    assert capture.gradients.any()


def test_layers_say_which_module_makes_them(exported: Any) -> None:
    _, backend = exported
    layers = backend.layers()
    assert layers[0].module == "conv1"
    assert {"layer3.0", "layer3.0.relu", "layer4.1.1"} <= {layer.module for layer in layers}
    (default,) = (layer for layer in layers if layer.is_default)
    assert default.module == "layer4.1.1"
    assert backend.capture(torch.ones(2, 3, 12, 10), layer="layer4").layer == default.name


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("0", r"layer '0' may be any of 4 modules: layer3.0, layer4.0, layer4.1.0, head.0; pass"),
        ("layer4.1.o.conv", "no layer 'layer4.1.o.conv'; the closest names are .*layer4.1.0.conv"),
        ("head.2", r"module 'head.2' makes no map: its last tensor .* of shape \(2, 5\)"),
        ("unused", "the logits do not depend on layer 'unused'"),
    ],
)
def test_a_module_that_is_no_layer(exported: Any, layer: str, message: str) -> None:
    with pytest.raises(LayerNotFoundError, match=message):
        exported[1].capture(torch.ones(2, 3, 12, 10), layer=layer)


def test_the_last_map_of_a_module_counts(net: Any) -> None:
    """What it pools and flattens in the end is no map; tensors and nodes of that name go first."""
    n = net("N", 3, 8, 8)

    def add(op: str, *inputs: Any, name: str, **attrs: Any) -> str:
        made = n.add(op, *inputs, name=name, **attrs)
        n.nodes[-1].name = name
        return str(made)

    n.conv(n.x, 3, 4, name="/body/conv/Conv")
    last = add("Relu", "/body/conv/Conv", name="/body/act/Relu")
    flat = add("Flatten", add("GlobalAveragePool", last, name="/body/Pool"), name="/body/Flatten")
    backend = opened(n.model(n.add("MatMul", flat, n.normal(4, 5))))
    x = images(2, 3, 8, 8)
    assert backend.capture(x, layer="body").layer == last
    assert backend.capture(x, layer="body.act").layer == last
    with pytest.raises(LayerNotFoundError, match="'/body/Flatten' is float32 of shape"):
        backend.capture(x, layer="/body/Flatten")
    n.add("Relu", last, name="body")
    dead = opened(n.model(n.add("MatMul", flat, n.normal(4, 5)), "body"))
    with pytest.raises(LayerNotFoundError, match="do not depend on layer 'body'"):
        dead.capture(x, layer="body")


def test_input_is_the_picture(net: Any) -> None:
    n = net("N", 7, dtype=np.float32)
    picture = n.input("picture", "N", 3, 6, 8)
    pooled = n.add("Flatten", n.add("GlobalAveragePool", n.add("Tanh", n.conv(picture, 3, 7))))
    backend = opened(n.model(n.add("MatMul", n.add("Mul", pooled, n.x), n.normal(7, 5))))
    feeds = {"x": images(2, 7), "picture": images(2, 3, 6, 8)}
    capture = backend.capture(feeds, layer="input", target=1)
    assert capture.layer == "picture"
    assert capture.input_size == (6, 8)
    np.testing.assert_array_equal(capture.activations, feeds["picture"])
    same = backend.capture(feeds, layer="picture", target=1)
    np.testing.assert_array_equal(capture.gradients, same.gradients)
    np.testing.assert_allclose(
        backend.scores_from(capture.activations, feeds, layer="input"), capture.scores, **CLOSE
    )


def test_a_tensor_called_input_goes_first(net: Any) -> None:
    n = net("N", 3, 6, 8)
    a = n.add("Tanh", n.conv(n.x, 3, 4), name="input")
    backend = opened(n.model(n.head(a, 4)))
    assert backend.capture(images(2, 3, 6, 8), layer="input").activations.shape == (2, 4, 6, 8)


def test_input_with_channels_last(net: Any) -> None:
    n = net("N", 6, 8, 3)
    a = n.conv(n.add("Transpose", n.x, perm=[0, 3, 1, 2]), 3, 4)
    backend = opened(n.model(n.head(a, 4)))
    x = images(2, 6, 8, 3)
    capture = backend.capture(x, layer="input")
    assert capture.input_size == (6, 8)
    np.testing.assert_array_equal(capture.activations, x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(
        backend.scores_from(capture.activations, x, layer="input"), capture.scores, **CLOSE
    )

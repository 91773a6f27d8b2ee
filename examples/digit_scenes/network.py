"""The demo's network: a PyTorch module for training, and the same as ONNX, node by node.

Both are read off one table, `BODY`. The ONNX graph is written from the weights with `onnx.helper`
and not by PyTorch's exporters: that needs no further package, the file holds only what stands
here, and equal weights give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

CLASSES = tuple("0123456789")
SIDE = 64
"""Side of the input image in pixels."""
HIDDEN = 64
"""Units between the pooled features and the logits."""
OPSET = 17
IR_VERSION = 8
"""The ONNX file format that belongs to this opset: the oldest runtimes that know it can read it."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A 3 x 3 convolution that keeps the size, then batch normalisation, then ReLU."""

    name: str
    inputs: int
    outputs: int
    dilation: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """Maximum over 2 x 2 pixels."""

    name: str


BODY: tuple[Conv | Pool, ...] = (
    Conv("conv1", 1, 16),
    Pool("pool1"),
    Conv("conv2", 16, 32),
    Conv("conv3", 32, 32),
    Pool("pool2"),
    Conv("conv4", 32, 64),
    Conv("conv5", 64, 64, dilation=2),
    Conv("conv6", 64, 96),
)
"""What makes the 96 maps of 16 x 16 that are explained; a position sees 46 x 46 pixels."""
FEATURES = 96
CELL = 4
"""Side of the cells, in positions of those maps, whose strongest response enters the mean."""


class Network(nn.Module):
    """Body, mean over cells of the strongest response, hidden layer, a logit for each class.

    The head is not linear, so the gradient at the maps differs from position to position, as it
    does in VGG but not behind a mean and one linear layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for stage in BODY:
            self.body.add_module(stage.name, _stage(stage))
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.logits = nn.Linear(HIDDEN, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, 10) of images (N, 1, 64, 64) in [0, 1]."""
        pooled = functional.max_pool2d(self.body(image), CELL).mean(dim=(2, 3))
        return self.logits(torch.relu(self.hidden(pooled)))


def to_onnx(network: Network, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return the network as an ONNX model with dynamic batch, batch normalisation folded in.

    Input ``image`` (N, 1, 64, 64) float32 in [0, 1], output ``logits`` (N, 10): no sigmoid, since
    logits are what is explained, and above 0 means a probability above one half.
    """
    nodes, weights = [], {}
    tensor = "image"
    for stage in BODY:
        module = network.body.get_submodule(stage.name)
        if isinstance(stage, Pool):
            nodes.append(_max_pool(tensor, stage.name, 2))
            tensor = stage.name
            continue
        kernel, bias = f"{stage.name}.weight", f"{stage.name}.bias"
        weights[kernel], weights[bias] = _folded(*module[:2])
        nodes.append(
            helper.make_node(
                "Conv",
                [tensor, kernel, bias],
                [stage.name],
                kernel_shape=[3, 3],
                dilations=[stage.dilation] * 2,
                pads=[stage.dilation] * 4,
            )
        )
        tensor = f"{stage.name}_relu"
        nodes.append(helper.make_node("Relu", [stage.name], [tensor]))

    for layer in ("hidden", "logits"):
        for parameter, values in network.get_submodule(layer).named_parameters():
            weights[f"{layer}.{parameter}"] = values.detach().numpy()
    nodes += [
        _max_pool(tensor, "cells", CELL),
        helper.make_node("GlobalAveragePool", ["cells"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node(
            "Gemm", ["features", "hidden.weight", "hidden.bias"], ["hidden"], transB=1
        ),
        helper.make_node("Relu", ["hidden"], ["hidden_relu"]),
        helper.make_node(
            "Gemm", ["hidden_relu", "logits.weight", "logits.bias"], ["logits"], transB=1
        ),
    ]
    for node in nodes:
        node.name = node.output[0]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(CLASSES)])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cfcam",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _max_pool(source: str, name: str, side: int) -> onnx.NodeProto:
    return helper.make_node(
        "MaxPool", [source], [name], kernel_shape=[side, side], strides=[side, side]
    )


def _stage(stage: Conv | Pool) -> nn.Module:
    if isinstance(stage, Pool):
        return nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(
            stage.inputs,
            stage.outputs,
            3,
            padding=stage.dilation,
            dilation=stage.dilation,
            bias=False,
        ),
        nn.BatchNorm2d(stage.outputs),
        nn.ReLU(),
    )


def _folded(
    conv: nn.Conv2d, norm: nn.BatchNorm2d
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel and bias of the one convolution that equals `conv` followed by `norm`."""
    scale, shift, mean, variance, kernel = (
        values.detach().double().numpy()
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var, conv.weight)
    )
    factor = scale / np.sqrt(variance + norm.eps)
    return (
        (kernel * factor[:, None, None, None]).astype(np.float32),
        (shift - mean * factor).astype(np.float32),
    )

"""The pretrained networks of the benchmarks, opened for pictures of any size."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
from numpy.typing import NDArray

import cfcam_core as cfcam
from cfcam_core.demo.shipped import MODEL


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network, two of its layers, and how pixels become its input."""

    name: str
    backend: cfcam.Backend
    layers: Mapping[str, str | None]
    """``last``, the one that cfcam takes when none is named, and ``inner``."""
    side: int
    """Of a picture, or of a cell of a mosaic."""
    scaled: Callable[[NDArray[Any]], NDArray[Any]]
    """From pixels (N, H, W, 3) in [0, 255], or (N, H, W), to what the network takes."""

    def prepare(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return pixels (N, H, W, 3) or (N, H, W) as the network's batch."""
        values = np.asarray(self.scaled(pixels.astype(np.float64)), np.float32)
        if getattr(self.backend, "input_layout", "channels_first") == "channels_last":
            return values
        return np.ascontiguousarray(
            values[:, None] if values.ndim == 3 else np.moveaxis(values, -1, 1)
        )


@cache
def network(name: str) -> Network:
    """Open a network of `NETWORKS`, on one thread."""
    return NETWORKS[name](name)


def digits(name: str) -> Network:
    """Return the demo's network."""
    opened = cfcam_onnx.open_model(MODEL, threads=1)
    return Network(name, opened, {"last": None, "inner": "conv4_relu"}, 64, lambda x: x / 255)


def mobilenet(name: str) -> Network:
    """Return MobileNetV2."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mobilenet_v2.onnx"
        weights = data() / "models/mobilenet_v2_imagenet_int8.npz"
        loader("mobilenet_v2").build_onnx(weights, path)
        opened = open_any_size(onnx.load(path))
    return Network(name, opened, {"last": None, "inner": "b11.add"}, 224, lambda x: x / 127.5 - 1)


def squeezenet(name: str) -> Network:
    """Return SqueezeNet 1.1, its weights in float32."""
    opened = open_any_size(onnx.load(data() / "models/squeezenet1_1_fp16.onnx"))
    mean = np.array([103.939, 116.779, 123.68])
    layers = {"last": None, "inner": "fire5/concat_1"}
    return Network(name, opened, layers, 224, lambda x: x[..., ::-1] - mean)


def resnet(name: str) -> Network:
    """Return ResNet-20 for CIFAR-10."""
    import torch

    torch.set_num_threads(1)
    model = loader("resnet_cifar").load(data() / "models/resnet20-12fca82f.th", 20)
    mean, std = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])
    layers = {"last": None, "inner": "layer2"}
    return Network(name, cfcam.open_model(model), layers, 32, lambda x: (x - mean) / std)


def person_detector(name: str) -> Network:
    """Return the Visual Wake Words model of MLPerf Tiny."""
    import keras

    model = keras.models.load_model(data() / "models/vww_96.keras", compile=False)
    layers = {"last": None, "inner": "activation_22"}
    return Network(name, cfcam.open_model(model), layers, 96, lambda x: x / 255)


NETWORKS: dict[str, Callable[[str], Network]] = {
    "digits": digits,
    "MobileNetV2": mobilenet,
    "SqueezeNet": squeezenet,
    "ResNet-20": resnet,
    "VWW": person_detector,
}


def data() -> Path:
    """Return the folder of models and photographs, ``CFCAM_TEST_DATA``."""
    return Path(os.environ["CFCAM_TEST_DATA"])


def loader(name: str) -> Any:
    """Import one of the modules that come with the weights."""
    spec = importlib.util.spec_from_file_location(name, data() / "loaders" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_any_size(model: onnx.ModelProto) -> cfcam.Backend:
    """Free batch, height and width of a model whose graph does not depend on them; use float32."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            single = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(single, tensor.name))
    weights = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT16:
            kind.elem_type = onnx.TensorProto.FLOAT
        if value.name not in weights and len(kind.shape.dim) == 4:
            for axis, name in ((0, "N"), (2, "H"), (3, "W")):
                kind.shape.dim[axis].dim_param = f"{value.name}_{name}"
    del graph.value_info[:]
    return cfcam_onnx.open_model(model, threads=1)

"""What PyTorch's two exporters write of whole architectures, against autograd on equal weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
import torch
from exporting import EXPORTERS, Reference, errors, export, like_capture, reference
from zoo import ZOO, Net, make

TARGETS = [3, 7]


@dataclass(frozen=True, eq=False)
class Exported:
    net: Net
    backend: cfcam_onnx.OnnxBackend

    def capture(self, layer: str | None) -> Any:
        return self.backend.capture(self.net.x.numpy(), layer=layer, target=TARGETS)


def known(net: Net, layer: str) -> Reference:
    """Return what PyTorch says, once it is clear that there is something to compare."""
    found = reference(net.model, net.x, layer, TARGETS)
    assert 1e-4 < found.gradients.std() < 1
    assert 0.1 < found.activations.std() < 100
    assert (found.gradients != 0).mean() > 0.02
    return found


def opened(net: Net, path: Path, exporter: str) -> Exported:
    export(net.model, net.x, path, exporter)
    return Exported(net, cfcam_onnx.open_model(path, threads=1))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small nets gain nothing from threads, and lose much where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[(n, e) for n in ZOO for e in EXPORTERS], ids="-".join)
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, exporter = request.param
    path = tmp_path_factory.mktemp(name) / "net.onnx"
    return opened(make(name, small=True), path, exporter)


def test_default_layer(exported: Exported) -> None:
    capture = exported.capture(None)
    wanted = known(exported.net, exported.net.last)
    shape = capture.activations.shape
    activations = like_capture(wanted.activations, shape)
    assert errors(capture.activations, activations).largest < 1e-4, f"{capture.layer} is another"
    np.testing.assert_allclose(capture.scores, wanted.scores, rtol=1e-4, atol=1e-4)
    assert errors(capture.gradients, like_capture(wanted.gradients, shape)).largest < 1e-5


def test_early_layer_by_module_path(exported: Exported) -> None:
    """Behind an early layer rounding can move a unit across its kink, in PyTorch as well."""
    net = exported.net
    capture = exported.capture(net.early)
    wanted = known(net, net.early)
    shape = capture.activations.shape
    assert errors(capture.activations, like_capture(wanted.activations, shape)).largest < 1e-5
    found = errors(capture.gradients, like_capture(wanted.gradients, shape))
    if net.smooth:
        assert found.largest < 1e-5, found
    else:
        assert found.l2 < 0.05, found
        assert found.cosine > 0.999, found


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "convnext_t", "vit_s"])
def test_half_precision(name: str, exporter: str, tmp_path: Path) -> None:
    net = make(name, small=True)
    wanted = [known(net, path) for path in (net.last, net.early)]
    half = Net(net.model.half(), net.x.half(), net.last, net.early, net.smooth)
    case = opened(half, tmp_path / "half.onnx", exporter)
    assert case.backend.input_dtype == np.float16
    for layer, each in zip((None, net.early), wanted, strict=True):
        capture = case.backend.capture(net.x.numpy(), layer=layer, target=TARGETS)
        assert capture.gradients.dtype == np.float32
        gradients = like_capture(each.gradients, capture.gradients.shape)
        assert errors(capture.gradients, gradients).cosine > 0.99


def test_long_notes_of_an_exporter_are_no_names(tmp_path: Path) -> None:
    """The newer exporter writes a line a weight into one entry of the metadata."""
    path, net = tmp_path / "net.onnx", make("vgg16", small=True)
    export(net.model, net.x, path, "legacy")
    model = onnx.load(path)
    model.graph.metadata_props.add(key="signature", value="a line a weight\n" * 10_000)
    assert cfcam_onnx.open_model(model, threads=1).capture(net.x.numpy()).scores.shape == (2, 10)


def test_weights_are_the_same_every_time() -> None:
    a, b = make("mobilenet_v3", small=True), make("mobilenet_v3", small=True)
    other = make("mobilenet_v3", small=True, seed=1)
    with torch.no_grad():
        assert torch.equal(a.model(a.x), b.model(b.x))
        assert not torch.equal(a.model(a.x), other.model(a.x))

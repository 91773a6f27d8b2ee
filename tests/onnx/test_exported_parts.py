"""What PyTorch's exporters write of single operations, in several operator sets."""

from __future__ import annotations

from pathlib import Path

import cfcam_onnx
import numpy as np
import pytest
import torch
from exporting import errors, export, reference
from net_parts import PARTS, Tail, Transformer


@pytest.mark.parametrize(
    ("exporter", "opset"), [("legacy", 13), ("legacy", 17), ("legacy", 20), ("dynamo", None)]
)
@pytest.mark.parametrize("name", PARTS)
def test_gradient_of_an_exported_part(
    name: str, exporter: str, opset: int | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    body, features = PARTS[name]
    model = Tail(body, features).eval()
    export(model, torch.randn(2, 3, 6, 6), tmp_path / "net.onnx", exporter, opset)
    backend = cfcam_onnx.open_model(tmp_path / "net.onnx", threads=1)
    layer = next(one.name for one in backend.layers() if one.kind == "Tanh")
    for samples in (1, 5):
        x = torch.randn(samples, 3, 6, 6)
        wanted = reference(model, x, "stem", [2] * samples)
        capture = backend.capture(x, layer=layer, target=2)
        np.testing.assert_allclose(capture.scores, wanted.scores, rtol=1e-4, atol=1e-5)
        assert errors(capture.gradients, wanted.gradients).largest < 2e-5


@pytest.mark.parametrize(("picks", "start"), [(True, "/blocks/blocks.1/Add"), (False, "/norm/")])
@pytest.mark.parametrize("opset", [11, 14, 17])
def test_default_layer_of_a_transformer(
    *, picks: bool, start: str, opset: int, tmp_path: Path
) -> None:
    """With a class token the last block's patches have no gradient: the block before is taken.

    Before operator set 17 the means of a LayerNormalization are written out.
    """
    torch.manual_seed(0)
    model = Transformer(picks=picks).eval()
    export(model, torch.randn(2, 3, 16, 12), tmp_path / "net.onnx", "legacy", opset)
    backend = cfcam_onnx.open_model(tmp_path / "net.onnx", threads=1)
    capture = backend.capture(torch.randn(3, 3, 16, 12))
    assert capture.layer.startswith(start)
    # channels first; 12 patches and the class token, or the patches alone on their grid
    assert capture.gradients.shape in {(3, 8, 13), (3, 8, 4, 3)}
    assert np.abs(capture.gradients).sum(axis=1).min() > 1e-6

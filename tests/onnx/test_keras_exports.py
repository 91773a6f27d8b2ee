"""What Keras's own export and tf2onnx write, channels last, against TensorFlow's gradients."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import pytest
from exporting import errors, like_capture

SCRIPT = Path(__file__).parents[1] / "helpers" / "keras_zoo.py"
NAMES = ("MobileNetV2", "ResNet50", "EfficientNetB0")
SMOOTH = {"EfficientNetB0"}
EXPORTERS = ("keras", "tf2onnx")
SIDE = 128


@dataclass(frozen=True, eq=False)
class Written:
    name: str
    reference: dict[str, np.ndarray]
    backends: dict[str, cfcam_onnx.OnnxBackend]


@pytest.fixture(scope="module", params=NAMES)
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Export in another process: TensorFlow warns, and the ONNX path must do without it."""
    name, folder = request.param, tmp_path_factory.mktemp("keras")
    command = [sys.executable, SCRIPT, name, folder, "--side", str(SIDE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    with np.load(folder / f"{name}.npz") as arrays:
        found = dict(arrays)
    files = {exporter: folder / f"{name}-{exporter}.onnx" for exporter in EXPORTERS}
    return Written(
        name, found, {e: cfcam_onnx.open_model(path, threads=1) for e, path in files.items()}
    )


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_channels_are_last_and_the_soft_max_is_looked_through(
    written: Written, exporter: str
) -> None:
    backend = written.backends[exporter]
    assert backend.input_shape == (None, SIDE, SIDE, 3)
    assert backend.input_layout == "channels_last"
    assert backend.logits_behind == ("Softmax",)
    assert backend.classes == 1000


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_gradients(written: Written, exporter: str) -> None:
    backend, known = written.backends[exporter], written.reference
    for label, layer in (("last", None), ("early", known["layers"][1].item())):
        capture = backend.capture(known["x"], layer=layer, target=[3, 7])
        shape = capture.activations.shape
        activations, gradients = (
            like_capture(known[f"{label}_{kind}"], shape) for kind in ("activations", "gradients")
        )
        np.testing.assert_allclose(capture.scores, known["last_scores"], rtol=1e-3, atol=1e-3)
        assert gradients.std() > 1e-5
        assert errors(capture.activations, activations).l2 < 1e-4, capture.layer
        found = errors(capture.gradients, gradients)
        if label == "last" or written.name in SMOOTH:
            assert found.largest < 1e-5, found
        else:
            assert found.l2 < 0.1, found
            assert found.cosine > 0.99, found

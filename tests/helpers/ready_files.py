"""Explain-ready files as others see them, and beside the model that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from cfcam_onnx._ready.format import CLASS_INDEX
from whole_models import CLOSE

import cfcam_core as cfcam


class Runtime:
    """A file in plain onnxruntime, without anything of cfcam."""

    def __init__(self, path: Path) -> None:
        onnx.checker.check_model(str(path), full_check=True)
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = {one.name: one.type for one in self.session.get_inputs()}
        self.outputs = [one.name for one in self.session.get_outputs()]

    def __call__(self, x: Any, classes: Any) -> dict[str, np.ndarray]:
        names = [name for name in self.inputs if name != CLASS_INDEX]
        feeds = x if isinstance(x, dict) else {names[0]: x}
        feeds = {**feeds, CLASS_INDEX: np.asarray(classes, np.int64)}
        return dict(zip(self.outputs, self.session.run(None, feeds), strict=True))


def same(original: Any, path: Path, x: Any, layer: Any = None, **how: Any) -> Any:
    """Return the file's explanation, which must be the original's."""
    kinds = {"method": "hires-cam", **how}
    wanted = cfcam.explain(original, x, layer=layer, **kinds)
    found = cfcam.explain(path, x, **kinds)
    for name in ("heatmaps", "maps", "weights", "scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), **CLOSE)
    np.testing.assert_array_equal(found.targets, wanted.targets)
    assert (found.layer, found.status) == (wanted.layer, wanted.status)
    return found

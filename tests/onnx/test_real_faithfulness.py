"""Measures of faithfulness on photographs: a map that means something beats one that does not."""

import json

import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core import evaluation
from cfcam_core.images import ModelInput, prepare, read_image

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def maps(real_data):
    """Return SqueezeNet, six photographs, Grad-CAM's maps of them, and those maps mirrored."""
    model = cfcam.open_model(real_data / "models/squeezenet1_1_fp16.onnx")
    wanted = ModelInput.of(model)
    items = json.loads((real_data / "MANIFEST.json").read_text())["images"]
    files = [item["file"] for item in items if item["imagenet_ok"]][:6]
    batch = np.concatenate(
        [prepare(read_image(real_data / file), wanted, "caffe") for file in files]
    )
    found = cfcam.explain(model, batch, method="grad-cam")
    return model, batch, found, found.heatmaps[:, ::-1, ::-1]


MEASURES = {
    "deletion": lambda *of: 1 - evaluation.deletion(*of, steps=10).auc,
    "insertion": lambda *of: evaluation.insertion(*of, steps=10).auc,
    "road": lambda *of: evaluation.road(*of, percentages=[20, 50]),
    "average drop": lambda *of: -evaluation.average_drop(*of),
    "keep minus delete": evaluation.keep_minus_delete,
}


@pytest.mark.parametrize("name", MEASURES)
def test_grad_cam_beats_its_own_maps_turned_upside_down(name, maps):
    model, batch, found, turned = maps
    right, wrong = (MEASURES[name](model, batch, each) for each in (found, turned))
    assert np.isfinite(right).all()
    assert right.mean() > wrong.mean() + 0.03

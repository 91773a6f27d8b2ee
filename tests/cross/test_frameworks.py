"""The same weights give the same map in PyTorch, Keras and ONNX: pretrained nets, photographs.

Where the gradient itself jumps, at a ReLU's kink that rounding crosses, no two frameworks agree and
no method can: that is told apart from what the methods do with equal gradients.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
import pytest
from frameworks import NETWORKS, at, difference

SCRIPT = Path(frameworks.__file__)

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:the map of sample")]

SAME = 1e-4
"""What is promised, of heatmaps in [0, 1] and of maps as a share of their peak."""

KINKED = ("MobileNetV2", "block 13")
"""Behind this layer stand 345,000 units with two kinks each. On two of 30 photographs PyTorch and
Keras differ; on each of the two, and on no other, one unit stands on either side of its kink."""

PAIRS = [
    (name, layer, *pair)
    for name, network in NETWORKS.items()
    for layer, names in network.layers.items()
    for pair in combinations(names, 2)
]
SMOOTH = [pair for pair in PAIRS if pair[:2] != KINKED]
LAST = [pair for pair in PAIRS if pair[1] == "last"]

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def found(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Explain everything everywhere; TensorFlow in a process of its own, meanwhile PyTorch."""
    folder = tmp_path_factory.mktemp("frameworks")
    with subprocess.Popen(
        [sys.executable, SCRIPT, "keras", real_data, folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as keras:
        said = frameworks.explained("torch", real_data, folder)
        _, errors = keras.communicate()
    assert not keras.returncode, errors
    with np.load(folder / "keras.npz") as arrays:
        said.update(arrays)
    return said | frameworks.explained("onnx", real_data, folder)


def two(found: Found, name: str, layer: str, one: str, other: str) -> tuple[Found, Found]:
    return at(found, f"{name}/{one}/{layer}"), at(found, f"{name}/{other}/{layer}")


def pairs(which: list[Any]) -> Any:
    return pytest.mark.parametrize("pair", which, ids=" ".join)


@pairs(PAIRS)
def test_layers_and_targets(found: Found, pair: Any) -> None:
    """The default is the same tensor everywhere; so are named layers, scores and targets."""
    a, b = two(found, *pair)
    for field in ("activations", "scores"):
        ours, theirs = a[f"capture/{field}"], b[f"capture/{field}"]
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=SAME * np.abs(theirs).max())
    np.testing.assert_array_equal(a["capture/targets"], b["capture/targets"])


@pairs(SMOOTH)
@pytest.mark.parametrize("variant", ["default", "grad-cam", "hires-cam"])
def test_maps(found: Found, variant: str, pair: Any) -> None:
    a, b = two(found, *pair)
    assert np.ptp(b[f"{variant}/maps"], axis=(1, 2)).all()
    apart = difference(a, b, variant)
    assert apart.heatmaps.max() <= SAME
    assert apart.maps.max() <= SAME
    assert apart.labels is None or not apart.labels.any()


@pairs(LAST)
def test_public_code(found: Found, pair: Any) -> None:
    """Its radius is a distance between two channels: where rounding moves a third across, one label
    changes, in that code as here. Elsewhere the maps are the same."""
    apart = difference(*two(found, *pair), "reference")
    assert apart.labels is not None
    same = apart.labels == 0
    assert same.mean() >= 0.75
    assert apart.labels.max() <= 2
    assert apart.maps[same].max() <= SAME
    assert apart.heatmaps[same].max() <= SAME
    assert apart.maps.max() <= 1e-2


@pairs([pair for pair in PAIRS if pair[:2] == KINKED])
@pytest.mark.parametrize("variant", ["default", "grad-cam", "hires-cam"])
def test_where_gradients_jump(found: Found, variant: str, pair: Any) -> None:
    """A unit within rounding of its kink lets the gradient through in one framework only."""
    apart = difference(*two(found, *pair), variant)
    smooth = apart.gradients <= 1e-5
    assert smooth.mean() >= 0.75
    assert apart.heatmaps[smooth].max() <= SAME
    assert apart.maps[smooth].max() <= SAME
    assert apart.labels is None or not apart.labels.any()

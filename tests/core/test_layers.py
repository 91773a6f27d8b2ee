"""What users call layers, and which one is meant if they name none."""

import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core.backend import Layer
from cfcam_core.layers import find_default, find_layer, is_bottleneck, unknown_layer

LAYERS = [Layer(name, (None, 8, 4, 4), "Conv", name == "b") for name in "abc"]


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [(None, "b"), (0, "a"), (-1, "c"), (np.int64(2), "c"), (LAYERS[0], "a"), ("other", "other")],
)
def test_ways_to_name_a_layer(layer, wanted):
    assert find_layer(layer, LAYERS) == wanted


@pytest.mark.parametrize(
    ("layer", "said"),
    [(3, "3 is out of range.* 3 layers, 0 to 2"), (True, "bool"), (1.0, "float"), (b"a", "bytes")],
)
def test_what_names_no_layer(layer, said):
    with pytest.raises(cfcam.LayerNotFoundError, match=said):
        find_layer(layer, LAYERS)


def test_layers_of_the_framework():
    parts = {"a": object(), "inner": object()}
    assert find_layer(parts["inner"], LAYERS, parts=parts) == "inner"
    assert find_layer(1, LAYERS, parts=parts) == "b"
    with pytest.raises(cfcam.LayerNotFoundError, match="one of the model's own layers"):
        find_layer(object(), LAYERS, parts=parts)


def test_names_that_there_are():
    assert find_layer("inner", LAYERS, names=["inner"]) == "inner"
    with pytest.raises(cfcam.LayerNotFoundError, match=r"no layer .iner.; the closest.* inner"):
        find_layer("iner", LAYERS, names=["inner"])


def test_no_default():
    with pytest.raises(cfcam.LayerNotFoundError, match="no layer with a spatial grid"):
        find_layer(None, LAYERS[:1])
    with pytest.raises(cfcam.LayerNotFoundError, match=r"0 layers$"):
        find_layer(0, [])


def test_names_that_are_close():
    names = [f"block_{i}.conv" for i in range(9)]
    assert "block_3.conv" in str(unknown_layer("block3.conv", names))
    assert "block_8.conv" in str(unknown_layer("nothing like it", names))
    assert "(none)" in str(unknown_layer("a", []))


def chosen(*maps, axes=2):
    """Each map is its spatial shape, the channels with a gradient, and whether it is a cut."""
    asked = []

    def gradient(i):
        asked.append(i)
        found = np.zeros((1, 9, *maps[i][0]), np.float32)
        found[:, : max(maps[i][1], 0)] = 1
        return found if maps[i][1] else None

    shapes = [(1, 9, *shape) for shape, *_ in maps]
    return find_default(shapes, axes=axes, gradient=gradient, is_cut=lambda i: maps[i][2]), asked


def test_the_last_map_that_shows_where():
    fine, coarse, single = ((8, 8), 9, True), ((2, 2), 9, True), ((8, 8), 1, True)
    assert chosen(fine, fine) == (1, [1])  # the rest is not even looked at
    assert chosen(fine, coarse)[0] == 0
    assert chosen(coarse, ((1, 5), 9, True))[0] == 0
    assert chosen(fine, ((8, 8), 9, False))[0] == 0  # something goes past it
    assert chosen(fine, ((8, 8), 0, True))[0] == 0  # a class token reads nothing of it
    assert chosen(fine, single)[0] == 0  # the map of one class
    assert chosen(single)[0] == 0
    assert chosen(fine, ((64,), 9, True))[0] == 0  # tokens in a row
    assert chosen(((64,), 9, True), axes=1)[0] == 0
    assert chosen(((8, 8), 9, False))[0] is None
    dead = ((8, 8), -1, True)  # there is a gradient, and it is zero
    assert chosen(fine, dead)[0] == 0
    assert chosen(dead, dead)[0] == 1
    assert chosen()[0] is None


def test_a_bottleneck_by_trial():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 3, 10))
    assert is_bottleneck(other + 1e-7, own, other)
    assert not is_bottleneck(own, own, other)
    assert not is_bottleneck(0.9 * other + 0.1 * own, own, other)
    assert is_bottleneck(own, own, own)

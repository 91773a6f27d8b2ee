"""Inputs: arrays and tensors, one or several, batched or not, right and wrong; targets."""

from __future__ import annotations

import re
from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_nets import agree, batch, by_halves, chain, mean, of_halves, same

from cfcam_core import InvalidInputError, explain
from cfcam_core.images import ModelInput

# ------------------------------------------------------------------------------- a single input


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_batch_gives_what_its_samples_give(axes: int) -> None:
    model, x = chain(axes, nn.Tanh), batch(axes, samples=3)
    backend = cfcam_torch.open_model(model)
    together = backend.capture(x, layer="inner")
    for i in range(3):
        for one in (x[i : i + 1], x[i], x[i].numpy()):  # also without the batch axis
            alone = backend.capture(one, layer="inner")
            np.testing.assert_allclose(alone.scores[0], together.scores[i], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(
                alone.gradients[0], together.gradients[i], rtol=1e-4, atol=1e-7
            )


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5), st.sampled_from(["stem", "bend3", "input"])
)
def test_samples_of_a_batch_do_not_touch(classes: list[int], layer: str) -> None:
    torch.manual_seed(len(classes))
    model, x = chain(1, nn.ReLU), batch(1, samples=len(classes))
    backend = cfcam_torch.open_model(model)
    together = backend.capture(x, layer=layer, target=classes)
    for i, wanted in enumerate(classes):
        alone = backend.capture(x[i : i + 1], layer=layer, target=wanted)
        np.testing.assert_allclose(alone.gradients[0], together.gradients[i], rtol=1e-4, atol=1e-7)
        assert alone.targets[0] == together.targets[i] == wanted


@pytest.mark.parametrize("size", [(12, 17), (17, 12), (20, 20), (9, 30)])
def test_sizes_may_change_from_call_to_call(size: tuple[int, int]) -> None:
    model = chain(2, nn.Tanh)
    backend = cfcam_torch.open_model(model)
    backend.capture(batch())
    x = torch.randn(2, 3, *size)
    agree(backend.capture(x), by_halves(model, "bend3", x))
    assert backend.capture(x).input_size == size


def test_single_samples_of_a_model_that_takes_them_as_they_are() -> None:
    """A first sample without batch axis before anything else is known of the model."""
    model, x = chain(), batch()
    capture = cfcam_torch.open_model(model).capture(x[0])
    agree(capture, by_halves(model, "bend3", x[:1]))
    assert explain(model, x[0]).heatmaps.shape == (1, 12, 17)


def test_a_model_that_needs_two_samples() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x: Any) -> Any:
            if len(x) % 2:
                raise ValueError(f"pairs are wanted, {len(x)} came")
            return self.net(x)

    model, x = Pairs().eval(), batch(samples=4)
    agree(cfcam_torch.open_model(model).capture(x), by_halves(model.net, "bend3", x))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    backend, x = cfcam_torch.open_model(chain()), batch()
    x[1, 2, 3, 4] = value
    for given_x in (x, x.numpy()):
        for call in (backend.capture, backend.scores):
            with pytest.raises(InvalidInputError, match=r"finite|NaN|inf"):
                call(given_x)


@pytest.mark.parametrize(
    "shape",
    [(2, 4, 12, 17), (2, 12, 17, 3), (2, 3, 12), (3,), (0, 3, 12, 17), (2, 3, 1, 2, 12, 17)],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    backend = cfcam_torch.open_model(chain())
    shown = "|".join(map(re.escape, [repr(shape), repr((1, *shape))]))
    for call in (backend.capture, backend.scores):
        with pytest.raises(InvalidInputError, match=shown):
            call(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "x", ["photo.jpg", None, 3, object(), np.array(["a", "b"]), np.array([None]), [], {}, ()]
)
def test_what_is_no_input(x: Any) -> None:
    backend = cfcam_torch.open_model(chain())
    with pytest.raises(InvalidInputError):
        backend.capture(x)


def test_an_error_inside_the_model_is_told_with_the_shape() -> None:
    class Fails(nn.Module):
        def forward(self, x: Any) -> Any:
            raise RuntimeError("the moon is in the wrong house")

    with pytest.raises(
        InvalidInputError, match=r"(?s)\(2, 3, 12, 17\).*the moon|the moon.*\(2, 3"
    ) as caught:
        cfcam_torch.open_model(nn.Sequential(chain()[:4], Fails())).capture(batch())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_picture_with_its_channels_last_is_advised_on() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, picture: Any) -> Any:
            return self.net(picture)

    turned, advice = batch().permute(0, 2, 3, 1), r"transpose it with axes \(0, 3, 1, 2\)$"
    for model, came in (
        (chain(), r"inputs input: \(2, 12, 17, 3\): "),
        (Named(), r"inputs picture: \(2, "),
    ):
        with pytest.raises(InvalidInputError, match=rf"(?s){came}.*{advice}"):
            cfcam_torch.open_model(model).capture(turned)
    with pytest.raises(InvalidInputError, match="fails on inputs") as caught:
        cfcam_torch.open_model(chain()).capture(batch()[:, :2])
    assert "transpose" not in str(caught.value)


def test_the_only_size_that_a_model_takes_is_found_out() -> None:
    def net(*, side: int) -> nn.Module:
        trunk = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
        return nn.Sequential(trunk, nn.ReLU(), nn.Flatten(), nn.Linear(4 * (side // 4) ** 2, 5))

    backend = cfcam_torch.open_model(net(side=64).train())
    assert backend.input_shape == (None, 3, 64, 64)
    assert ModelInput.of(backend).size == (64, 64)
    assert backend.layers()
    assert backend.input_shape == (None, 3, 64, 64)
    assert cfcam_torch.open_model(net(side=224)).input_shape == (
        None,
        3,
        None,
        None,
    )  # the likeliest
    assert cfcam_torch.open_model(net(side=40)).input_shape == (None, 3, None, None)
    assert cfcam_torch.open_model(chain()).input_shape == (None, 3, None, None)


def test_what_is_known_of_the_input() -> None:
    backend = cfcam_torch.open_model(chain(), example=batch())
    assert backend.input_layout == "channels_first"
    assert backend.input_dtype == np.float32
    assert len(backend.input_names) == 1
    assert backend.classes == 5
    assert backend.input_shape[1] == 3
    assert cfcam_torch.open_model(chain().half(), example=batch()).input_dtype == np.float16


# -------------------------------------------------------------------------------- several inputs


class Both(nn.Module):
    """A picture and a row of words; each by name, by place, with defaults between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.words, self.dense = nn.Embedding(20, 8), nn.Linear(8, 5)

    def forward(self, picture: Any, words: Any, *, scale: float = 1.0) -> Any:
        return self.back(self.inner(self.stem(picture).tanh()) * scale, words)

    def back(self, x: Any, words: Any) -> Any:
        return self.dense(mean(x.tanh()) * self.words(words).mean(1))


@pytest.mark.parametrize("kind", ["dict", "tuple", "list", "swapped dict"])
@pytest.mark.parametrize("arrays", [True, False])
def test_several_inputs(kind: str, *, arrays: bool) -> None:
    model, x, words = Both().eval(), batch(), torch.randint(20, (2, 4))
    one, two = (x.numpy(), words.numpy()) if arrays else (x, words)
    given_x: Any = {
        "dict": {"picture": one, "words": two},
        "swapped dict": {"words": two, "picture": one},
        "tuple": (one, two),
        "list": [one, two],
    }[kind]
    backend = cfcam_torch.open_model(model)
    truth = of_halves(
        lambda x: model.inner(model.stem(x).tanh()), lambda h: model.back(h, words), x, [3, 0]
    )
    agree(backend.capture(given_x, layer="inner", target=[3, 0]), truth)
    agree(backend.capture(given_x, target=[3, 0]), truth)
    assert backend.capture(given_x).input_size == (12, 17)
    assert backend.capture(given_x, layer="input").activations.shape == x.shape
    zeros = np.zeros((2, 8, 8, 13), np.float32)
    np.testing.assert_allclose(
        backend.scores_from(zeros, given_x, layer="inner"),
        model.back(torch.tensor(zeros), words).detach(),
        rtol=1e-5,
        atol=1e-6,
    )
    assert "inner" in [layer.name for layer in backend.layers()]
    assert explain(model, given_x).heatmaps.shape == (2, 12, 17)


def test_what_processors_return() -> None:
    """Mappings of transformers go into its models as they are."""
    from token_nets import make_transformer
    from transformers import BatchFeature

    model, x = make_transformer("ViT"), torch.randn(2, 3, 64, 64)
    backend = cfcam_torch.open_model(model)
    wanted = backend.capture(x)
    for given_x in (BatchFeature({"pixel_values": x}), {"pixel_values": x.numpy()}, (x,), [x]):
        same(backend.capture(given_x), wanted)
        same(cfcam_torch.open_model(model).capture(given_x), wanted)
    more = {"pixel_values": x, "interpolate_pos_encoding": True, "output_attentions": None}
    same(backend.capture(more), wanted, tolerance=1e-4)


def test_a_list_of_samples_is_a_batch() -> None:
    model, x = chain(), batch(samples=3)
    found = cfcam_torch.open_model(model).capture([*x])
    agree(found, by_halves(model, "bend3", x))
    agree(cfcam_torch.open_model(model).capture([*x.numpy()]), by_halves(model, "bend3", x))


def test_options_beside_the_inputs() -> None:
    model, x, words = Both().eval(), batch(), torch.randint(20, (2, 4))
    found = cfcam_torch.open_model(model).capture({"picture": x, "words": words, "scale": 0.5})
    np.testing.assert_allclose(
        found.scores, model(x, words, scale=0.5).detach(), rtol=1e-5, atol=1e-6
    )


def test_inputs_that_do_not_fit_each_other() -> None:
    backend = cfcam_torch.open_model(Both().eval())
    x, words = batch(), torch.randint(20, (2, 4))
    with pytest.raises(InvalidInputError, match=r"samples|\[1, 2\]|\(1, "):
        backend.capture({"picture": x[:1], "words": words})
    with pytest.raises(InvalidInputError, match="words"):
        backend.capture({"picture": x})
    with pytest.raises(InvalidInputError, match="picure"):
        backend.capture({"picure": x, "words": words})
    with pytest.raises(InvalidInputError, match="words"):
        backend.capture(x)
    with pytest.raises(InvalidInputError):
        backend.capture((x, words, words))
    with pytest.raises(InvalidInputError, match=r"finite|NaN"):
        backend.capture({"picture": x * np.nan, "words": words})


def test_integers_first() -> None:
    """The first picture is the input, also where it is not the first argument."""

    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = Both()

        def forward(self, words: Any, picture: Any) -> Any:
            return self.both(picture, words)

    model, x, words = Reversed().eval(), batch(), torch.randint(20, (2, 4))
    backend = cfcam_torch.open_model(model)
    capture = backend.capture((words, x), layer="input")
    np.testing.assert_array_equal(capture.activations, x)
    assert capture.gradients.any()
    assert backend.capture({"words": words, "picture": x}).input_size == (12, 17)


def test_two_pictures() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.dense = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

        def forward(self, left: Any, right: Any) -> Any:
            return self.dense(mean(self.trunk(left).tanh()) - mean(self.trunk(right).tanh()))

    model, left, right = Twins().eval(), batch(), batch()
    backend = cfcam_torch.open_model(model)
    wanted = torch.tanh(model.trunk(left)).mean((2, 3)).detach()
    truth = of_halves(model.trunk, lambda h: model.dense(wanted - mean(h.tanh())), right, [1, 2])
    agree(backend.capture((left, right), layer="trunk", target=[1, 2]), truth)  # its last run


def test_options_of_forward_that_are_no_arrays() -> None:
    """A mask of booleans, and None for what may be left out."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x: Any, mask: Any = None) -> Any:
            return self.net(x if mask is None else x * mask)

    model, x = Masked().eval(), batch()
    mask = torch.rand(2, 1, 12, 17) > 0.5
    backend = cfcam_torch.open_model(model)
    for given_mask in (mask, mask.numpy()):
        agree(
            backend.capture({"x": x, "mask": given_mask}, layer="net.inner"),
            by_halves(model.net, "inner", x * mask),
        )
    agree(backend.capture(x, layer="net.inner"), by_halves(model.net, "inner", x))

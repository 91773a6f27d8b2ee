"""Transformers: their tokens on a grid, in the right place, and a default that is not blank."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from token_nets import KINDS, Wide, folded, make_transformer, seen_at
from torch import nn
from torch_nets import Apply, agree, mean, of_halves

CLASSES = [1, 2]


def best(output: Any) -> Any:
    logits = getattr(output, "logits", output)
    return logits[torch.arange(2), torch.tensor(CLASSES)].sum()


def default_of(backend: Any) -> Any:
    (one,) = [layer for layer in backend.layers() if layer.is_default]
    return one


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", KINDS)
def test_defaults_of_transformers(name: str, attention: str) -> None:
    kind = KINDS[name]
    if attention == "sdpa" and name not in {"ViT", "BEiT", "DINOv2"}:
        attention = "eager"
    model, x = make_transformer(name, attention=attention), torch.randn(2, 3, *kind.size)
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(x, target=CLASSES)
    tokens, gradients = seen_at(model, kind.last, x, best)
    wanted = folded(tokens, kind.prefix, kind.grid), folded(gradients, kind.prefix, kind.grid)
    assert capture.activations.shape == wanted[0].shape, capture.layer
    np.testing.assert_allclose(capture.activations, wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        capture.gradients, wanted[1], rtol=1e-4, atol=1e-5 * np.abs(wanted[1]).max()
    )
    assert np.abs(capture.gradients).max(axis=(1, 2, 3)).all()
    named = backend.capture(x, layer=kind.last, target=CLASSES)
    np.testing.assert_allclose(named.gradients, capture.gradients, rtol=1e-4, atol=1e-7)
    again = backend.scores_from(capture.activations, x)
    np.testing.assert_allclose(again, capture.scores, rtol=1e-4, atol=1e-5)
    other = backend.scores_from(capture.activations * 0, x)
    assert np.abs(other - capture.scores).max() > 1e-3
    assert capture.input_size == kind.size


@pytest.mark.parametrize("name", ["ViT", "DeiT", "DINOv2", "BEiT"])
def test_pictures_of_another_shape(name: str) -> None:
    """Position embeddings are stretched; rows and columns follow the picture."""
    kind = KINDS[name]
    model = Wide(make_transformer(name))
    patch = kind.size[0] // kind.grid[0]
    backend = cfcam_torch.open_model(model, example=torch.randn(2, 3, *kind.size))
    for rows, columns in ((3, 6), (6, 3), (5, 5), (2, 9)):
        x = torch.randn(2, 3, rows * patch, columns * patch)
        capture = backend.capture(x, target=CLASSES)
        tokens, gradients = seen_at(model, f"net.{kind.last}", x, best)
        grid = (rows, columns)
        np.testing.assert_allclose(
            capture.activations, folded(tokens, kind.prefix, grid), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            capture.gradients, folded(gradients, kind.prefix, grid), rtol=1e-3, atol=1e-6
        )
        assert capture.input_size == x.shape[2:]


@pytest.mark.parametrize("path", ["vit.embeddings", "vit.layers.0", "vit.layernorm"])
def test_tokens_in_other_places(path: str) -> None:
    model, x = make_transformer("ViT"), torch.randn(2, 3, 64, 64)
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(x, layer=path, target=CLASSES)
    tokens, gradients = seen_at(model, path, x, best)
    np.testing.assert_allclose(capture.activations, folded(tokens, 1, (4, 4)), rtol=1e-4, atol=1e-5)
    wanted = folded(gradients, 1, (4, 4))
    np.testing.assert_allclose(capture.gradients, wanted, rtol=1e-4, atol=1e-6)


def test_the_default_of_a_class_token_is_not_the_last_norm() -> None:
    backend = cfcam_torch.open_model(make_transformer("ViT"))
    names = [layer.name for layer in backend.layers()]
    assert default_of(backend).name == "vit.layers.1"
    assert "vit.layers.0" in names
    assert not any("attention" in name or "mlp" in name for name in names)


# ----------------------------------------------------------------------------- written by hand


class Block(nn.Module):
    """torchvision's Swin in small: windows within maps that have their channels last."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.project, self.window = nn.Linear(channels, channels), window

    def forward(self, x: Any) -> Any:
        n, h, w, c = x.shape
        side = self.window
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(n, h // side, side, w // side, side, c).permute(0, 1, 3, 2, 4, 5)
        q, k, v = self.qkv(y.reshape(-1, side * side, c)).chunk(3, -1)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        y = y.reshape(n, h // side, w // side, side, side, c).permute(0, 1, 3, 2, 4, 5)
        return x + self.project(torch.roll(y.reshape(n, h, w, c), (1, 1), (1, 2)))


class HandSwin(nn.Module):
    def __init__(self, channels: int, *, moves_back: bool) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, channels, 4, 4),
            Apply(lambda x: x.permute(0, 2, 3, 1)),
            nn.LayerNorm(channels),
        )
        self.blocks = nn.Sequential(Block(channels, 2), Block(channels, 4))
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, 5)
        self.moves_back = moves_back

    def back(self, x: Any) -> Any:
        if self.moves_back:
            x = nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1)
        else:
            x = x.mean((1, 2))
        return self.head(x)

    def front(self, x: Any) -> Any:
        return self.norm(self.blocks(self.patches(x)))

    def forward(self, x: Any) -> Any:
        return self.back(self.front(x))


@pytest.mark.parametrize("moves_back", [True, False])
@pytest.mark.parametrize(
    ("channels", "size"), [(12, (32, 48)), (8, (32, 32)), (8, (32, 48)), (12, (48, 32))]
)
def test_channels_last_inside(channels: int, size: tuple[int, int], *, moves_back: bool) -> None:
    """Also where rows, columns and channels are equally many."""
    model, x = HandSwin(channels, moves_back=moves_back).eval(), torch.randn(2, 3, *size)
    backend = cfcam_torch.open_model(model)
    truth = of_halves(
        lambda x: model.front(x).permute(0, 3, 1, 2),
        lambda x: model.back(x.permute(0, 2, 3, 1)),
        x,
        CLASSES,
    )
    agree(backend.capture(x, layer="norm", target=CLASSES), truth)
    agree(backend.capture(x, target=CLASSES), truth)
    inside = backend.capture(x, layer="blocks.0", target=CLASSES).activations
    wanted = model.blocks[0](model.patches(x)).permute(0, 3, 1, 2).detach().numpy()
    np.testing.assert_allclose(inside, wanted, rtol=1e-4, atol=1e-5)
    start = backend.capture(x, layer="patches.0").activations
    np.testing.assert_allclose(start, model.patches[0](x).detach().numpy(), rtol=1e-4, atol=1e-5)


class LayerNorm2d(nn.LayerNorm):
    """torchvision's: a LayerNorm by its type, channels first by its output."""

    def forward(self, x: Any) -> Any:
        x = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """A norm of channels in maps, and a block that has its channels last between permutations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 4, 4), LayerNorm2d(channels))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            *(Apply(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(channels)),
            *(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)),
            Apply(lambda x: x.permute(0, 3, 1, 2)),
        )
        self.norm, self.head = LayerNorm2d(channels), nn.Linear(channels, 5)

    def front(self, x: Any) -> Any:
        x = self.stem(x)
        return self.norm(x + self.block(x))

    def back(self, x: Any) -> Any:
        return self.head(mean(x))

    def forward(self, x: Any) -> Any:
        return self.back(self.front(x))


@pytest.mark.parametrize(("channels", "size"), [(12, (32, 40)), (8, (32, 32)), (8, (40, 32))])
def test_norms_of_channels_that_come_first(channels: int, size: tuple[int, int]) -> None:
    model, x = ConvNext(channels).eval(), torch.randn(2, 3, *size)
    backend = cfcam_torch.open_model(model)
    truth = of_halves(model.front, model.back, x, CLASSES)
    agree(backend.capture(x, layer="norm", target=CLASSES), truth)
    agree(backend.capture(x, target=CLASSES), truth)
    wanted = model.stem(x).detach().numpy()
    found = backend.capture(x, layer="stem", target=CLASSES).activations
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    hidden = backend.capture(x, layer="block.4", target=CLASSES).activations
    assert hidden.shape == (2, 4 * channels, size[0] // 4, size[1] // 4)
    wanted = model.block[:5](model.stem(x)).permute(0, 3, 1, 2).detach().numpy()
    np.testing.assert_allclose(hidden, wanted, rtol=1e-4, atol=1e-5)


class Mixer(nn.Module):
    """A dense layer along the tokens, then one along the channels."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 8, 8)
        self.mix, self.norm = nn.Linear(tokens, tokens), nn.LayerNorm(channels)
        self.dense, self.head = nn.Linear(channels, channels), nn.Linear(channels, 5)

    def front(self, x: Any) -> Any:
        x = self.patches(x).flatten(2)
        x = (x + self.mix(x).tanh()).transpose(1, 2)
        return x + self.dense(self.norm(x))

    def back(self, x: Any) -> Any:
        return self.head(self.last(x).mean(1))

    def last(self, x: Any) -> Any:
        return x.tanh()

    def forward(self, x: Any) -> Any:
        return self.back(self.front(x))


@pytest.mark.parametrize("channels", [16, 20])
def test_dense_layers_along_the_tokens(channels: int) -> None:
    """16 tokens, or as many channels: what a layer mixes does not say what its axes are."""
    model, x = Mixer(channels, 16).eval(), torch.randn(2, 3, 32, 32)
    backend = cfcam_torch.open_model(model)
    mixed = backend.capture(x, layer="mix", target=CLASSES).activations
    wanted = model.mix(model.patches(x).flatten(2)).detach().numpy()
    np.testing.assert_allclose(mixed.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
    dense = backend.capture(x, layer="norm", target=CLASSES).activations
    y = model.patches(x).flatten(2)
    y = model.norm((y + model.mix(y).tanh()).transpose(1, 2))
    np.testing.assert_allclose(dense, folded(y, 0, (4, 4)), rtol=1e-4, atol=1e-5)


def test_many_queries_are_no_grid() -> None:
    """16 learned queries look at the picture: their places mean nothing."""

    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, 8)
            self.queries = nn.Parameter(torch.randn(1, 16, 8))
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            tokens = self.patches(x).tanh().flatten(2).transpose(1, 2)
            seen, _ = self.attend(self.queries.expand(len(x), -1, -1), tokens, tokens)
            return self.head(self.norm(seen).mean(1))

    backend, x = cfcam_torch.open_model(Queries().eval()), torch.randn(2, 3, 32, 32)
    assert default_of(backend).name == "patches"
    assert backend.capture(x, layer="norm").activations.ndim == 3
    assert backend.capture(x).gradients.any()


class Variables(nn.Module):
    """Tokens (N, V, T, C) of V variables, which a norm takes for samples of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.blocks = Apply(self._blocks)
        self.dense = nn.Linear(6, 4)

    def _blocks(self, x: Any) -> Any:
        samples, variables = x.shape[:2]
        tokens = self.embed(x.reshape(samples, variables, -1, 8)).flatten(0, 1)
        tokens = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        return tokens.reshape(samples, variables, *tokens.shape[1:])

    def forward(self, x: Any) -> Any:
        return self.dense(self.blocks(x).mean((1, 2)))


def test_variables_taken_for_samples() -> None:
    model, x = Variables().eval(), torch.randn(2, 3, 40)
    found = cfcam_torch.open_model(model).capture(x, layer="blocks", target=1)
    truth = of_halves(model.blocks, lambda h: model.dense(h.mean((1, 2))), x, [1, 1])
    assert found.activations.shape == (2, 6, 3, 5)
    np.testing.assert_allclose(
        found.gradients, truth.gradients.movedim(3, 1).numpy(), rtol=1e-5, atol=1e-7
    )


class Patchwork(nn.Module):
    """Patches that are cut out by reshaping, as in hand-written transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.dense = nn.Linear(48, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        samples, channels, height, width = x.shape
        cells = x.reshape(samples, channels, height // 4, 4, width // 4, 4)
        patches = cells.permute(0, 2, 4, 3, 5, 1).reshape(samples, -1, 48)
        return self.dense(torch.tanh(self.block(self.embed(patches))).mean(1))


def test_patches_cut_out_by_reshaping() -> None:
    model, x = Patchwork().eval(), torch.randn(2, 3, 12, 20)
    found = cfcam_torch.open_model(model).capture(x, layer="block")
    assert found.activations.shape == (2, 6, 3, 5)
    assert found.input_size == (12, 20)
    spot = x.clone()
    spot[:, :, 8:, 4:8] += 1
    change = cfcam_torch.open_model(model).capture(spot, layer="block").activations
    moved = np.abs(change - found.activations).sum((0, 1))
    assert np.argwhere(moved).tolist() == [[2, 1]]


def test_norms_with_more_channels_than_columns() -> None:
    """The weights of a norm are along the channels, not along the last axis."""
    tokens = Apply(lambda x: x.flatten(2).transpose(1, 2))
    front = [nn.Conv2d(3, 24, 4, 4), nn.BatchNorm2d(24), nn.GroupNorm(2, 24), tokens]
    model = nn.Sequential(*front, nn.Linear(24, 6), Apply(lambda x: x.mean(1))).eval()
    found = cfcam_torch.open_model(model).capture(torch.randn(2, 3, 12, 20), layer="4")
    assert found.activations.shape == (2, 6, 3, 5)

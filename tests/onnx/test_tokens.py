"""Tokens on their grid: which are patches, whole transformers, and their default layers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from net_parts import Block
from torch import nn
from whole_models import CLOSE, default_of, images, numeric_gradient, opened

from cfcam_core import InvalidInputError, LayerNotFoundError
from cfcam_core.tokens import MOST_PREFIX, Fold, find_fold


@pytest.mark.parametrize(
    ("tokens", "size", "prefix", "grid"),
    [
        (197, (224, 224), 1, (14, 14)),  # ViT-B/16
        (50, (224, 224), 1, (7, 7)),  # ViT-B/32
        (198, (224, 224), 2, (14, 14)),  # DeiT, distilled
        (1374, (518, 518), 5, (37, 37)),  # DINOv2 with registers
        (49, (224, 224), 0, (7, 7)),  # Swin
        (25, (96, 64), 1, (6, 4)),
        (
            29,
            (96, 64),
            5,
            (6, 4),
        ),  # 28 = 7 x 4 lie on patches of 13 that leave a rest: 16 goes first
        (169, (230, 200), 1, (14, 12)),  # patches of 16, the rest dropped
        (12, (20, 48), 0, (2, 6)),  # patches of 8
        (20, (129, 128), 0, (5, 4)),  # patches of 32, the rest padded; not 4 x 4 behind 4 others
    ],
)
def test_known_grids(
    tokens: int, size: tuple[int, int], prefix: int, grid: tuple[int, int]
) -> None:
    assert find_fold(tokens, size, prefix) == Fold(prefix, grid)


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 300, 1000])
def test_tokens_on_no_grid(tokens: int) -> None:
    assert find_fold(tokens, (64, 64), 0) is None


@given(st.integers(1, 32), st.integers(2, 20), st.integers(2, 20), st.integers(0, MOST_PREFIX))
def test_patches_are_found(patch: int, rows: int, columns: int, prefix: int) -> None:
    size = rows * patch, columns * patch
    tokens = prefix + rows * columns
    assert find_fold(tokens, size, prefix) == Fold(prefix, (rows, columns))
    seen = (rows, columns), size
    assert find_fold(tokens, size, prefix, seen) == Fold(prefix, (rows, columns))


def test_folding_and_back() -> None:
    fold, tokens = Fold(2, (3, 4)), images(2, 5, 14)
    maps = fold.maps(tokens)
    assert maps.shape == (2, 5, 3, 4)
    np.testing.assert_array_equal(maps[:, :, 1, 2], tokens[:, :, 2 + 1 * 4 + 2])
    np.testing.assert_array_equal(fold.tokens(maps, tokens), tokens)


# ------------------------------------------------------------------------------------ transformers


HEADS = {
    "class token": lambda x, _: x[:, 0],
    "class and distillation token": lambda x, _: x[:, 0] + x[:, 1],
    "first tokens": lambda x, _: x[:, :2].mean(dim=1),
    "last patch": lambda x, _: x[:, -1],
    "mean of the patches": lambda x, prefix: x[:, prefix:].mean(dim=1),
    "class token and mean": lambda x, prefix: x[:, 0] + x[:, prefix:].mean(dim=1),
    "mean of all": lambda x, _: x.mean(dim=1),
}


class Transformer(nn.Module):
    """Patches, three blocks, a head."""

    def __init__(self, head: str, prefix: int, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, patch, patch)
        self.token = nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.norm, self.dense = nn.LayerNorm(8), nn.Linear(8, 5)
        self.head, self.prefix = HEADS[head], prefix

    def start(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.size(0), -1, -1), x], dim=1) if self.prefix else x

    def forward(self, x: Any) -> Any:
        return self.dense(self.head(self.norm(self.blocks(self.start(x))), self.prefix))


def exported(
    model: nn.Module, folder: Path, x: torch.Tensor, *, dynamo: bool = False, open_axes: Any = None
) -> cfcam_onnx.OnnxBackend:
    axes = open_axes or {0: "n"}
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    how = {"dynamic_shapes": shapes} if dynamo else {"dynamic_axes": {"x": axes}}
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model.eval(), (x,), path, input_names=["x"], dynamo=dynamo, verbose=False, **how
        )
    return opened(path)


@pytest.mark.parametrize(
    ("head", "prefix", "default", "dynamo"),
    [
        ("class token", 1, "blocks.1", False),
        ("class token", 1, "blocks.1", True),
        ("class and distillation token", 2, "blocks.1", False),
        ("first tokens", 5, "blocks.1", False),
        ("last patch", 0, "blocks.1", False),
        ("mean of the patches", 0, "norm", False),
        ("mean of the patches", 5, "norm", False),
        ("class token and mean", 1, "norm", False),
        ("mean of all", 1, "norm", False),
    ],
)
def test_gradients_of_a_transformer(
    *, head: str, prefix: int, default: str, dynamo: bool, tmp_path: Path
) -> None:
    """The oracle is autograd. Of a class token's last block the patches have no gradient."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Transformer(head, prefix)
    x = torch.randn(2, 3, 16, 24)
    backend = exported(model, tmp_path, x, dynamo=dynamo)
    chosen = next(layer for layer in backend.layers() if layer.is_default)
    assert chosen.module == default
    assert chosen.shape[1:] == (prefix + 24, 8)  # the tensor's own
    for layer in (None, "blocks[0]"):
        blocks = 1 if layer else 2
        tokens = model.blocks[:blocks](model.start(x))
        rest = model.blocks[blocks:]
        if layer is None and default == "norm":
            tokens, rest = model.norm(model.blocks(model.start(x))), None
        tokens = tokens.detach().requires_grad_()
        last = tokens if rest is None else model.norm(rest(tokens))
        (slopes,) = torch.autograd.grad(model.dense(model.head(last, prefix))[:, 3].sum(), tokens)
        capture = backend.capture(x, layer=layer, target=3)
        assert capture.activations.shape == (2, 8, 4, 6)
        assert capture.input_size == (16, 24)
        for found, wanted in ((capture.activations, tokens), (capture.gradients, slopes)):
            grid = wanted.detach()[:, prefix:].reshape(2, 4, 6, 8).permute(0, 3, 1, 2)
            np.testing.assert_allclose(found, grid, rtol=1e-4, atol=1e-5)
        assert np.abs(capture.gradients).sum(axis=1).min() > 1e-6


def test_scores_from_patches(tmp_path: Path) -> None:
    """The tokens in front are the model's own, those of each sample."""
    torch.manual_seed(0)
    model = Transformer("class token", 1)
    backend = exported(model, tmp_path, torch.randn(2, 3, 16, 24))
    x = images(3, 3, 16, 24)
    capture = backend.capture(x)
    again = backend.scores_from(capture.activations, x)
    np.testing.assert_allclose(again, backend.scores(x), **CLOSE)
    slopes = numeric_gradient(backend, x, capture.layer, 1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)
    with pytest.raises(InvalidInputError, match=r"the model takes \(N, 8, 4, 6\)"):
        backend.scores_from(capture.activations.reshape(3, 8, 24, 1), x)


def test_open_image_sizes(tmp_path: Path) -> None:
    """Patches are folded by the size of each picture, not by that of the trial run."""
    torch.manual_seed(0)
    model = Transformer("class token", 1, patch=16)
    backend = exported(
        model, tmp_path, torch.randn(2, 3, 64, 96), open_axes={0: "n", 2: "h", 3: "w"}
    )
    for size, grid in (((64, 96), (4, 6)), ((160, 80), (10, 5)), ((70, 44), (4, 2))):
        x = images(2, 3, *size)
        capture = backend.capture(x, target=1)
        assert capture.activations.shape == (2, 8, *grid)
        assert capture.input_size == size
        wanted = model.blocks[:2](model.start(torch.tensor(x))).detach()[:, 1:].transpose(1, 2)
        np.testing.assert_allclose(
            capture.activations.reshape(2, 8, -1), wanted, rtol=1e-4, atol=1e-5
        )
        again = backend.scores_from(capture.activations, x)
        np.testing.assert_allclose(again, backend.scores(x), **CLOSE)


def test_a_signal_is_not_folded(tmp_path: Path) -> None:
    class Signal(Transformer):
        def start(self, x: Any) -> Any:
            return super().start(x.reshape(-1, 3, 4, 24))

    model = Signal("mean of all", 0)
    backend = exported(model, tmp_path, torch.randn(2, 3, 96))
    capture = backend.capture(images(2, 3, 96), layer="blocks")
    assert capture.activations.shape == (2, 8, 6)
    assert capture.input_size == (96,)


def test_a_signal_beside_a_picture_is_not_folded(net: Any) -> None:
    """64 points in time would lie on a grid of 8 x 8."""
    n = net("N", 3, 64)
    gate = n.add("Flatten", n.add("GlobalAveragePool", n.input("picture", "N", 4, 8, 8)))
    waves = n.add("Conv", n.x, n.normal(4, 3, 3), pads=[1, 1])
    gated = n.add("Mul", waves, n.add("Unsqueeze", gate, np.array([2])), name="gated")
    backend = opened(n.model(n.head(gated, 4)))
    capture = backend.capture({"x": images(2, 3, 64), "picture": images(2, 4, 8, 8)}, layer="gated")
    assert capture.activations.shape == (2, 4, 64)
    assert capture.input_size == (64,)


# ------------------------------------------------------------------------- what is taken for tokens


def test_channels_before_tokens(net: Any) -> None:
    n = net("N", 3, 16, 24)
    patches = n.conv(n.x, 3, 8, 4, strides=[4, 4], pads=[0] * 4)
    tokens = n.add("Reshape", n.add("Tanh", patches), np.array([0, 8, 24]), name="tokens")
    mean = n.add("ReduceMean", n.add("Mul", tokens, tokens, name="last"), axes=[2], keepdims=0)
    backend = opened(n.model(n.add("MatMul", mean, n.normal(8, 5))))
    assert default_of(backend) == "last"
    x = images(2, 3, 16, 24)
    assert backend.capture(x).activations.shape == (2, 8, 4, 6)
    slopes = numeric_gradient(backend, x, "last", 2)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize("pooled", [(0, 64, 1), (0, 1, 64)])
def test_a_single_pooled_token_is_no_layer(net: Any, pooled: tuple[int, ...]) -> None:
    """64 channels would lie on a grid of 8 x 8."""
    n = net("N", 3, 32, 32)
    last = n.add("Relu", n.conv(n.x, 3, 64), name="last")
    single = n.add("Reshape", n.add("GlobalAveragePool", last), np.array(pooled))
    single = n.add("Tanh", single, name="single")
    flat = n.add("Flatten", n.add("Mul", single, single, name="square"))
    backend = opened(n.model(n.add("MatMul", flat, n.normal(64, 5))))
    assert default_of(backend) == "last"
    assert not {"single", "square"} & {layer.name for layer in backend.layers()}


def test_the_heads_of_an_attention_are_no_map(net: Any) -> None:
    """(N, heads, T, C) has four axes, as a map has; here nothing goes around the attention."""
    n = net("N", 3, 16, 16)
    patches = n.conv(n.x, 3, 8, 4, strides=[4, 4], pads=[0] * 4)
    rows = n.add("Transpose", n.add("Reshape", patches, np.array([0, 8, 16])), perm=[0, 2, 1])
    tokens = n.add("Tanh", n.add("MatMul", rows, n.normal(8, 8)), name="tokens")
    heads = n.add("Transpose", n.add("Reshape", tokens, np.array([0, 16, 2, 4])), perm=[0, 2, 1, 3])
    keys = n.add("Transpose", heads, perm=[0, 1, 3, 2])
    seen = n.add("MatMul", n.add("Softmax", n.add("MatMul", heads, keys), axis=-1), heads)
    back = n.add("Transpose", n.add("Tanh", seen, name="seen"), perm=[0, 2, 1, 3])
    flat = n.add("Reshape", back, np.array([0, 128]))
    backend = opened(n.model(n.add("MatMul", flat, n.normal(128, 5))))
    assert default_of(backend) == "tokens"


def test_tokens_before_samples_are_refused(net: Any) -> None:
    n = net("N", 3, 16, 24)
    patches = n.conv(n.x, 3, 8, 4, strides=[4, 4], pads=[0] * 4)
    rows = n.add("Reshape", patches, np.array([0, 8, 24]))
    turned = n.add("Tanh", n.add("Transpose", rows, perm=[2, 0, 1]), name="turned")
    mean = n.add("ReduceMean", turned, axes=[0], keepdims=0)
    backend = opened(n.model(n.add("MatMul", mean, n.normal(8, 5))))
    assert "turned" not in {layer.name for layer in backend.layers()}
    with pytest.raises(LayerNotFoundError, match=r"'turned' is float32 of shape .*wanted .*\(N, C"):
        backend.capture(images(2, 3, 16, 24), layer="turned")

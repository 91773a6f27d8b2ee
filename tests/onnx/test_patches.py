"""Which tokens are patches of a picture: told by what the graph does, not by their number."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f
from whole_models import images, opened

from cfcam_core import LayerNotFoundError, UnsupportedOpError

SIDE = 64


class Base(nn.Module):
    """A map of 16 x 16 patches with 8 channels, made tokens by `tokens`; a block and a head."""

    def __init__(self, patch: int = 4, stride: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.patches = nn.Conv2d(3, 8, patch, stride)
        self.norm, self.wide, self.dense = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.extra = nn.Parameter(torch.randn(1, 2, 8))

    def tokens(self, x: Any) -> Any:
        return self.patches(x).flatten(2).transpose(1, 2)

    def block(self, x: Any) -> Any:
        return x + f.gelu(self.wide(self.norm(x)))

    def forward(self, x: Any) -> Any:
        return self.dense(self.block(self.tokens(x)).mean(1))


def windows(x: Any, side: int = 4) -> Any:
    """Return (N, H, W, C) as (N * windows, side * side, C)."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // side, side, w // side, side, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, side * side, c)


def whole(x: Any, n: int, side: int = 4, grid: int = 16) -> Any:
    """Return windows as (N, H, W, C)."""
    parts = x.reshape(n, grid // side, grid // side, side, side, -1).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(n, grid, grid, -1)


class InWindows(Base):
    """Windows are put back in the end: row by row again."""

    def tokens(self, x: Any) -> Any:
        maps = windows(self.patches(x).permute(0, 2, 3, 1))
        return whole(self.wide(maps).tanh(), x.size(0)).flatten(1, 2)


class WindowOrder(Base):
    """The tokens of a window follow each other."""

    def tokens(self, x: Any) -> Any:
        return windows(self.patches(x).permute(0, 2, 3, 1)).reshape(x.size(0), 256, 8)


class Interleaved(Base):
    """The second and third quarter of the rows change places: they are not in order."""

    def tokens(self, x: Any) -> Any:
        maps = self.patches(x).permute(0, 2, 3, 1).reshape(x.size(0), 2, 2, 4, 16, 8)
        return maps.transpose(1, 2).reshape(x.size(0), 256, 8)


class OneWindow(Base):
    """The first window alone: 4 x 4 of 16 x 16 positions."""

    def tokens(self, x: Any) -> Any:
        maps = windows(self.patches(x).permute(0, 2, 3, 1)).reshape(x.size(0), 16, 16, 8)
        return maps[:, 0]


class PooledWindows(Base):
    """What is summed up within windows is a coarser map."""

    def tokens(self, x: Any) -> Any:
        return windows(self.patches(x).permute(0, 2, 3, 1)).reshape(x.size(0), 16, 16, 8).amax(2)


class ByReshape(Base):
    """Patches cut out by a Reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(48, 8)

    def tokens(self, x: Any) -> Any:
        parts = x.reshape(-1, 3, 16, 4, 16, 4).permute(0, 2, 4, 3, 5, 1)
        return self.patches(parts.reshape(x.size(0), 256, 48))


class ByUnfold(ByReshape):
    """Patches cut out by an unfold, which is exported as two Gathers."""

    def tokens(self, x: Any) -> Any:
        return self.patches(f.unfold(x, 4, stride=4).transpose(1, 2))


class Normed(Base):
    """A norm of more channels than there are columns; its weights are along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 24, 4, 4), nn.InstanceNorm2d(24, affine=True))
        self.narrow = nn.Linear(24, 8)

    def tokens(self, x: Any) -> Any:
        return self.narrow(super().tokens(x))


class InFront(Base):
    """Two tokens of no place, and the first of them dropped again."""

    def tokens(self, x: Any) -> Any:
        tokens = super().tokens(x)
        return torch.cat([self.extra.expand(x.size(0), -1, -1), tokens], 1)[:, 1:]


class Behind(Base):
    """Tokens of no place, but behind the patches."""

    def tokens(self, x: Any) -> Any:
        return torch.cat([super().tokens(x), self.extra.expand(x.size(0), -1, -1)], 1)


class ByColumn(Base):
    """Column by column."""

    def tokens(self, x: Any) -> Any:
        return self.patches(x).transpose(2, 3).flatten(2).transpose(1, 2)


class Queries(Base):
    """Sixteen queries that were learned ask the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 16, 8))

    def tokens(self, x: Any) -> Any:
        tokens, queries = super().tokens(x), self.queries.expand(x.size(0), -1, -1)
        return queries + (queries @ tokens.transpose(1, 2)).softmax(-1) @ tokens


class Asking(Base):
    """Patches that ask a coarser map of patches."""

    def tokens(self, x: Any) -> Any:
        tokens = super().tokens(x)
        seen = f.avg_pool2d(self.patches(x), 2).flatten(2)
        return (tokens @ seen).softmax(-1) @ seen.transpose(1, 2)


def exported(
    model: nn.Module, folder: Path, *shape: int, dynamo: bool = False, sizes: bool = False
) -> cfcam_onnx.OnnxBackend:
    axes = {0: "n", 2: "h", 3: "w"} if sizes else {0: "n"}
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    how = {"dynamic_shapes": shapes} if dynamo else {"dynamic_axes": {"x": axes}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model.eval(),
            (torch.randn(2, *shape),),
            folder / "net.onnx",
            input_names=["x"],
            dynamo=dynamo,
            verbose=False,
            **how,
        )
    return opened(folder / "net.onnx")


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize(
    ("kind", "prefix", "grid"),
    [
        (Base, 0, (16, 16)),
        (InWindows, 0, (16, 16)),
        (PooledWindows, 0, (4, 4)),
        (ByReshape, 0, (16, 16)),
        (ByUnfold, 0, (16, 16)),
        (Normed, 0, (16, 16)),
        (InFront, 1, (16, 16)),
        (Asking, 0, (16, 16)),
    ],
)
def test_patches_are_folded(
    *, kind: type[Base], prefix: int, grid: tuple[int, int], dynamo: bool, tmp_path: Path
) -> None:
    """The oracle is the model itself, its tokens laid out row by row."""
    model = kind()
    backend, x = exported(model, tmp_path, 3, SIDE, SIDE, dynamo=dynamo), images(2, 3, SIDE, SIDE)
    with torch.no_grad():
        tokens = model.block(model.tokens(torch.tensor(x))).numpy()
    capture = backend.capture(x)
    wanted = tokens[:, prefix:].reshape(2, *grid, 8).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(capture.activations, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", [WindowOrder, Interleaved, OneWindow, Behind, ByColumn, Queries])
def test_other_tokens_are_not(*, kind: type[Base], dynamo: bool, tmp_path: Path) -> None:
    """Their numbers fit a grid well; the default is the map that they are made of."""
    model = kind()
    backend, x = exported(model, tmp_path, 3, SIDE, SIDE, dynamo=dynamo), images(2, 3, SIDE, SIDE)
    assert backend.capture(x).activations.shape[2:] == (16, 16)
    last = backend.layers()[-1]
    tokens = model.tokens(torch.tensor(x)).shape[1]
    assert last.shape == (None, tokens, 8)
    assert not last.is_default
    capture = backend.capture(x, layer=last)
    assert capture.activations.shape == (2, 8, tokens)
    assert capture.input_size is None


@pytest.mark.parametrize("size", [(224, 256), (64, 96), (128, 304), (512, 512), (100, 700)])
def test_patches_that_overlap(size: tuple[int, int], tmp_path: Path) -> None:
    """Of 16 pixels, every 10: fewer than a tenth of the width."""
    model = Base(16, 10)
    x = images(1, 3, *size)
    backend = exported(model, tmp_path, 3, 100, 120, sizes=True)
    capture = backend.capture(x)
    grid = tuple((n - 16) // 10 + 1 for n in size)
    with torch.no_grad():
        tokens = model.block(model.tokens(torch.tensor(x))).numpy()
    wanted = tokens.reshape(1, *grid, 8).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(capture.activations, wanted, rtol=1e-3, atol=1e-5)


def test_overlapping_patches_in_a_ready_file(tmp_path: Path) -> None:
    """Their grid does not follow from the size of the input alone: they stay in a row."""
    backend = exported(Base(16, 10), tmp_path, 3, 100, 120, sizes=True)
    with pytest.warns(UserWarning, match="To have a map, export a model of fixed size"):
        backend.export(tmp_path / "ready.onnx")
    x = images(1, 3, 128, 304)
    capture = opened(tmp_path / "ready.onnx").capture(x)
    assert capture.activations.shape == (1, 8, 12 * 29)
    wanted = backend.capture(x).activations.reshape(1, 8, -1)
    np.testing.assert_allclose(capture.activations, wanted, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------- recurrent layers


class Recurrent(nn.Module):
    def __init__(self, *, mapped: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1) if mapped else nn.Identity()
        self.lstm = nn.LSTM(28 * (4 if mapped else 1), 32, batch_first=True)
        self.dense = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        rows = self.conv(x).permute(0, 2, 1, 3).flatten(2)
        return self.dense(self.lstm(rows)[0][:, -1])


@pytest.mark.parametrize("dynamo", [False, True])
def test_hidden_units_are_no_picture(*, dynamo: bool, tmp_path: Path) -> None:
    """28 steps of 32 units: 32 would be 16 tokens and 4 x 4 patches."""
    backend = exported(Recurrent(mapped=False), tmp_path, 1, 28, 28, dynamo=dynamo)
    x = images(2, 1, 28, 28)
    with pytest.raises(LayerNotFoundError, match="no layer with spatial axes like the picture's"):
        backend.capture(x)
    (layer,) = [one for one in backend.layers() if one.shape[1:] == (28, 32)]
    assert backend.capture(x, layer=layer).activations.shape == (2, 32, 28)


def test_maps_before_a_recurrent_layer(tmp_path: Path) -> None:
    """They are not listed, for it has no gradient rule; that is what is said."""
    backend = exported(Recurrent(mapped=True), tmp_path, 1, 28, 28)
    with pytest.raises(UnsupportedOpError, match="no layer can be explained: LSTM"):
        backend.capture(images(2, 1, 28, 28))

"""Small nets around one operation each: the shape arithmetic that exporters write for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as f


class Tail(nn.Module):
    """A convolution, the part under test, and a dense layer."""

    def __init__(self, body: Any, features: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh())
        self.body, self.dense = body, nn.Linear(features, 5)

    def forward(self, x: Any) -> Any:
        return self.dense(self.body(self.stem(x)))


class Function(nn.Module):
    def __init__(self, function: Any, *parts: Any) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Any) -> Any:
        return self.function(x, *self.parts)


def attention(x: Any, qkv: Any, norm: Any) -> Any:
    n, c, h, w = x.shape
    tokens = norm(x.flatten(2).transpose(1, 2))
    q, k, v = qkv(tokens).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / (c // 2) ** 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(n, h * w, c).mean(dim=1)


def windows(x: Any) -> Any:
    """Swin: roll, cut into windows, and back."""
    n, c, h, w = x.shape
    x = torch.roll(x, (-1, -2), dims=(2, 3)).view(n, c, h // 3, 3, w // 3, 3)
    x = f.gelu(x.permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, c)).mean(dim=1)
    return x.view(n, -1, c).amax(dim=1)


def resized(x: Any, conv: Any) -> Any:
    small = f.interpolate(conv(x), scale_factor=0.5, mode="bilinear", align_corners=False)
    wide = f.interpolate(small, size=x.shape[2:], mode="nearest")
    return (f.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1] * wide).mean((2, 3))


def shuffled(x: Any) -> Any:
    x = f.pixel_unshuffle(x, 2)
    x = x.view(x.size(0), 4, -1, x.size(2), x.size(3)).transpose(1, 2).flatten(1, 2)
    return f.pixel_shuffle(x, 2).mean((2, 3))


PARTS = {
    "view": (Function(lambda x: f.silu(x).view(x.size(0), -1)), 8 * 36),
    "adaptive pool": (Function(lambda x: f.adaptive_avg_pool2d(f.elu(x), 2).flatten(1)), 32),
    "attention": (Function(attention, nn.Linear(8, 24), nn.LayerNorm(8)), 8),
    "windows": (Function(windows), 8),
    "resized": (Function(resized, nn.Conv2d(8, 8, 1)), 8),
    "shuffled": (Function(shuffled), 8),
    "norms": (
        nn.Sequential(
            nn.GroupNorm(2, 8), nn.Mish(), nn.InstanceNorm2d(8), nn.Softsign(), nn.Flatten()
        ),
        8 * 36,
    ),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), nn.AvgPool2d(4), nn.Flatten()),
        36,
    ),
    "einsum": (Function(lambda x: torch.einsum("nchw,nchw->nc", x, x.sigmoid())), 8),
}
"""Of each part the module and the number of features that it returns for a grid of 6 x 6."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.wide, self.narrow = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(self.first(x)).chunk(3, dim=-1)
        x = x + (q @ k.transpose(-2, -1) / 8**0.5).softmax(dim=-1) @ v
        return x + self.narrow(f.gelu(self.wide(self.second(x))))


class Transformer(nn.Module):
    def __init__(self, *, picks: bool) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.norm, self.dense, self.picks = nn.LayerNorm(8), nn.Linear(8, 5), picks

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x))
        return self.dense(x[:, 0] if self.picks else x.mean(dim=1))

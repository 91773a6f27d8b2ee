"""Architectures that transformers does not have, written in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as f


def pooled(x: Any) -> Any:
    return f.adaptive_avg_pool2d(x, 1).flatten(1)


class VGG(nn.Module):
    """Plain convolutions and max-pooling, then dense layers."""

    def __init__(self, stages: list[list[int]], hidden: int, side: int, classes: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        before = 3
        for widths in stages:
            for width in widths:
                parts += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            parts.append(nn.MaxPool2d(2))
        self.features, self.pool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d(side)
        self.head = nn.Sequential(
            *(nn.Flatten(), nn.Linear(before * side**2, hidden), nn.ReLU(inplace=True)),
            *(nn.Dropout(), nn.Linear(hidden, classes)),
        )

    def forward(self, x: Any) -> Any:
        return self.head(self.pool(self.features(x)))


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False)),
            *(nn.BatchNorm2d(4 * growth), nn.ReLU()),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Any) -> Any:
        return torch.cat([x, self.body(x)], dim=1)


class DenseNet(nn.Module):
    """Every layer reads the outputs of all before it in its block."""

    def __init__(self, blocks: list[int], growth: int, classes: int) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)),
            *(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        )
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for count in blocks:
            layers = [DenseLayer(channels + i * growth, growth) for i in range(count)]
            self.blocks.append(nn.Sequential(*layers))
            channels += count * growth
            if len(self.blocks) < len(blocks):
                thinner = nn.Conv2d(channels, channels // 2, 1, bias=False)
                norm = nn.BatchNorm2d(channels)
                self.transitions.append(nn.Sequential(norm, nn.ReLU(), thinner, nn.AvgPool2d(2)))
                channels //= 2
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.dense = nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        x = self.blocks[0](self.stem(x))
        for transition, block in zip(self.transitions, self.blocks[1:], strict=True):
            x = block(transition(x))
        return self.dense(pooled(self.norm(x)))


class Squeeze(nn.Module):
    """Squeeze and excitation with hard gates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Any) -> Any:
        gate = self.up(f.relu(self.down(f.adaptive_avg_pool2d(x, 1))))
        return x * f.hardsigmoid(gate)


def normed(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    pads = {"padding": kernel // 2, "groups": groups, "bias": False}
    return [nn.Conv2d(before, after, kernel, stride, **pads), nn.BatchNorm2d(after)]


class Inverted(nn.Module):
    """MobileNetV3's block: widen, filter channel by channel, gate, narrow."""

    def __init__(
        self, before: int, wide: int, after: int, kernel: int, stride: int, hard: int, gated: int
    ) -> None:
        super().__init__()
        unit = nn.Hardswish if hard else nn.ReLU
        self.residual = stride == 1 and before == after
        self.body = nn.Sequential(
            *(*normed(before, wide, 1), unit()),
            *(*normed(wide, wide, kernel, stride, wide), unit()),
            *([Squeeze(wide)] if gated else []),
            *normed(wide, after, 1),
        )

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV3(nn.Module):
    def __init__(self, blocks: list[tuple[int, ...]], classes: int) -> None:
        super().__init__()
        first, last = blocks[0][0], blocks[-1][2]
        self.features = nn.Sequential(
            nn.Sequential(*normed(3, first, 3, 2), nn.Hardswish()),
            *(Inverted(*block) for block in blocks),
            nn.Sequential(*normed(last, 6 * last, 1), nn.Hardswish()),
        )
        self.head = nn.Sequential(
            nn.Linear(6 * last, 8 * last), nn.Hardswish(), nn.Linear(8 * last, classes)
        )

    def forward(self, x: Any) -> Any:
        return self.head(pooled(self.features(x)))


class Mixed(nn.Module):
    """Inception's block: branches of several kernels and units, side by side.

    No branch ends in a ReLU: the maximum of a map of zeros has no gradient to agree on.
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Conv2d(before, width, 1), nn.SiLU())
        self.square = nn.Sequential(
            *(nn.Conv2d(before, width, 1), nn.LeakyReLU(0.1)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.Softplus()),
        )
        self.long = nn.Sequential(
            *(nn.Conv2d(before, width, 1), nn.ELU()),
            *(nn.Conv2d(width, width, (1, 7), padding=(0, 3)), nn.ELU()),
            *(nn.Conv2d(width, width, (7, 1), padding=(3, 0)), nn.Mish()),
        )
        self.most = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
        self.mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.flat = nn.Sequential(nn.Conv2d(2 * before, width, 1), nn.SELU())

    def forward(self, x: Any) -> Any:
        flat = self.flat(torch.cat([self.most(x), self.mean(x)], dim=1))
        return torch.cat([self.point(x), self.square(x), self.long(x), flat], dim=1)


class Inception(nn.Module):
    """Side branches, LRN, PReLU, dilation, ceil_mode; max-pooled and closed by a LogSoftmax."""

    logits = "dense"
    """The module whose outputs the logits are."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 2 * width, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.LocalResponseNorm(5, 1e-2), nn.Conv2d(2 * width, width, 3, padding=2, dilation=2)),
            *(nn.PReLU(width), nn.AvgPool2d(2, ceil_mode=True)),
        )
        self.mixed = nn.Sequential(
            *(Mixed(width, width), nn.Conv2d(4 * width, 2 * width, 3, 2), nn.Tanh()),
            Mixed(2 * width, width),
        )
        self.dense = nn.Linear(4 * width, classes)

    def forward(self, x: Any) -> Any:
        x = f.adaptive_max_pool2d(self.mixed(self.stem(x)), 1).flatten(1)
        return self.dense(x).log_softmax(dim=-1)


class Grouped(nn.Module):
    """Group and instance norms, resizing, pixel shuffling, a roll, attention in an Einsum."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GroupNorm(4, width))
        self.down = nn.Conv2d(width, 2 * width, 3, 2, 1, groups=4)
        self.norm = nn.InstanceNorm2d(2 * width, affine=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
        self.wide, self.shuffle = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.PixelShuffle(2)
        self.last = nn.Sequential(nn.Conv2d(width // 2, 2 * width, 5, 3, 2), nn.Softsign())
        self.look, self.dense = nn.Conv2d(2 * width, 1, 1), nn.Linear(2 * width, classes)

    def forward(self, x: Any) -> Any:
        x = f.gelu(self.stem(x), approximate="tanh")
        x = self.up(f.silu(self.norm(self.down(x))))
        x = f.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=False)
        x = self.shuffle(torch.tanh(self.wide(f.pad(x, (1, 2, 0, 1)))))
        x = self.last(f.interpolate(x, size=(31, 31), mode="nearest"))
        x = torch.roll(x[:, :, 1:-1, ::2], 2, dims=2)
        look = self.look(x).flatten(2).softmax(dim=-1)
        seen = torch.einsum("bcp,bop->bc", x.flatten(2), look)
        return self.dense(5 * seen / seen.norm(dim=1, keepdim=True).clamp(min=1e-6))


MOBILENET_V3_SMALL = [
    (16, 16, 16, 3, 2, 0, 1),
    (16, 72, 24, 3, 2, 0, 0),
    (24, 88, 24, 3, 1, 0, 0),
    (24, 96, 40, 5, 2, 1, 1),
    *[(40, 240, 40, 5, 1, 1, 1)] * 2,
    (40, 120, 48, 5, 1, 1, 1),
    (48, 144, 48, 5, 1, 1, 1),
    (48, 288, 96, 5, 2, 1, 1),
    *[(96, 576, 96, 5, 1, 1, 1)] * 2,
]
"""Before, wide, after, kernel, stride, hard swish, gated: the rows of the paper's table 2."""

VGG_16 = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]

"""The golden nets in PyTorch; rectifiers write over what they read, as many models' do."""

from __future__ import annotations

from typing import Any

import torch
from conformance_nets import Framework, Net
from torch import nn


def framework() -> Framework:
    torch.set_num_threads(1)
    return Framework(build, tensor=torch.tensor, part=nn.Module.get_submodule)


class Sum(nn.Module):
    def forward(self, a: Any, b: Any) -> Any:
        return a + b


class Residual(nn.Module):
    def __init__(self, net: Net, *, softmax: bool) -> None:
        super().__init__()
        self.stem = conv(net, "stem", stride=2)
        self.skip = nn.ReLU(inplace=True)
        self.inner_in = conv(net, "inner", padding=1)
        self.inner = nn.ReLU(inplace=True)
        self.block = Sum()
        pools = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
        self.pooled = pools[net.axes - 1](net.pool) if net.pool > 1 else nn.Identity()
        self.last_in = conv(net, "last", padding=1)
        self.last = nn.ReLU(inplace=True)
        weight, bias = net.weights("dense")
        self.dense = filled(nn.Linear(*reversed(weight.shape)), weight, bias)
        self.closing = nn.Softmax(dim=1) if softmax else nn.Identity()

    def forward(self, x: Any) -> Any:
        skip = self.skip(self.stem(x))
        x = self.pooled(self.block(skip, self.inner(self.inner_in(skip))))
        return self.closing(self.dense(self.last(self.last_in(x)).flatten(2).mean(2)))


def conv(net: Net, part: str, **how: Any) -> nn.Module:
    weight, bias = net.weights(part)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    made = kinds[net.axes - 1](*reversed(weight.shape[:2]), weight.shape[2:], **how)
    return filled(made, weight, bias)


def filled(layer: Any, weight: Any, bias: Any) -> Any:
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def build(net: Net, *, softmax: bool) -> nn.Module:
    return Residual(net, softmax=softmax).eval()

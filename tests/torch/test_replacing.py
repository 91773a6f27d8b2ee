"""Many maps for one picture: what lies before the layer runs once, where that gives the same."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn

from cfcam_core import explain

MAPS = 7


class Net(nn.Module):
    """Maps, and what a way past them, or the number of samples, has to do with the scores."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.last, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)
        self.way = way
        self.seen: list[int] = []

    def forward(self, x: Any) -> Any:
        count = len(x)
        self.seen.append(count)
        early = self.first(x).relu()
        maps = self.last(early).relu()
        if self.way == "past":
            maps = maps + early.mean((1, 2, 3), keepdim=True)
        if self.way == "joined":
            maps = torch.cat([maps, early[:, :, 1:-1, 1:-1]], 1)[:, :6]
        if self.way == "viewed":
            maps = maps.view(count, 6, -1, 1)
        if self.way == "mixed":  # runs with any number of samples, and means another thing
            maps = maps + maps.sum(0, keepdim=True) * (1 / count)
        return self.dense(maps.mean((2, 3)))


@pytest.mark.parametrize(
    ("way", "price"),
    [("none", 1), ("past", 1), ("joined", MAPS), ("viewed", MAPS), ("mixed", MAPS)],
)
def test_one_picture_and_many_maps(way: str, price: int) -> None:
    torch.manual_seed(0)
    net = Net(way).eval()
    x = torch.rand(2, 3, 10, 12)
    backend = cfcam_torch.open_model(net)
    own = backend.capture(x[:1], layer="last").activations
    maps = own * np.random.default_rng(1).uniform(0, 2, (MAPS, 6, 1, 1)).astype(np.float32)
    with torch.no_grad():
        handle = net.last.register_forward_hook(lambda *_: torch.from_numpy(maps))
        wanted = net(x[:1].repeat(MAPS, 1, 1, 1)).numpy()
        handle.remove()
    for _ in range(2):
        net.seen.clear()
        found = backend.scores_from(maps, x[:1].repeat(MAPS, 1, 1, 1), layer="last")
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert net.seen == [price]  # the second time nothing is tried any more


def test_different_pictures_are_all_run() -> None:
    net = Net("past").eval()
    x = torch.rand(MAPS, 3, 10, 12)
    backend = cfcam_torch.open_model(net)
    maps = backend.capture(x, layer="last").activations
    net.seen.clear()
    np.testing.assert_allclose(
        backend.scores_from(maps, x, layer="last"), backend.scores(x), rtol=1e-4, atol=1e-5
    )
    assert set(net.seen) == {MAPS}


def test_channels_are_ablated_at_the_price_of_the_layers_behind() -> None:
    net = Net("past").eval()
    x = torch.rand(1, 3, 10, 12)
    explain(net, x, layer="last", method="ablation-cam")
    net.seen.clear()
    explain(net, x, layer="last", method="ablation-cam")
    assert set(net.seen) == {1}

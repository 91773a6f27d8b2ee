"""The command line on an exported program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import quiet
from torch import nn

from cfcam_core import png


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.dense = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.dense(self.trunk(x).mean((2, 3)))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    with quiet():
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        made = torch.export.export(
            Net().eval(), (torch.randn(2, 3, 20, 26),), dynamic_shapes=shapes
        )
        torch.export.save(made, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-m",
            "cfcam_core.cli",
            *map(str, arguments),
        ],
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_layers(program: Path) -> None:
    done = run("layers", program)
    assert done.returncode == 0, done.stderr
    assert "trunk.2" in done.stdout
    assert "ReLU" in done.stdout
    assert "default" in done.stdout.splitlines()[-1]


def test_explain(program: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    (tmp_path / "photo.png").write_bytes(png.encode(picture))
    done = run("explain", tmp_path / "photo.png", "--model", program, "--out", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    assert "20 x 26" in done.stderr
    assert " ok" in done.stdout
    with np.load(next((tmp_path / "maps").glob("*.npz"))) as saved:
        assert saved["heatmaps"].shape == (1, 20, 26)


def test_pickled_models_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 5, 3), tmp_path / "model.pt")
    done = run("layers", tmp_path / "model.pt")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "load" in done.stderr

"""What gets installed: four packages, their data, an entry point each, and nothing else."""

import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from subprocess import run

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"cfcam_core", "cfcam_onnx", "cfcam_torch", "cfcam_tensorflow"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    run(command, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_top_level_names_are_exactly_four(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == PACKAGES


def test_nothing_is_missing(wheel):
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"cfcam_core/demo/digits.onnx", "cfcam_core/demo/scenes.npz"} <= names
    for folder in (ROOT / "cfcam_core", *(ROOT / "backends").glob("cfcam_*")):
        for source in folder.rglob("*.py"):
            assert f"{folder.name}/{source.relative_to(folder).as_posix()}" in names


def test_nothing_is_large(wheel):
    assert sum(item.compress_size for item in wheel.infolist()) < 2_000_000


def test_entry_points_and_licence():
    found = distribution("cfcam").entry_points
    named = {e.name for e in found.select(group="cfcam.backends")}
    assert named >= {"onnx", "torch", "pt2", "keras", "h5", "pb", "tensorflow"}
    assert {e.module for e in found.select(group="cfcam.backends")} < PACKAGES
    assert {e.value for e in found.select(group="console_scripts")} == {"cfcam_core.cli:main"}
    assert distribution("cfcam").metadata["License-Expression"] == "Apache-2.0"

"""TensorFlow in this process: quiet, on the CPU; its own outdated calls into NumPy are not ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["KERAS_BACKEND"] = "tensorflow"

NOT_OURS = ("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass, in this folder, what Keras itself warns of."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    for item in items:
        if str(item.path).startswith(here):
            for each in NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(each))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Make weights and noise the same in every run."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Return what exports a model as Keras does it, to a SavedModel."""

    def write(model: Any) -> Path:
        model.export(tmp_path / "saved", verbose=False)
        return tmp_path / "saved"

    return write

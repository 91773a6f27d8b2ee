"""Keras on PyTorch and on JAX, each in a process of its own: Keras asks once, when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[1] / "helpers" / "keras_engine_cases.py"


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_engine(engine: str) -> None:
    own = {"KERAS_BACKEND": engine, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=CASES.parents[2],
        env={**os.environ, **own},
    )
    assert not done.returncode, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout

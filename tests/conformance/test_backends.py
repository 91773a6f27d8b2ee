"""Runs the specification for every backend, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conformance_nets import FRAMEWORKS

ROOT = Path(__file__).parents[2]


def run(backend: str, *how: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on this folder for one backend, as anybody would."""
    # -P: what is tested is what is installed, not what lies in the working folder
    command = [sys.executable, "-P", *(how or ("-m", "pytest"))]
    command += ["tests/conformance", "--backend", backend, "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_backend_keeps_to_the_specification(backend):
    done = run(backend)
    assert not done.returncode, f"--backend {backend}\n{done.stdout}"
    assert "passed" in done.stdout


def test_an_unknown_backend_fails():
    done = run("onyx")
    assert done.returncode
    assert "--backend onyx is unknown" in done.stdout


def test_a_backend_that_is_not_installed_fails():
    code = "import sys, pytest; sys.modules['torch'] = None; sys.exit(pytest.main())"
    done = run("torch", "-c", code)
    assert done.returncode
    assert "import of torch halted" in done.stdout
    assert "passed" not in done.stdout

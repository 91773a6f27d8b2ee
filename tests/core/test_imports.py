"""What ``import cfcam_core`` may not bring along."""

from __future__ import annotations

import subprocess
import sys

import pytest

DENIED = {
    *("torch", "tensorflow", "keras", "onnx", "onnxruntime", "sklearn"),
    *("cv2", "PIL", "matplotlib", "pandas", "typer", "click", "rich"),
    *("cfcam_onnx", "cfcam_torch", "cfcam_tensorflow"),
}


@pytest.mark.parametrize(
    "module",
    [
        "cfcam_core",
        "cfcam_core.images",
        "cfcam_core.overlay",
        "cfcam_core.archive",
        "cfcam_core.report",
        "cfcam_core.cli",
    ],
)
def test_nothing_heavy_is_imported(module):
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not DENIED & set(done.stdout.split())
    assert "numpy" in done.stdout.split()

"""A backend of a few lines, found like any other: through an entry point on the path."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

BACKEND = '''
import json
import warnings
from pathlib import Path
import numpy as np
from cfcam_core import Capture, InvalidInputError, Layer, LayerNotFoundError, UnsupportedOpError
from cfcam_core.targets import resolve_targets

class Tiny:
    """relu(mix of the input's channels), 4 x 4 block means, a linear layer on their means."""

    def __init__(self, spec):
        self.input_shape = tuple(spec.get("shape", (None, 3, 16, 16)))
        self.input_layout = spec.get("layout", "channels_first")
        self.extra_layers = spec.get("layers", [])
        self.between = spec.get("between", [])  # tensors that have a name and are not listed
        self.module = spec.get("module", "")
        self.blank = spec.get("blank", False)
        self.fault = spec.get("fault")
        self.operator = spec.get("operator")
        self.is_token_model = spec.get("tokens", False)
        self.only_extra = spec.get("only_extra", False)
        rng = np.random.default_rng(0)
        channels = self.input_shape[-1 if self.input_layout == "channels_last" else 1]
        self.mix = rng.normal(size=(12, channels)).astype("f")
        self.head = rng.normal(size=(spec.get("classes", 4), 12)).astype("f")

    def layers(self):
        last = Layer("relu/out", (None, 12, 4, 4), "Relu", True, self.module)
        own = [] if self.only_extra else [last]
        return [*(Layer(n, (None, 12, 4, 4), "Conv") for n in self.extra_layers), *own]

    def forward(self, x):
        if self.input_layout == "channels_last":
            x = np.moveaxis(x, -1, 1)
        n, c, h, w = x.shape
        assert x.dtype == np.float32
        blocks = x.reshape(n, c, 4, h // 4, 4, w // 4).mean(axis=(3, 5))
        return np.maximum(np.einsum("mc,nchw->nmhw", self.mix, blocks), 0), (h, w)

    def scores(self, x):
        return self.forward(x)[0].mean(axis=(2, 3)) @ self.head.T

    def capture(self, x, *, layer=None, target=None):
        if self.fault:
            raise InvalidInputError(self.fault)
        if self.operator:
            raise UnsupportedOpError(f"{self.operator} has no gradient")
        names = [each.name for each in self.layers()]
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            layer = names[layer]
        if (layer or "relu/out") not in [*names, *self.between]:
            raise LayerNotFoundError(f"no layer {layer!r}; did you mean 'relu/out'? pass layer=")
        A, size = self.forward(x)
        scores = A.mean(axis=(2, 3)) @ self.head.T
        targets, cotangents = resolve_targets(target, scores)
        G = np.broadcast_to((cotangents @ self.head)[:, :, None, None] / 16, A.shape)
        G = G * (0 if self.blank else 1)
        if self.is_token_model:
            A, G, size = A.reshape(*A.shape[:2], -1), G.reshape(*G.shape[:2], -1), None
        return Capture(A, G, scores, targets, layer or "relu/out", size)

    def scores_from(self, activations, inputs, *, layer=None):
        return activations.mean(axis=(2, 3)) @ self.head.T

def open_model(path):
    spec = json.loads(Path(path).read_text() or "{}")
    if "interrupt" in spec:
        raise KeyboardInterrupt
    if "error" in spec:
        raise InvalidInputError(spec["error"])
    if "warning" in spec:
        warnings.warn(spec["warning"], UserWarning, stacklevel=1)
    return Tiny(spec)
'''


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, installs a backend for files ending in ``.tiny``."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "tinycam.py").write_text(textwrap.dedent(BACKEND))
    info = folder / "tinycam-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinycam\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cfcam.backends]\ntiny = tinycam:open_model\n")
    return folder


@pytest.fixture
def model(tmp_path, plugin, monkeypatch):
    """Make a model file of the tiny backend; usable in this process and in those it starts."""
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.setenv("PYTHONPATH", str(plugin), prepend=os.pathsep)

    def make(name: str = "model.tiny", **spec: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(spec))
        return path

    return make


@pytest.fixture
def photo(tmp_path):
    """Write a picture with a bright square, in the format of its suffix; return its path."""

    def make(name: str = "photo.png", size: tuple[int, int] = (40, 60)) -> Path:
        image = np.full((*size, 3), 30, np.uint8)
        image[5:15, 40:55] = (40, 90, 240)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
        return path

    return make


@pytest.fixture
def cfcam(tmp_path):
    """Run the command in a process of its own, in a fresh folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cfcam_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "40", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def terminal(tmp_path):
    """Run the command with a terminal for standard output; return the exit code and the text."""

    def run(*arguments: object, **environment: str) -> tuple[int, bytes]:
        leader, follower = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "cfcam_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            stdout=follower,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm", **environment},
        ) as process:
            os.close(follower)
            text = b""
            while True:
                try:
                    text += os.read(leader, 4096)
                except OSError:
                    break
        os.close(leader)
        return process.returncode, text

    return run

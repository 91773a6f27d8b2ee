"""``cfcam export``, and ``cfcam explain`` with what it wrote or a model that names its own maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from cfcam_core import Explanation, Layer
from cfcam_core.cli.exporting import export
from cfcam_core.demo.shipped import MODEL


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits.onnx"
    path.write_bytes(MODEL.read_bytes())
    return path


def test_the_file_is_named_after_the_model_and_explains_like_it(
    cfcam, digits, photo, tmp_path
) -> None:
    done = cfcam("export", digits)
    assert (done.returncode, done.stderr) == (0, "")
    size = (tmp_path / "digits.explain.onnx").stat().st_size
    assert done.stdout == (
        f"digits.explain.onnx: {size / 1e3:.1f} kB, explains layer conv6_relu, "
        "activations ? x 96 x 16 x 16\n"
    )
    picture = photo()
    for model, out in (("digits.onnx", "a"), ("digits.explain.onnx", "b")):
        done = cfcam("explain", picture, "--model", model, "--target", "3", "--out", out)
        assert done.returncode == 0
    a, b = (Explanation.load(tmp_path / out / "photo.cfcam.npz") for out in "ab")
    np.testing.assert_allclose(a.heatmaps, b.heatmaps, atol=1e-5)
    np.testing.assert_array_equal(a.targets, b.targets)
    assert (a.layer, a.targets.tolist()) == (b.layer, [3])
    done = cfcam("layers", "digits.explain.onnx")
    assert done.stdout.splitlines()[1].split() == [
        *("0", "conv6_relu", "?", "x", "96", "x", "16", "x", "16", "Relu", "default")
    ]


def test_options(cfcam, digits, tmp_path) -> None:
    done = cfcam(
        "export", digits, "--layer", "2", "--with-map", "-o", "e.onnx", "--output", "logits"
    )
    assert done.returncode == 0
    numbered = cfcam("layers", digits).stdout.splitlines()[3].split()
    assert f"explains layer {numbered[1]}," in done.stdout
    model = onnx.load(tmp_path / "e.onnx")
    assert [info.name for info in model.graph.output][3:] == ["map", "heatmap"]
    again = cfcam("export", digits, "--layer", numbered[1], "--with-map", "-o", "f.onnx")
    assert again.returncode == 0
    assert (tmp_path / "e.onnx").read_bytes() == (tmp_path / "f.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "there is no model file"),
        (["digits.onnx", "--layer", "nope"], "all are listed by: cfcam layers"),
        (["digits.onnx", "--layer", "99"], "layer 99 is out of range"),
        (["digits.onnx", "--output", "nope"], "no output 'nope'; it has logits"),
        (["digits.onnx", "-o", "no/such.onnx"], "there is no folder 'no'"),
        (["digits.onnx", "-o", "digits.onnx"], "it is the model itself"),
        (["digits.onnx", "-o", "digits.txt"], "must end in .onnx"),
        (["ready.onnx"], "it is one already"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(cfcam, digits, tmp_path, arguments, message) -> None:
    assert cfcam("export", digits, "-o", "ready.onnx").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = cfcam("export", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_backend_that_cannot_export_says_so(cfcam, model) -> None:
    done = cfcam("export", model())
    assert (done.returncode, done.stdout) == (2, "")
    assert "pass the original .onnx file" in done.stderr


class Writing:
    """A backend that writes a model and its weights, as for those over 2 GB."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def layers(self) -> list[Layer]:
        return [Layer(name, (1, 2, 3, 3), "Relu", module="body.1") for name in ("a", "b", "c")]

    def export(self, path: Path, *, layer: object, with_map: bool) -> Layer:
        assert layer == 1
        for name, size in zip(
            (path.name, f"{path.name}.{with_map}.data"), self.sizes, strict=False
        ):
            with path.with_name(name).open("wb") as file:
                file.truncate(size)  # a hole: takes no room
        return self.layers()[1]


def test_every_file_is_named_with_its_size(tmp_path) -> None:
    out = tmp_path / "big[1].onnx"
    first = export(Writing(999_949, 2_500_000_000), out, layer="1", with_map=True)
    assert first == [
        f"{out}: 999.9 kB, explains layer b, activations 1 x 2 x 3 x 3",
        f"{out}.True.data: 2.5 GB, its weights; keep both files in one folder",
    ]
    assert export(Writing(999_950, 700), out, layer="1", with_map=True) == [
        f"{out}: 1.0 MB, explains layer b, activations 1 x 2 x 3 x 3",
        f"{out}.True.data: 0.7 kB, its weights; keep both files in one folder",
    ]
    # weights of an earlier model stay where they are, and are none of this one's
    (line,) = export(Writing(2_000_000), out, layer="1", with_map=False)
    assert line.startswith(f"{out}: 2.0 MB, explains")


def test_models_that_name_their_own_maps(cfcam, photo, tmp_path) -> None:
    weight = helper.make_tensor("w", 1, [2, 3, 3, 3], np.linspace(-1, 1, 54))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["maps"], strides=[2, 2], pads=[1] * 4),
            helper.make_node("Sigmoid", ["maps"], ["slopes"]),
            helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "ready",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info(n, 1, None) for n in ("maps", "slopes", "logits")],
        [weight],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "ready.onnx",
    )
    names = ("--activations", "maps", "--gradients", "slopes")
    done = cfcam("explain", photo(), "--model", "ready.onnx", *names, "--scores", "logits")
    assert done.returncode == 0
    (row,) = done.stdout.splitlines()[1:]
    assert row.split()[1:] == ["not", "known", "-", "-", "maps", "ok"]
    saved = Explanation.load(tmp_path / "cfcam-out" / "photo.cfcam.npz")
    assert saved.targets.tolist() == [-1]
    done = cfcam("explain", photo(), "--model", "ready.onnx", *names, "--target", "1")
    assert done.returncode == 2
    assert "cannot be chosen" in done.stderr
    done = cfcam("explain", photo(), "--model", "ready.onnx", "--activations", "maps")
    assert done.returncode == 2
    assert "name both outputs" in done.stderr

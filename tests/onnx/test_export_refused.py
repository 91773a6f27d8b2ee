"""Explain-ready files that cannot be written or read: what is left of them, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from cfcam_onnx._ready import ReadyBackend, saving
from cfcam_onnx._rules import RULES
from ready_files import Runtime, same
from whole_models import images, opened

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, LayerNotFoundError, UnsupportedOpError

pytestmark = pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")


# ----------------------------------------------------------------------------- what is not possible


def test_the_one_layer_and_no_other(small: Any, exported: Any) -> None:
    _, path, _ = exported(small(), layer="gated")
    backend = cfcam.open_model(path)
    assert isinstance(backend, ReadyBackend)
    (layer,) = backend.layers()
    assert (layer.name, layer.shape, layer.is_default) == ("gated", (None, 8, 6, 5), True)
    for named in ("gated", 0, -1, layer, None):
        assert backend.capture(images(), layer=named).layer == "gated"
    for other in ("stem", 1, True, 2.5, [1], np.ones(2)):
        with pytest.raises(LayerNotFoundError, match=r"'gated' alone.*the original"):
            backend.capture(images(), layer=other)
    with pytest.raises(UnsupportedOpError, match="open the original"):
        backend.scores_from(images(), images())


def test_a_ready_file_is_not_exported_again_nor_a_model_onto_itself(
    small: Any, tmp_path: Path
) -> None:
    source, path = tmp_path / "m.onnx", tmp_path / "e.onnx"
    onnx.save(small(), source)
    cfcam_onnx.export(source, path)
    with pytest.raises(InvalidInputError, match="explain-ready already"):
        cfcam_onnx.export(path, tmp_path / "again.onnx")
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    for place in (source, link):
        with pytest.raises(InvalidInputError, match="the model itself"):
            cfcam_onnx.export(source, place)
    with pytest.raises(InvalidInputError, match="output='x' cannot be chosen"):
        cfcam.open_model(path, output="x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/e.onnx", "there is no folder"),
        ("e.bin", "must end in .onnx"),
        ("e", "call it 'e.onnx'"),
        ("folder.onnx", "it is a folder"),
        ("file.txt/e.onnx", "there is no folder"),
    ],
)
def test_places_that_cannot_be_written(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file.txt").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match=message):
        cfcam_onnx.export(small(), name)
    assert sorted(tmp_path.iterdir()) == before


def test_operators_without_a_gradient_are_named_with_advice(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(RULES, "Softplus")
    n = net("N", 3, 12, 10)
    early = n.add("Tanh", n.conv(n.x, 3, 4), name="early")
    hard = n.add("Softplus", early)
    late = n.add("Tanh", n.conv(hard, 4, 4), name="late")
    backend = opened(n.model(n.head(late, 4)))
    with pytest.raises(UnsupportedOpError, match=r"(?s)'early'.*Softplus.*later layer"):
        backend.export(tmp_path / "e.onnx", layer="early")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- large, torn


def weighty(net: Any, seed: int) -> onnx.ModelProto:
    n = net("N", 3, 8, 6, seed=seed)
    last = n.add("Tanh", n.conv(n.x, 3, 40), name="last")
    return n.model(n.head(n.add("Tanh", n.conv(last, 40, 30)), 30))


def test_weights_that_one_file_cannot_hold_lie_beside_it(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.onnx", tmp_path / "parts.onnx"
    original = opened(weighty(net, 0))
    original.export(whole)
    monkeypatch.setattr(saving, "LARGEST_FILE", 20_000)
    original.export(parts)
    (data,) = tmp_path.glob("*.data")
    assert parts.stat().st_size < 20_000 < data.stat().st_size
    x = images(2, 3, 8, 6)
    for name, array in Runtime(whole)(x, [-1, 2]).items():
        np.testing.assert_array_equal(Runtime(parts)(x, [-1, 2])[name], array)
    same(original, parts, x)
    opened(weighty(net, 1)).export(parts)  # another model: its weights get another name
    assert len(list(tmp_path.glob("*.data"))) == 2
    same(opened(weighty(net, 1)), parts, x)


@pytest.mark.parametrize("largest", [saving.LARGEST_FILE, 20_000])
def test_what_was_there_stays_if_writing_fails(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    path = tmp_path / "e.onnx"
    path.write_text("something else")
    monkeypatch.setattr(saving, "LARGEST_FILE", largest)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InvalidInputError, match="No space left on device"):
        opened(weighty(net, 0)).export(path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["something else"]


def test_weights_do_not_stay_without_their_model(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "e.onnx", Path.replace
    monkeypatch.setattr(saving, "LARGEST_FILE", 20_000)

    def fail(self: Path, target: Path) -> Path:
        if target == path:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(InvalidInputError, match="Permission denied"):
            opened(weighty(net, 0)).export(path)
        assert not list(tmp_path.iterdir())
    opened(weighty(net, 0)).export(path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InvalidInputError, match="Permission denied"):
        opened(weighty(net, 0)).export(path)  # the same again: what it refers to stays
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cfcam.format", "2", "pip install --upgrade"),
        ("cfcam.format", "", "pip install --upgrade"),
        ("cfcam.input_axes", "2,x", "has 'x' as axis"),
        ("cfcam.input_axes", "2,9", r"axes \(2, 9\)"),
        ("cfcam.input_axes", "", r"axes \(\)"),
        ("cfcam.input_axes", "2,2", r"axes \(2, 2\)"),
        ("cfcam.input_axes", "3", r"axes \(3,\)"),
        ("cfcam.input_axes", "-1,2", "has '-1' as axis"),
        ("cfcam.prefix", "many", "has 'many' as axis"),
    ],
)
def test_damaged_metadata_are_refused(
    small: Any, exported: Any, key: str, value: str, message: str
) -> None:
    _, path, _ = exported(small())
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=key, value=value)
    with pytest.raises(InvalidInputError, match=message):
        cfcam.explain(model, images())


@pytest.mark.parametrize("lost", ["logits", "activations", "gradients", "class_index"])
def test_a_ready_file_without_its_tensors_is_refused(small: Any, exported: Any, lost: str) -> None:
    _, path, _ = exported(small())
    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        info.name = "another" if info.name == lost else info.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["another" if name == lost else name for name in names]
    with pytest.raises(InvalidInputError, match=f"has no {lost}"):
        cfcam.open_model(model)


def test_a_ready_file_that_says_nonsense_fails_with_our_errors(small: Any, exported: Any) -> None:
    _, path, _ = exported(small())
    for key, value in (("prefix", "3"), ("input", "nothing"), ("layer", ""), ("kind", "\0")):
        model = onnx.load(path)
        model.metadata_props.add(key=f"cfcam.{key}", value=value)
        try:
            found = cfcam.explain(model, images(), method="hires-cam")
        except InvalidInputError:
            assert key == "prefix"
        else:
            assert found.heatmaps.shape[1:] == ((6, 5) if key == "input" else (12, 10))

"""`Explanation.save` and `load`."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from cfcam_core import Explanation, InvalidInputError, Settings
from cfcam_core.settings import PRESETS


def explanation(**changes):
    rng = np.random.default_rng(0)
    whole = Explanation(
        heatmaps=rng.random((2, 8, 6), np.float32),
        maps=rng.normal(size=(2, 4, 3)).astype(np.float32),
        weights=rng.normal(size=(2, 5)).astype(np.float32),
        labels=rng.integers(-2, 3, (2, 5)),
        targets=np.array([3, -1]),
        scores=rng.normal(size=(2, 10)).astype(np.float32),
        status=("ok", "all_negative"),
        layer="features/ä.0",
        method="cf-cam",
        settings=Settings(),
    )
    return replace(whole, **changes)


def assert_equal(a, b):
    for field in fields(Explanation):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            np.testing.assert_array_equal(x, y)
        else:
            assert x == y, field.name


@pytest.mark.parametrize("preset", [*PRESETS, None])
@pytest.mark.parametrize("absent", [{}, {"labels": None}, {"scores": None}])
def test_a_round_trip_changes_nothing(tmp_path, preset, absent):
    settings = None if preset is None else Settings.preset(preset)
    before = explanation(settings=settings, **absent)
    before.save(tmp_path / "e.npz")
    after = Explanation.load(tmp_path / "e.npz")
    assert_equal(before, after)
    assert not after.heatmaps.flags.writeable


def test_plain_numpy_reads_it(tmp_path):
    before = explanation()
    before.save(str(tmp_path / "e.npz"))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {f.name for f in fields(Explanation)} | {"format"}
        np.testing.assert_array_equal(archive["heatmaps"], before.heatmaps)
        assert archive["status"].tolist() == ["ok", "all_negative"]
        assert str(archive["settings"]) == Settings().to_json()
        assert archive["format"] == 1


def test_the_suffix_may_be_left_out(tmp_path):
    explanation().save(tmp_path / "cat.1")
    assert [p.name for p in tmp_path.iterdir()] == ["cat.1.npz"]
    assert_equal(Explanation.load(tmp_path / "cat.1"), explanation())


@pytest.mark.parametrize("name", ["cat.png", "cat.JPG"])
def test_pictures_are_not_what_is_saved(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"png.write\('.*cat.png', e.overlay\(photo"):
        explanation().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_settings_with_a_clusterer_come_back_as_none_not_as_others(tmp_path):
    class Mine:
        def fit_predict(self, rows):
            return np.zeros(len(rows), int)

        def __repr__(self):
            return "Mine()"

    explanation(settings=Settings(filter="gaussian", clusterer=Mine())).save(tmp_path / "e")
    assert Explanation.load(tmp_path / "e").settings is None
    with np.load(tmp_path / "e.npz") as archive:
        assert "Mine()" in str(archive["settings"])


@pytest.mark.parametrize("settings", ['{"invented_later": 1}', '{"filter": "new"}', "[1]", "?"])
def test_settings_of_a_later_version_do_not_hide_the_maps(tmp_path, settings):
    rewrite(tmp_path / "e.npz", settings=settings)
    assert Explanation.load(tmp_path / "e.npz").settings is None


def test_nothing_is_written_half(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    explanation().save(path)

    def full_disk(file, **_arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(InvalidInputError, match=r"e\.npz': No space left on device; make room"):
        explanation(method="grad-cam").save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    assert_equal(Explanation.load(path), explanation())


def test_files_are_as_readable_as_others(tmp_path):
    (tmp_path / "other").touch()
    explanation().save(tmp_path / "e")
    modes = {(tmp_path / name).stat().st_mode for name in ("other", "e.npz")}
    assert len(modes) == 1


def test_saving_where_there_is_no_folder(tmp_path):
    with pytest.raises(InvalidInputError, match="create it first"):
        explanation().save(tmp_path / "absent" / "e.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InvalidInputError, match="is a folder"):
        explanation().save(tmp_path / "folder.npz")
    (tmp_path / "plain").mkdir()
    with pytest.raises(InvalidInputError, match="is a folder"):
        explanation().save(tmp_path / "plain")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


def rewrite(path, **changes):
    """Save an explanation with some keys changed, or left out where the change is None."""
    explanation().save(path)
    with np.load(path) as archive:
        stored = {name: archive[name] for name in archive.files}
    stored.update(changes)
    np.savez(path, **{k: v for k, v in stored.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "pip install --upgrade cfcam"),
        ({"format": np.array("x")}, "format"),
        ({"format": None}, "without format"),
        ({"maps": None, "status": None}, "without maps, status"),
        ({"targets": np.zeros(3, int)}, "belong together"),
        ({"labels": np.zeros((3, 5), int)}, "belong together"),
        ({"status": np.array(["ok", "fine"])}, "status 'fine' is unknown; known are ok, flat"),
        ({"status": np.array(["ok"])}, "belong together"),
        ({"status": np.array([["ok"], ["ok"]])}, "is unknown; known are"),
        ({"heatmaps": np.zeros((2, 8), "f")}, "belong together"),
        ({"heatmaps": np.array([None, 1], object)}, "no .npz archive of plain arrays"),
    ],
)
def test_archives_that_are_not_ours_are_refused(tmp_path, changes, message):
    path = tmp_path / "e.npz"
    rewrite(path, **changes)
    with pytest.raises(InvalidInputError) as caught:
        Explanation.load(path)
    assert message in str(caught.value)
    assert "e.npz" in str(caught.value)
    assert "pickle" not in str(caught.value)
    assert "status known" not in str(caught.value)


def test_files_that_are_no_archives_are_refused(tmp_path):
    path = tmp_path / "e.npz"
    explanation().save(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[: middle - 99] + bytes(8) + whole[middle - 91 :]
    for content in (b"", b"text", whole[:middle], whole[:-9], damaged):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"e\.npz") as caught:
            Explanation.load(path)
        assert "pickle" not in str(caught.value)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(InvalidInputError, match="is no archive of named arrays"):
        Explanation.load(tmp_path / "bare.npy")
    with pytest.raises(InvalidInputError, match="does not exist"):
        Explanation.load(tmp_path / "absent.npz")
    with pytest.raises(InvalidInputError, match="is a folder"):
        Explanation.load(tmp_path)


@pytest.mark.parametrize("index", [1, -1, np.int64(1), np.uint8(1), slice(1, None)])
def test_a_sample_is_chosen_by_any_integer_or_a_slice(index):
    whole = explanation()
    part = whole[index]
    assert (len(part), part.status) == (1, ("all_negative",))
    np.testing.assert_array_equal(part.scores, whole.scores[1:])


@pytest.mark.parametrize("index", [[0, 1], np.array([True, False]), "maps", 1.0, None, (0, 1)])
def test_samples_are_chosen_by_nothing_else(index):
    with pytest.raises(TypeError, match=rf"slice, not by a {type(index).__name__}"):
        explanation()[index]

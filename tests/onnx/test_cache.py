"""What is kept from one process to the next: never wrong, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from cfcam_onnx import Limits, OnnxBackend
from cfcam_onnx._cache import Cache, Entries, find_cache
from cfcam_onnx._graph import Graph
from cfcam_onnx._learned import from_bytes, learned_once, to_bytes
from cfcam_onnx._model import prepare
from cfcam_onnx._probe import probe
from cfcam_onnx._reading import read_model
from hypothesis import given
from hypothesis import strategies as st
from whole_models import images

from cfcam_core import InvalidInputError


@pytest.fixture
def tried(net: Any) -> Any:
    """A model that only a trial run understands: its pooling is written out with shapes."""

    def build(seed: int = 0) -> onnx.ModelProto:
        n = net("N", 3, "H", "W", seed=seed)
        a = n.add("Tanh", n.conv(n.x, 3, 4), name="a")
        b = n.add("Sigmoid", n.conv(a, 4, 4), name="b")
        sizes = n.add("Slice", n.add("Shape", b), np.array([0]), np.array([2]))
        flat = n.add("Reshape", b, n.add("Concat", sizes, np.array([-1]), axis=0))
        means = n.add("ReduceMean", flat, axes=[2], keepdims=0)
        return n.model(n.add("MatMul", means, n.normal(4, 300)))

    return build


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the trial runs, and the gradient programs that are made."""
    counts = [0, 0]

    def counted(name: str, which: int) -> None:
        module, function = name.rsplit(".", 1)
        real = getattr(sys.modules[module], function)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[which] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(name, call)

    counted("cfcam_onnx._classifier.probe", 0)
    counted("cfcam_onnx._sessions.gradient_program", 1)
    return counts


def opened(model: Any, cache: Any) -> OnnxBackend:
    return cfcam_onnx.open_model(model, threads=1, cache=cache)


def entries_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


X = images(2, 3, 12, 10)


# ------------------------------------------------------------------------------------- on the disk


def test_the_second_opening_tries_nothing(tried: Any, tmp_path: Path, trials: list[int]) -> None:
    folder, found = tmp_path / "new" / "cache", []
    for _ in range(3):
        backend = opened(tried(), folder)
        found.append(backend.capture(X, layer="a"))
        assert backend.layers() == opened(tried(), cache=False).layers()
    assert trials == [1 + 3, 1]
    assert len(entries_in(folder)) == 2
    assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"
    for again in found[1:]:
        np.testing.assert_array_equal(again.gradients, found[0].gradients)
        np.testing.assert_array_equal(again.scores, found[0].scores)


def test_nothing_is_kept_where_no_trial_was_needed(
    small: Any, tmp_path: Path, trials: list[int]
) -> None:
    opened(small(), tmp_path).capture(images())
    assert trials == [0, 1]
    assert entries_in(tmp_path) == []


def test_other_weights_other_entries(tried: Any, tmp_path: Path, trials: list[int]) -> None:
    for seed in (0, 1, 0, 1):
        capture = opened(tried(seed), tmp_path).capture(X)
        wanted = opened(tried(seed), cache=False).capture(X)
        np.testing.assert_array_equal(capture.gradients, wanted.gradients)
    assert trials[0] == 2 + 4


def test_a_single_bit_of_a_large_weight_counts(tried: Any) -> None:
    model, rng = tried(), np.random.default_rng(0)
    weights = {name: rng.standard_normal((8, 6), np.float32) for name in ("a", "b")}
    entries = Entries(Cache(Path("nowhere"), 10**6))
    first = entries.of(model, weights)
    assert entries.of(model, dict(reversed(weights.items()))) == first
    assert entries.of(tried(1), weights).content != first.content
    flipped = weights["b"].copy()
    flipped.view(np.uint8)[-1, -1] ^= 1
    others = [
        {"a": weights["b"], "b": weights["a"]},
        {"a": weights["a"], "c": weights["b"]},
        *(weights | {"b": b} for b in (flipped, weights["b"].reshape(6, 8), weights["b"].T)),
        weights | {"b": weights["b"].view(np.int32)},
    ]
    sums = {entries.of(model, each).content for each in others}
    assert len(sums - {first.content}) == len(others)


def test_programs_belong_to_what_was_learned(tried: Any, tmp_path: Path) -> None:
    read = read_model(tried())
    graph = Graph(prepare(read.model), read.weights)
    entries = Entries(Cache(tmp_path, 10**6)).of(graph.model, graph.weights)
    failed = learned_once(graph, ["z"], entries, Limits(), lambda: "it does not run")
    assert failed == ("it does not run", Entries())
    assert entries_in(tmp_path) == []
    found = {entries.knowing(told).content for told in (b"", b"one", b"two")}
    assert len(found - {entries.content}) == 3
    facts: Any = {"b": (1, None, "N")}, {}, {}
    _, after = learned_once(graph, ["z"], entries, Limits(), lambda: graph.learn(*facts))
    assert after == entries.knowing(to_bytes(facts))
    assert Entries().knowing(b"one") == Entries()


def test_other_outputs_other_programs(net: Any, tmp_path: Path) -> None:
    """All of these are brought to two axes, under one name."""
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.conv(n.x, 3, 4), name="a")
    a = n.add("Reshape", a, n.add("Shape", a))
    one, two = (n.add("GlobalAveragePool", n.conv(a, 4, 5), name=name) for name in ("one", "two"))
    model = n.model(n.add("Softmax", two, axis=1, name="three"))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(one))
    for how in ({"output": one}, {}, {"look_through": False}, {"output": one}):
        kept, wanted = (
            OnnxBackend(model, threads=1, cache=folder, **how).capture(X, layer="a", target=1)
            for folder in (tmp_path, False)
        )
        np.testing.assert_array_equal(kept.scores, wanted.scores)
        np.testing.assert_array_equal(kept.gradients, wanted.gradients)
    assert len(entries_in(tmp_path)) == 1 + 3


def test_what_smaller_limits_left_out_is_tried_under_larger_ones(
    tried: Any, tmp_path: Path, trials: list[int]
) -> None:
    small, large = Limits(trial_sample=3 * 224 * 256), Limits(memory=9 << 30)
    found = [
        OnnxBackend(tried(), threads=1, cache=tmp_path, limits=limits)._model.graph.shape("x")
        for limits in (small, None, small, None, large, Limits(trial_seconds=20.0))
    ]
    assert [shape[2] for shape in found] == ["224|21", "224|21|331"] * 2 + ["224|21|331"] * 2
    assert trials[0] == 3


@pytest.mark.parametrize("said", ["onnx.__version__", "onnxruntime.__version__"])
def test_other_versions_other_entries(
    tried: Any, tmp_path: Path, trials: list[int], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    opened(tried(), tmp_path)
    monkeypatch.setattr(said, "0.0.1")
    opened(tried(), tmp_path)
    assert trials[0] == 2


def test_other_code_or_format_other_entries(
    tried: Any, tmp_path: Path, trials: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tried(), tmp_path)
    monkeypatch.setattr("cfcam_onnx._cache._code", lambda: "changed")
    opened(tried(), tmp_path)
    monkeypatch.setattr("cfcam_onnx._cache.FORMAT", 0)
    opened(tried(), tmp_path)
    opened(tried(), tmp_path)
    assert trials[0] == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "swapped", "folder"])
def test_damaged_entries_are_made_again(
    tried: Any, tmp_path: Path, trials: list[int], damage: str
) -> None:
    wanted = opened(tried(), tmp_path).capture(X)
    paths = entries_in(tmp_path)
    contents = [path.read_bytes() for path in paths]
    for path, content, other in zip(paths, contents, contents[::-1], strict=True):
        flipped = bytearray(content)
        flipped[-20] ^= 4
        if damage == "folder":
            path.unlink()
            path.mkdir()
            continue
        path.write_bytes(
            {"cut": content[:-9], "flipped": flipped, "empty": b"", "swapped": other}[damage]
        )
    capture = opened(tried(), tmp_path).capture(X)
    assert trials == [2, 2]
    np.testing.assert_array_equal(capture.gradients, wanted.gradients)
    if damage != "folder":
        assert [path.read_bytes() for path in paths] == contents
        opened(tried(), tmp_path).capture(X)
        assert trials == [2, 2]


@pytest.mark.parametrize("place", ["file", "below a file", "nameless", "/proc/nowhere"])
def test_without_a_place_it_works_without_a_cache(
    tried: Any, tmp_path: Path, trials: list[int], place: str
) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    folders = {
        "file": tmp_path / "taken",
        "below a file": tmp_path / "taken" / "cache",
        "nameless": tmp_path / "zero\0byte",
    }
    for _ in range(2):
        opened(tried(), folders.get(place, place)).capture(X)
    assert trials == [2, 2]
    assert (tmp_path / "taken").read_bytes() == b"mine"


def test_a_full_disk_leaves_nothing_behind(
    tried: Any, tmp_path: Path, trials: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for _ in range(2):
        opened(tried(), tmp_path).capture(X)
    assert trials == [2, 2]
    assert entries_in(tmp_path) == []


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * 132 + 50)
    (tmp_path / "notes.txt").write_bytes(bytes(1000))  # the user's own: neither counted nor removed
    for i, name in enumerate("abc"):
        cache.write(name, name.encode() * 100)
        os.utime(tmp_path / f"{name}.cfcam", (i, i))
    assert cache.read("a") == b"a" * 100  # used just now
    cache.write("d", b"d" * 100)
    assert [cache.read(name) is not None for name in "abcd"] == [True, False, True, True]
    cache.write("e", b"e" * 1000)
    assert cache.read("e") is None
    assert [cache.read(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (tmp_path / "notes.txt").exists()


def test_half_written_files_go_once_they_are_old(tmp_path: Path) -> None:
    old, new, other = (tmp_path / n for n in (".cfcam-1.tmp", ".cfcam-2.tmp", "other.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"?")
    for path in (old, other):
        os.utime(path, (1, 1))
    Cache(tmp_path, 1000).write("a", b"content")
    assert entries_in(tmp_path) == sorted([new, other, tmp_path / "a.cfcam"])


def test_processes_that_write_at_once(tried: Any, tmp_path: Path, trials: list[int]) -> None:
    model, folder = tmp_path / "model.onnx", tmp_path / "cache"
    onnx.save(tried(), model)
    code = (
        "import sys, numpy as np, cfcam_onnx\n"
        "for i in range(3):\n"
        "    model = cfcam_onnx.open_model(sys.argv[1], threads=1, cache=sys.argv[2])\n"
        "    found = model.capture(np.ones((1, 3, 12, 10)), layer='ab'[i % 2]).gradients\n"
        "print(repr(found.tolist()))"
    )
    command = [sys.executable, "-c", code, str(model), str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(printed) == 1
    assert len(entries_in(folder)) == 3
    opened(model, folder).capture(X, layer="a")
    assert trials == [0, 0]


def test_threads_that_write_at_once(tmp_path: Path) -> None:
    cache, contents = Cache(tmp_path, 10**6), {str(i): os.urandom(1000) for i in range(20)}

    def work(start: int) -> None:
        for i in range(60):
            key = str((start + i) % 20)
            assert cache.read(key) in (None, contents[key])
            cache.write(key, contents[key])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert {path.stem for path in entries_in(tmp_path)} == set(contents)
    assert all(cache.read(key) == content for key, content in contents.items())


# ------------------------------------------------------------------------------ what is to be kept

SIZES = st.one_of(st.none(), st.integers(0, 9), st.text("Nx|0 ", min_size=1, max_size=4))
SHAPES = st.one_of(st.none(), st.lists(SIZES, max_size=4).map(tuple))
NAMES = st.text(max_size=6)
VALUES = st.builds(
    lambda numbers, dtype: np.array(numbers).astype(dtype),
    st.one_of(st.integers(0, 100), st.lists(st.integers(0, 100), max_size=5)),
    st.sampled_from(["f4", "f8", "f2", "i8", "i4", "u1", "?", "i2"]),
)


@given(
    st.dictionaries(NAMES, SHAPES, max_size=4),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=4),
)
def test_what_was_learned_survives(shapes: Any, values: Any, samples: Any) -> None:
    content = to_bytes((shapes, values, samples))
    again = from_bytes(content)
    assert (again[0], again[2]) == (shapes, samples)
    assert again[1].keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(again[1][name], value)
        assert again[1][name].dtype == value.dtype
    assert to_bytes(again) == content


def test_special_values_survive() -> None:
    values = {"inf": np.array([np.inf, np.nan, -0.0], np.float32), "text": np.array(["a", "ä"])}
    values["text"] = values["text"].astype(object)
    _, again, _ = from_bytes(to_bytes(({}, values, {})))
    assert again["inf"].tobytes() == values["inf"].tobytes()
    assert [v.decode() if isinstance(v, bytes) else v for v in again["text"]] == ["a", "ä"]


def test_a_graph_told_knows_what_a_graph_that_has_run_knows(tried: Any) -> None:
    ran, told = (Graph(prepare(read_model(tried()).model)) for _ in range(2))
    weights = read_model(tried()).weights
    ran, told = (Graph(graph.model, weights) for graph in (ran, told))
    ends = [info.name for info in ran.model.graph.output]
    assert probe(ran, ends, threads=1) is None
    told.learn(*from_bytes(to_bytes(ran.learned)))
    names = [name for node in ran.nodes for name in node.output]
    assert [told.shape(n) for n in names] == [ran.shape(n) for n in names]
    assert [told.sample_shape(n) for n in names] == [ran.sample_shape(n) for n in names]
    for name in names:
        np.testing.assert_array_equal(told.value(name), ran.value(name))


# ---------------------------------------------------------------------------------- where it lies


def test_which_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cache(False) is None
    assert find_cache(str(tmp_path)) == Cache(tmp_path, 256_000_000)
    for off in ("", "0", "off", "OFF"):
        monkeypatch.setenv("CFCAM_CACHE", off)
        assert find_cache(True) is None
        assert find_cache(tmp_path) is not None
    monkeypatch.setenv("CFCAM_CACHE", str(tmp_path))
    monkeypatch.setenv("CFCAM_CACHE_MB", "1.5")
    assert find_cache(True) == Cache(tmp_path, 1_500_000)
    monkeypatch.setenv("CFCAM_CACHE_MB", "much")
    with pytest.raises(InvalidInputError, match="CFCAM_CACHE_MB is 'much'; set it to a number"):
        find_cache(True)
    with pytest.raises(InvalidInputError, match="cache=7 is a int; pass True, False or a folder"):
        find_cache(7)


def test_the_folder_of_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CFCAM_CACHE")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))

    def folder(platform: str) -> Path | None:
        monkeypatch.setattr(sys, "platform", platform)
        found = find_cache(True)
        return found.folder.relative_to(tmp_path) if found else None

    assert folder("linux") == Path("xdg", "cfcam")
    assert folder("darwin") == Path("Library", "Caches", "cfcam")
    assert folder("win32") == Path("local", "cfcam", "Cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("LOCALAPPDATA")
    assert folder("linux") == Path(".cache", "cfcam")
    assert folder("win32") is None


def test_tests_touch_nobodys_cache() -> None:
    assert find_cache(True) is None

"""``cfcam explain`` as a process, on a backend that is found through its entry point."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import cfcam_core
from cfcam_core.cli.inputs import find_class


def test_writes_an_overlay_and_an_archive_per_image(cfcam, model, photo, tmp_path):
    done = cfcam("explain", photo("a.png"), photo("b.jpg", (50, 30)), "--model", model())
    assert (done.returncode, "Warning" in done.stderr) == (0, False)
    out = tmp_path / "cfcam-out"
    assert sorted(p.name for p in out.iterdir()) == [
        "a.cfcam.npz",
        "a.cfcam.png",
        "b.cfcam.npz",
        "b.cfcam.png",
    ]
    assert cv2.imread(str(out / "a.cfcam.png")).shape == (40, 60, 3)
    assert cv2.imread(str(out / "b.cfcam.png")).shape == (50, 30, 3)
    loaded = cfcam_core.Explanation.load(out / "a.cfcam.npz")
    assert loaded.heatmaps.shape == (1, 16, 16)
    assert loaded.settings == cfcam_core.Settings()
    with np.load(out / "a.cfcam.npz", allow_pickle=False) as plain:
        assert str(plain["layer"]) == "relu/out"
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["image", "class", "logit", "softmax", "layer", "status"]
    assert [
        row.split()[0].endswith(name) for row, name in zip(rows, ("a.png", "b.jpg"), strict=True)
    ]
    assert "preprocess imagenet" in done.stderr
    assert "2 explained, 0 failed" in done.stderr


def test_the_same_numbers_as_from_python(cfcam, model, photo, tmp_path):
    from cfcam_core.images import ModelInput, prepare, read_image

    tiny = model()
    cfcam(
        "explain", photo(), "-m", tiny, "--target", "2", "--preprocess", "tf", "--preset", "paper"
    )
    backend = cfcam_core.open_model(tiny)
    picture = read_image(tmp_path / "photo.png")
    expected = cfcam_core.explain(
        backend,
        prepare(picture, ModelInput.of(backend), "tf"),
        target=2,
        settings=cfcam_core.Settings.preset("paper"),
    )
    loaded = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    np.testing.assert_array_equal(loaded.heatmaps, expected.heatmaps)
    np.testing.assert_array_equal(loaded.scores, expected.scores)
    assert (loaded.targets.tolist(), loaded.settings) == ([2], expected.settings)
    written = cv2.imread(str(tmp_path / "cfcam-out/photo.cfcam.png"))[..., ::-1]
    np.testing.assert_array_equal(written, expected.overlay(picture))


def test_goes_on_after_broken_images_and_says_so(cfcam, model, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    whole = photo("whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    images = ("text.jpg", "empty.png", "half.jpg", "missing.png", photo("good.png"))
    done = cfcam("explain", *images, "--model", model())
    assert done.returncode == 1
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(":")[1].strip() for line in failed] == list(images[:4])
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "1 explained, 4 failed; results are in cfcam-out" in done.stderr
    done = cfcam("explain", *images[:4], "--model", model())
    assert done.stderr.splitlines()[-1] == "0 explained, 4 failed"
    assert sorted(p.name for p in (tmp_path / "cfcam-out").iterdir()) == [
        "good.cfcam.npz",
        "good.cfcam.png",
    ]


def test_images_that_are_not_there_are_missed_before_the_model_is_loaded(cfcam, model):
    done = cfcam("explain", "nowhere/", "a.png", "--model", model(error="loaded"))
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: there is no image file or folder 'nowhere', 'a.png'; check the path\n"
    )


def test_folders_and_equal_stems(cfcam, model, photo, tmp_path):
    photo("in/x.png")
    photo("in/x.jpg", (20, 20))
    photo("in/deeper/z.png")
    (tmp_path / "in/notes.txt").write_text("not an image")
    for _ in range(2):  # the second run must not explain the overlays of the first
        done = cfcam("explain", "in", "in/x.png", "--model", model(), "--out", "in")
        assert done.returncode == 0
        assert "2 explained" in done.stderr
    assert "note: in/x.png is written as x-2.cfcam.*" in done.stderr
    assert cv2.imread(str(tmp_path / "in/x.cfcam.png")).shape == (20, 20, 3)
    assert cv2.imread(str(tmp_path / "in/x-2.cfcam.png")).shape == (40, 60, 3)


def test_labels_name_the_class_and_choose_it(cfcam, model, photo, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(["cat, tom", "dog", "bird [red]", "crane"]))
    (tmp_path / "names.txt").write_text("cat, tom\ndog\nbird [red]\ncrane\n")
    for file in ("names.json", "names.txt"):
        for wanted in ("bird [red]", "2"):
            done = cfcam("explain", photo(), "-m", model(), "--labels", file, "--target", wanted)
            assert done.returncode == 0, done.stderr
            assert "  2 bird [red]  " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "nope"], "cf-cam, grad-cam, grad-cam++, xgrad-cam"),
        (["--preset", "nope"], "reference, paper, default"),
        (["--preprocess", "nope"], "imagenet, tf, caffe, unit, raw"),
        (["--target", "4"], "4 classes, 0 to 3"),
        (["--target", "-1"], "4 classes, 0 to 3"),
        (["--target", "dog"], "--labels"),
        (["--labels", "three.txt", "--target", "dgo"], "did you mean 'dog'?"),
        (["--labels", "five.txt"], "the model has 4"),
        (["--labels", "none.txt"], "cannot read the labels 'none.txt'"),
        (["--layer", "relu"], "did you mean 'relu/out'? pass layer=; all are listed by"),
        (["--layer", "1"], "no layer 1"),
        (["--layer", "0", "--layer", "nope"], "no layer 'nope'"),
        (["--output", "logits"], "the tiny backend does not take output"),
        (["--size", "16x0"], "the size '16x0' is not understood; wanted height x width"),
        (["--size", "32"], "the size 32x32 does not fit: the model takes pictures of 16x16 alone"),
        (["--model", "fault.tiny"], "cannot run opset 99"),
        (["--model", "tokens.tiny"], "choose another with --layer"),
        (["--model", "nowhere.tiny"], "name a tensor between with --layer"),
        (["--out", "three.txt"], "cannot make the folder 'three.txt'"),
        (["--model", "absent.tiny"], "absent.tiny"),
        (["--model", "model.unknown"], "'.unknown'; installed are "),
        (["--model", "bad.tiny"], "bad magic number"),
        (["--model", "five.tiny"], "5 channels"),
        (["--model", "signal.tiny"], "(None, 1, 16000)"),
        (["--model", "gray.tiny", "--preprocess", "imagenet"], "use one of tf, unit, raw"),
    ],
)
def test_one_clear_line_and_exit_2(cfcam, model, photo, tmp_path, arguments, message):
    (tmp_path / "three.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "five.txt").write_text("a\nb\nc\nd\ne\n")
    model("bad.tiny", error="bad magic number")
    model("five.tiny", shape=[None, 5, 16, 16])
    model("signal.tiny", shape=[None, 1, 16000])
    model("gray.tiny", shape=[None, 1, 16, 16])
    model("fault.tiny", fault="cannot run opset 99")
    model("tokens.tiny", tokens=True)
    model("nowhere.tiny", only_extra=True)
    (tmp_path / "model.unknown").touch()
    done = cfcam("explain", photo(), "--model", model(), *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("**/*.cfcam.*"))


def test_a_layer_is_a_name_or_else_a_number(cfcam, model, photo, tmp_path):
    for wanted, meant in (("1", "1"), ("0", "1"), ("2", "relu/out"), ("-1", "relu/out")):
        done = cfcam("explain", photo(), "-m", model(layers=["1", "middle"]), "--layer", wanted)
        assert done.returncode == 0, done.stderr
        assert cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz").layer == meant


def test_a_number_is_never_a_tensor_between_if_it_is_in_the_list(cfcam, model, photo, tmp_path):
    def explained(layer, **spec):
        tiny = model(layers=["a", "b"], between=["1", "190"], **spec)
        done = cfcam("explain", photo(), "-m", tiny, "--layer", layer)
        if done.returncode:
            return done.stderr.splitlines()[-1]
        return cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz").layer

    assert explained("1") == "b"
    assert explained("190") == "190"
    assert explained("191").startswith("error: no layer 191; ")
    # where there are modules, a number may be the tail of a path
    assert explained("190", module="body.190").startswith("error: no layer 190; ")


def test_several_layers_are_fused_as_in_python(cfcam, model, photo, tmp_path):
    from cfcam_core.images import ModelInput, prepare, read_image

    tiny = model(layers=["a", "b"], between=["190"])
    several = ("--layer", "1", "-l", "relu/out", "-l", "190")
    done = cfcam("explain", photo(), "-m", tiny, *several)
    assert done.returncode == 0, done.stderr
    assert "  b + relu/out + 190  " in done.stdout
    backend = cfcam_core.open_model(tiny)
    batch = prepare(read_image(tmp_path / "photo.png"), ModelInput.of(backend), "imagenet")
    expected = cfcam_core.explain(backend, batch, layer=[1, "relu/out", "190"])
    loaded = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    assert loaded.layer == expected.layer
    assert loaded.weights.shape == (1, 3 * 12)
    np.testing.assert_array_equal(loaded.heatmaps, expected.heatmaps)


@pytest.mark.parametrize(("given", "size"), [("32x48", (32, 48)), ("32", (32, 32))])
def test_an_open_size_can_be_chosen(cfcam, model, photo, tmp_path, given, size):
    free = model(shape=[None, 3, None, None])
    done = cfcam("explain", photo(), "--model", free, "--size", given)
    assert done.returncode == 0, done.stderr
    height, width = size
    assert f"input 3 x {height} x {width} (the model leaves the size open), " in done.stderr
    loaded = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    assert loaded.heatmaps.shape == (1, *size)
    assert cfcam("explain", photo(), "--model", model(), "--size", "16x16").returncode == 0


def test_a_name_within_others_is_offered_before_those_that_look_like_it():
    labels = {0: "crate", 1: "tabby, tabby cat", 2: "Egyptian cat", 3: "cattle"}
    with pytest.raises(cfcam_core.InvalidInputError) as caught:
        find_class("Cat", labels)
    assert "did you mean 'tabby cat' or 'Egyptian cat' or 'crate'" in str(caught.value)


def test_options_that_do_not_matter_are_noted(cfcam, model, photo, tmp_path):
    (tmp_path / "three.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "four.txt").write_text("cat\ndog\nbird\ncrane\n")
    base = ("explain", photo(), "--model", model())
    done = cfcam(*base, "--labels", "three.txt", "--preset", "paper", "--method", "grad-cam")
    assert done.returncode == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: --preset paper is for cf-cam; grad-cam has none",
        "note: the labels name 3 of the model's 4 classes",
    ]
    done = cfcam(*base, "--labels", "four.txt", "--preset", "paper")
    assert "note" not in done.stderr
    assert "note" not in cfcam(*base, "--method", "grad-cam").stderr


@pytest.mark.parametrize(("limit", "side", "suffix"), [(1_000, 8, "npz"), (10_000, 200, "png")])
def test_without_room_for_both_files_neither_is_written(model, tmp_path, limit, side, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), noise)
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from cfcam_core.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-Bc", code, "explain", "p.png", "-m", model()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"p.cfcam.{suffix}': File too large; make room or choose another" in done.stderr
    assert done.stderr.splitlines()[-1] == "0 explained, 1 failed"
    assert list((tmp_path / "cfcam-out").iterdir()) == []


def test_pipes_get_whole_paths_and_no_synonyms(cfcam, model, photo, tmp_path):
    (tmp_path / "names.txt").write_text("African elephant, Loxodonta africana, tusker\n" * 4)
    photo("in/elephant.jpg")
    done = cfcam("explain", "in", "-m", model(), "--labels", "names.txt", "--target", "0")
    assert done.stdout.splitlines()[1].startswith("in/elephant.jpg  0 African elephant  ")
    assert "Loxodonta" not in done.stdout


def test_a_terminal_of_80_columns_gets_short_names(terminal, model, photo, tmp_path):
    for name in ("a/in/elephant.jpg", "a/in/zebra.jpg", "b/in/zebra.jpg"):
        photo(name)
    (tmp_path / "names.txt").write_text("African elephant, Loxodonta africana, tusker\n" * 4)
    code, text = terminal(
        *("explain", "a/in", "b/in", "--model", model(), "--labels", "names.txt"),
        *("--target", "0"),
    )
    assert code == 0
    shown = text.decode()
    assert " elephant.jpg " in shown
    assert "Loxodonta" not in shown
    assert " 0 African elephant " in shown
    assert " a/in/zebra.jpg " in shown
    assert " b/in/zebra.jpg " in shown


def test_gray_models_channels_last_and_free_sizes(cfcam, model, photo, tmp_path):
    gray = model("gray.tiny", shape=[1, 20, 24, 1], layout="channels_last", classes=1)
    done = cfcam("explain", photo(), "--model", gray)
    assert done.returncode == 0, done.stderr
    assert "input 1 x 20 x 24, preprocess unit" in done.stderr
    assert done.stdout.splitlines()[1].split()[3] == "-"
    done = cfcam("explain", photo(), "--model", model("free.tiny", shape=[None, 3, None, None]))
    size = "input 3 x 224 x 224 (the model leaves the size open; another with --size), "
    assert size in done.stderr
    loaded = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    assert loaded.heatmaps.shape == (1, 224, 224)


def test_blank_maps_stand_in_the_status_column(cfcam, model, photo):
    done = cfcam("explain", photo(), "--model", model(blank=True))
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].endswith("zero_gradient")
    assert "arning" not in done.stderr


def test_other_warnings_are_one_line(cfcam, model, photo):
    done = cfcam("explain", photo(), "--model", model(warning="two runtimes are installed"))
    assert "warning: two runtimes are installed" in done.stderr.splitlines()
    assert done.returncode == 0


def test_long_names_stay_whole_in_a_pipe(cfcam, model, photo):
    name = "a-very-long-name-" * 8 + ".png"
    done = cfcam("explain", photo(name), "--model", model())
    assert name in done.stdout
    assert len(done.stdout.splitlines()) == 2


def test_the_console_script_is_installed():
    script = shutil.which("cfcam", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"cfcam {cfcam_core.__version__}\n"

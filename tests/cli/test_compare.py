"""``cfcam compare``: four files and a table; errors in a line; stopped runs go on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from cfcam_core.demo.shipped import MODEL, load_scenes
from cfcam_core.evaluation import compare
from cfcam_core.evaluation.choices import default_methods

OUT = "cfcam-compare"
QUICK = ("--method", "cf-cam", "--method", "grad-cam", "--metric", "sparseness")


@pytest.fixture
def photos(tmp_path, photo):
    """A folder with three pictures."""
    for n, size in enumerate([(40, 60), (44, 58), (30, 60)]):
        photo(f"photos/{n}.png", size)
    return tmp_path / "photos"


@pytest.fixture
def scenes(tmp_path):
    """The demo's scenes as PNG files, with the masks of the first digit."""
    shipped = load_scenes()
    for folder in ("scenes", "masks"):
        (tmp_path / folder).mkdir()
    for n in range(3):
        cv2.imwrite(str(tmp_path / "scenes" / f"{n}.png"), shipped.images[n])
        cv2.imwrite(str(tmp_path / "masks" / f"{n}.png"), 255 * shipped.masks[n, 0])
    return tmp_path


def _rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_demo_s_model_on_its_scenes(cfcam, scenes):
    target = int(load_scenes().labels[0, 0])
    done = cfcam(
        *("compare", "scenes", "--model", MODEL, "--masks", "masks", "--target", target),
        *("--method", "cf-cam", "--method", "cf-cam:reference", "--method", "grad-cam"),
        *("--out", "out", "--seed", 3),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    out = scenes / "out"
    names = {"comparison.csv", "comparison.json", "index.html", "journal.jsonl"}
    assert {path.name for path in out.iterdir()} == names
    head, *rows = done.stdout.splitlines()
    assert re.split(r"\s{2,}", head)[:2] == ["method", "energy-in-mask +"]
    assert [row.split()[0] for row in rows] == ["cf-cam", "cf-cam:reference", "grad-cam"]
    assert "Class-blind, the same map whatever class is asked for: cf-cam:reference (1.000)" in (
        done.stderr
    )
    assert re.search(r"\d s an image|results are in out", done.stderr)
    assert "3 measured, 0 failed; results are in out" in done.stderr

    found = compare(
        MODEL,
        scenes / "scenes",
        methods=["cf-cam", "cf-cam:reference", "grad-cam"],
        masks=scenes / "masks",
        target=target,
        seed=3,
    )
    assert found.to_csv() == (out / "comparison.csv").read_text()
    shown = [re.sub("[*=]", "", cell) for cell in rows[0].split()[1:]]
    assert shown == [f"{mean:.3f}" for mean in found.means[0]]


def test_the_same_command_gives_the_same_bytes(cfcam, model, photos, tmp_path):
    path = model()
    for out in ("a", "b"):
        assert cfcam("compare", photos, "--model", path, *QUICK, "--out", out).returncode == 0
    for name in ("comparison.csv", "comparison.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_defaults_are_the_quick_ones(cfcam, model, photos, tmp_path):
    done = cfcam("compare", photos, "--model", model())
    assert done.returncode == 0, done.stderr
    rows = _rows(tmp_path / OUT / "comparison.csv")
    assert [row["method"] for row in rows[: len(default_methods())]] == list(default_methods())
    assert "class-sensitivity" in rows[0]
    assert "deletion" not in rows[0]
    assert "energy-in-mask" not in rows[0]


def test_all_is_all(cfcam, model, photo, tmp_path):
    done = cfcam("compare", photo(), "--model", model(), "--method", "all", "--metric", "all")
    assert done.returncode == 0, done.stderr
    rows = _rows(tmp_path / OUT / "comparison.csv")
    assert {"score-cam", "cf-cam:paper", "random"} <= {row["method"] for row in rows}
    assert {"deletion", "road", "published-drop"} <= rows[0].keys()
    assert "energy-in-mask" not in rows[0]


def test_a_table_on_a_terminal_is_bold_and_narrow(terminal, model, photos):
    code, text = terminal("compare", photos, "--model", model(), "--method", "all")
    assert code == 0
    assert b"\x1b[1m" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(re.sub("[^a-z -]", " ", " ".join(lines)).split())
    for word in ("sensitivity -", "minus-", "sparseness", "eigen-grad-cam", "smooth-grad-cam"):
        assert word in words  # not torn apart


def test_some_images_fail(cfcam, model, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no")
    done = cfcam("compare", photos, tmp_path / "nowhere.png", "--model", model(), *QUICK)
    assert done.returncode == 1
    assert re.search(r"failed: broken\.png: .*damaged", done.stderr)
    assert re.search(r"failed: .*nowhere\.png: cannot read", done.stderr)
    assert "3 measured, 2 failed" in done.stderr
    content = json.loads((tmp_path / OUT / "comparison.json").read_text())
    assert len(content["failures"]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "nope"), "there is no method 'nope'"),
        (("--method", "cf-cam:nope"), "there is no preset 'nope'"),
        (("--metric", "energy-in-mask"), "masks are needed"),
        (("--masks", "nowhere"), "no folder of masks 'nowhere'"),
        (("--target", "9"), "out of range"),
        (("--layer", "nope"), "no layer"),
        (("--model", "nowhere.tiny"), "nowhere.tiny"),
    ],
)
def test_errors_are_one_line(cfcam, model, photos, tmp_path, arguments, says):
    done = cfcam("compare", photos, "--model", model(), *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert not list(tmp_path.glob(f"{OUT}/*"))


def test_an_unknown_metric_is_a_usage_error(cfcam, model, photos):
    done = cfcam("compare", photos, "--model", model(), "--metric", "nope")
    assert done.returncode == 2
    assert "'nope' is unknown; allowed are energy-in-mask" in " ".join(done.stderr.split())


def test_a_folder_of_another_run_is_refused_and_restarted(cfcam, model, photos, tmp_path):
    path = model()
    assert cfcam("compare", photos, "--model", path, *QUICK).returncode == 0
    before = (tmp_path / OUT / "comparison.csv").read_bytes()
    done = cfcam("compare", photos, "--model", path, *QUICK, "--seed", 1)
    assert done.returncode == 2
    assert re.search(r"error: the journal .* seed was 0, is 1\. .*--restart", done.stderr)
    assert (tmp_path / OUT / "comparison.csv").read_bytes() == before
    done = cfcam("compare", photos, "--model", path, *QUICK, "--seed", 1, "--restart")
    assert done.returncode == 0, done.stderr


def test_another_model_file_is_noticed(cfcam, model, photos):
    assert cfcam("compare", photos, "--model", model(), *QUICK).returncode == 0
    done = cfcam("compare", photos, "--model", model(module="other"), *QUICK)
    assert done.returncode == 2
    assert "model was" in done.stderr


def _heeding_interrupts():
    """What a shell starts in the background is deaf to Ctrl-C, and so is what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on(cfcam, model, photo, tmp_path, sent):
    for n in range(8):
        photo(f"many/{n}.png", (400 + n, 600))
    command = [
        *(sys.executable, "-m", "cfcam_core.cli", "compare", "many", "--model", str(model())),
        *("--metric", "road", "--metric", "deletion"),
    ]
    with subprocess.Popen(
        [*command, "--out", "stopped"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeding_interrupts,  # noqa: PLW1509 - no thread is there
    ) as process:
        journal = tmp_path / "stopped" / "journal.jsonl"
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(sent)
        said = process.stderr.read()
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert 2 < journal.read_bytes().count(b"\n") < 1 + 8
    if sent == signal.SIGINT:
        assert "what is finished is kept; the same command goes on from there" in said
        assert said.splitlines()[-1] == "cfcam: stopped"
    assert not (tmp_path / "stopped" / "comparison.csv").exists()
    for out in ("stopped", "whole"):
        subprocess.run([*command, "--out", out], cwd=tmp_path, check=True, capture_output=True)
    for name in ("comparison.csv", "comparison.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (
            (tmp_path / "whole" / name).read_bytes()
        )


def test_labels_name_classes_on_the_page(cfcam, model, photo, tmp_path):
    (tmp_path / "names.txt").write_text("cat, tabby\ndog\n<owl>\nbee\n")
    done = cfcam(
        "compare", photo(), "--model", model(), "--labels", "names.txt", "--target", "<owl>", *QUICK
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / OUT / "index.html").read_text()
    assert "class 2 &lt;owl&gt;" in page
    assert "<owl>" not in page
    assert np.all([row["class"] == "2" for row in _rows(tmp_path / OUT / "comparison.csv")])


def test_help_names_what_there_is(cfcam):
    text = " ".join(cfcam("compare", "--help", COLUMNS="200").stdout.split())
    for word in ("--masks", "cf-cam:paper", "score-cam", "keep-minus-delete", "--restart"):
        assert word in text
    assert os.fspath("compare") in cfcam("--help").stdout


def test_robustness_stands_on_the_same_page(cfcam, scenes):
    wanted = ("--model", MODEL, "--method", "cf-cam", "--method", "grad-cam", "--seed", 2)
    done = cfcam("compare", "scenes", *wanted, "--robustness", "--out", "out")
    assert done.returncode == 0, done.stderr
    page = (scenes / "out" / "index.html").read_text()
    assert "Maps side by side" in page
    assert "Consistency, responsiveness, robustness" in page
    assert "p = 0.9" in page
    assert "p = 0.9" in done.stderr
    assert cfcam("robustness", "scenes", *wanted, "--out", "alone").returncode == 0
    for name in ("robustness.csv", "robustness.json"):
        assert (scenes / "out" / name).read_bytes() == (scenes / "alone" / name).read_bytes()
    page = (scenes / "out" / "index.html").read_bytes()
    again = cfcam("compare", "scenes", *wanted, "--robustness", "--out", "out")
    assert again.returncode == 0, again.stderr
    assert (scenes / "out" / "index.html").read_bytes() == page

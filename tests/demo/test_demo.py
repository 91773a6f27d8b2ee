import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core.demo import run_demo
from cfcam_core.demo.run import COLUMNS, METHODS, boxes
from cfcam_core.demo.shipped import MODEL, load_scenes
from cfcam_core.evaluation import energy_in_mask

NAMES = [*(name for name, *_ in METHODS), "chance (area)"]


class Page(HTMLParser):
    """Collects what a page refers to and the cells of its tables."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags, self.rows = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in {"src", "href"}]
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows and self.lasttag in {"td", "th"}:
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    lines = []
    page = run_demo(tmp_path_factory.mktemp("demo") / "new" / "folder", lines.append)
    return page, lines


@pytest.fixture(scope="module")
def table(demo):
    """Return the printed numbers by method, in the order of COLUMNS."""
    number = re.compile(r"\d\.\d{3}")
    return {
        name: [float(text) for text in number.findall(line)]
        for name in NAMES
        for line in demo[1]
        if line.startswith(name + " ")
    }


def test_two_files_are_written_and_nothing_else(demo):
    page, lines = demo
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "sheet.png"]
    assert str(page.parent / "sheet.png") in lines[-1]


def test_the_page_needs_no_other_file(demo):
    text = demo[0].read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    page = Page()
    page.feed(text)
    assert not page.tags & {"script", "link", "iframe"}
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    scenes = len(load_scenes().images)
    assert len(page.addresses) == scenes * (1 + 2 * len(METHODS))


def test_page_and_terminal_show_the_same_numbers(demo, table):
    page = Page()
    page.feed(demo[0].read_text(encoding="utf-8"))
    head, *rows = page.rows
    assert head == ["method", *COLUMNS]
    assert {name: [float(text) for text in numbers] for name, *numbers in rows} == table
    assert list(table) == NAMES


def test_shares_add_up(table):
    for right, other, elsewhere, box, pointing in table.values():
        assert right + other + elsewhere == pytest.approx(1, abs=2e-3)
        assert right <= box <= 1
        assert 0 <= pointing <= 1


def test_the_printed_share_is_that_of_the_maps(table):
    scenes = load_scenes()
    for name, method, settings in METHODS:
        explained = cfcam.explain(
            MODEL, scenes.inputs(), target=scenes.targets(), method=method, settings=settings
        )
        share = energy_in_mask(explained.heatmaps, scenes.right()).mean()
        assert table[name][0] == pytest.approx(share, abs=1e-3)
    assert table["chance (area)"][0] == pytest.approx(scenes.masks.mean(), abs=1e-3)


def test_the_default_finds_the_right_digit_and_the_public_code_cannot_tell_them_apart(table):
    default, public_code, _, chance = (table[name] for name in NAMES)
    assert default[0] > 4 * chance[0]
    assert default[1] < chance[1]
    assert default[4] > chance[4]
    assert default[0] > public_code[0]
    assert public_code[0] == pytest.approx(public_code[1], abs=0.02)


def test_the_model_names_the_digits(demo):
    right, scenes = map(int, re.search(r"in (\d+) of (\d+) scenes", demo[1][0]).groups())
    assert scenes == len(load_scenes().images)
    assert right >= scenes - 1
    assert "conv6_relu" in demo[1][0]


def test_the_sheet_is_a_wide_picture_of_all_maps(demo):
    sheet = cv2.imread(str(demo[0].parent / "sheet.png"))
    height, width, _ = sheet.shape
    assert width >= 900
    assert height >= 128 * len(load_scenes().images)
    coloured = (np.ptp(sheet.astype(int), axis=2) > 60).mean()
    assert coloured > 0.3
    text = sheet[:24]
    assert (text.min(axis=2) < 100).any()


def test_boxes_enclose_the_mask():
    mask = np.zeros((2, 5, 6), np.uint8)
    mask[0, 1, 4] = mask[0, 3, 2] = 1
    wanted = np.zeros((2, 5, 6), bool)
    wanted[0, 1:4, 2:5] = True
    np.testing.assert_array_equal(boxes(mask), wanted)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(cfcam.InvalidInputError, match="taken"):
        run_demo(taken, lambda _line: None)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "cv2"])
def test_a_missing_package_is_said_before_anything_is_written(missing, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        f"sys.modules[{missing!r}] = None\n"
        "import cfcam_core as cfcam; from cfcam_core.demo import run_demo\n"
        "try: run_demo(Path(sys.argv[1]), print)\n"
        "except cfcam.BackendUnavailableError as error: print(error)\n"
    )
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=True
    )
    assert "pip install" in run.stdout
    assert not out.exists()


def test_it_runs_offline_and_without_any_training_framework(tmp_path):
    script = (
        "import socket, sys; from pathlib import Path\n"
        "for name in ('torch', 'tensorflow', 'keras', 'sklearn', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "def refuse(*_): raise AssertionError('the demo opened a connection')\n"
        "socket.socket.connect = refuse\n"
        "from cfcam_core.demo import run_demo\n"
        "print(run_demo(Path(sys.argv[1]), print))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == str(tmp_path / "index.html")
    assert run.stderr == ""

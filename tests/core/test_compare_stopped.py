"""A comparison that is stopped, killed or run twice at once loses and changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from compared_toys import HEADS, INPUTS, MASKS, METHODS, QUICK, compared, same
from toy_backend import Toy

from cfcam_core import InvalidInputError, Settings
from cfcam_core.evaluation.compare import compare


@pytest.fixture
def toy():
    return Toy(HEADS, shortcut=0.01)


def test_a_stopped_run_goes_on_where_it_was(toy, tmp_path):
    path, whole = tmp_path / "j.jsonl", compared(toy)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compared(toy, journal=path, progress=stop)
    assert len(path.read_text().splitlines()) == 1 + 3
    toy.asked.clear()
    same(compared(toy, journal=path), whole)
    remaining = len(toy.asked)
    toy.asked.clear()
    finished = compared(toy, journal=path)
    same(finished, whole)
    assert len(toy.asked) < 5 < remaining
    assert finished.maps.keys() == whole.maps.keys()
    for name in whole.maps:
        np.testing.assert_array_equal(finished.maps[name], whole.maps[name])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"metrics": QUICK[:3]}, "metrics was"),
        ({"methods": METHODS[:2]}, "methods score-cam was"),
        ({"settings": Settings(eps_percentile=33)}, "settings eps_percentile was"),
        ({"target": 1}, "images 0 target was null, is 1"),
        ({"masks": 1 - MASKS}, "images 0 mask was"),
        ({"identity": {"model": "abc"}}, 'model was "Toy", is "abc"'),
    ],
)
def test_the_journal_of_another_run_is_refused(toy, tmp_path, more, says):
    path = tmp_path / "j.jsonl"
    compared(toy, journal=path)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=says):
        compared(toy, journal=path, **more)
    assert path.read_bytes() == before
    same(compared(toy, journal=path, overwrite=True, **more), compared(toy, **more))


def test_another_model_or_other_images_are_noticed(toy, tmp_path):
    path = tmp_path / "j.jsonl"
    compared(toy, journal=path)
    with pytest.raises(InvalidInputError, match="answer was"):
        compared(Toy(HEADS * 2), journal=path)
    with pytest.raises(InvalidInputError, match="images 0 content was"):
        compare(toy, INPUTS[::-1].copy(), methods=METHODS, metrics=QUICK, masks=MASKS, journal=path)


SCRIPT = """
import sys, time
import numpy as np
from html_pages import Page
from toy_backend import Toy
from cfcam_core.evaluation.compare import compare
from cfcam_core.evaluation.metrics import register_metric

def slow(case):
    time.sleep(0.03)
    with open("log", "a") as log:
        print(case.inputs.sum(), file=log)
    return float(case.explanation.heatmaps.mean())

register_metric("slow", slow, better="higher")
inputs = np.random.default_rng(0).random((12, 1, 6, 4)).astype("f") * 4
found = compare(Toy(np.eye(3) / 8), inputs, methods=["cf-cam", "grad-cam", "random"],
                metrics=["slow", "sparseness", "road"], journal=sys.argv[1])
found.to_csv(sys.argv[2] + ".csv")
found.to_json(sys.argv[2] + ".json")
"""


def _run(folder, journal, out):
    helpers = str(Path(__file__).parents[1] / "helpers")
    paths = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, journal, out],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_kills_lose_nothing_finished_and_change_no_byte(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert _run(whole, "j.jsonl", "out").wait() == 0
    lines = (whole / "j.jsonl").read_bytes().count(b"\n")
    assert lines == 1 + 12

    journal = tmp_path / "j.jsonl"
    finished = 0
    for wanted, pause in ((1, 0.0), (3, 0.05), (6, 0.02), (9, 0.07)):
        process = _run(tmp_path, "j.jsonl", "out")
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= wanted):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = journal.read_bytes().count(b"\n")
        assert kept >= max(wanted, finished)
        finished = kept
    with journal.open("ab") as file:  # and one in the middle of a line
        file.write(b'{"key": "11", "rec')
    assert _run(tmp_path, "j.jsonl", "out").wait() == 0
    for suffix in (".csv", ".json"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (whole / f"out{suffix}").read_bytes()
    calls = len((tmp_path / "log").read_text().splitlines())
    assert calls < 12 * 3 + 4 * 3 + 1  # at most one image a kill was measured twice


def test_two_runs_at_once_are_kept_apart(toy, tmp_path):
    path = tmp_path / "j.jsonl"

    def meanwhile(done, _):
        if done == 1:
            with pytest.raises(InvalidInputError, match="in use by another process"):
                compared(toy, journal=path)

    same(compared(toy, journal=path, progress=meanwhile), compared(toy))

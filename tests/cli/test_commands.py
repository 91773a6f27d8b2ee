"""The smaller commands, the tables, and what is said where the extra is not installed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import cfcam_core
from cfcam_core.cli.explaining import _row
from cfcam_core.cli.tables import plain


def test_layers_are_listed_whole_with_the_default_marked(cfcam, model):
    long = "/features/block." + "x" * 200 + "/Conv"
    done = cfcam("layers", model(layers=[long, "line\nbreak [bold]"]))
    assert done.returncode == 0
    header, first, second, last = done.stdout.splitlines()
    assert header.split() == ["layer", "shape", "kind"]
    assert first.split() == [long, "?", "x", "12", "x", "4", "x", "4", "Conv"]
    assert second.startswith("line break [bold]  ")
    assert last.split()[0] == "relu/out"
    assert last.endswith("default")


def test_layers_of_a_bad_model(cfcam, model):
    done = cfcam("layers", model(error="it is torn"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: it is torn\n")


def test_a_terminal_gets_a_framed_table_with_nothing_cut_off(model, tmp_path):
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cfcam_core.cli", "layers", model(layers=["L" * 90])],
        stdout=follower,
        env={**os.environ, "COLUMNS": "60", "TERM": "xterm"},
    ) as process:
        os.close(follower)
        text = b""
        while True:
            try:
                text += os.read(leader, 4096)
            except OSError:
                break
    os.close(leader)
    assert process.returncode == 0
    assert text.count(b"L") == 90
    assert "│".encode() in text


def test_plain_columns_are_aligned():
    assert plain(("a", "b"), [("long cell", "x"), ("", "y")]) == [
        "a          b",
        "long cell  x",
        "           y",
    ]


@pytest.mark.parametrize(
    ("share", "expected"), [("softmax", ["100.0%", "0.0%"]), ("sigmoid", ["100.0%", "0.0%"])]
)
def test_extreme_logits_neither_overflow_nor_warn(share, expected):
    cells = []
    for target in (0, 1):
        explanation = cfcam_core.Explanation(
            *(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)),
            *(np.zeros((1, 3), np.float32), None, np.array([target])),
            *(np.array([[2000.0, -2000.0]], np.float32), ("ok",)),
        )
        cells.append(_row(Path("a.png"), explanation, None, share)[3])
    assert cells == expected


def test_demo_calls_the_demo(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from cfcam_core.cli.app import app

    def run_demo(out, echo):
        echo(f"into {out.name}")
        return out / "index.html"

    demo = types.ModuleType("cfcam_core.demo")
    demo.run_demo = run_demo
    monkeypatch.setitem(sys.modules, "cfcam_core.demo", demo)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "there")])
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "into there"
    assert "index.html" in result.output


def test_without_arguments_the_commands_are_listed(cfcam):
    done = cfcam()
    assert all(name in done.stdout + done.stderr for name in ("explain", "layers", "demo"))


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_hint_is_the_command_to_run(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['cfcam', '--version']\n"
        "from cfcam_core.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "cfcam[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_without_opencv_the_hint_is_the_command_to_run(model, photo, tmp_path):
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        f"sys.argv = ['cfcam', 'explain', {str(photo())!r}, '-m', {str(model())!r}]\n"
        "from cfcam_core.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "cfcam[image]"' in done.stderr
    assert "Traceback" not in done.stderr

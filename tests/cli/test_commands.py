"""The smaller commands, the tables, and what is said where the extra is not installed."""

from __future__ import annotations

import os
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
    assert header.split() == ["#", "layer", "shape", "kind"]
    assert first.split() == ["0", long, "?", "x", "12", "x", "4", "x", "4", "Conv"]
    assert second.startswith("1  line break [bold]  ")
    assert last.split()[:2] == ["2", "relu/out"]
    assert last.endswith("default")


def test_modules_are_listed_where_a_layer_has_one(cfcam, model):
    done = cfcam("layers", model(layers=["first"], module="body.relu"))
    header, first, last = (line.split() for line in done.stdout.splitlines())
    assert header == ["#", "layer", "shape", "kind", "module"]
    assert first[-1] == "Conv"
    assert last[-3:] == ["Relu", "body.relu", "default"]


def test_layers_of_a_bad_model(cfcam, model):
    done = cfcam("layers", model(error="it is torn"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: it is torn\n")


def test_a_model_without_layers_is_said(cfcam, model):
    done = cfcam("layers", model(only_extra=True))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "no layer with a spatial grid" in done.stderr


def test_layers_say_which_operators_are_in_the_way(cfcam, model):
    done = cfcam("layers", model(only_extra=True, operator="Hardmax"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: Hardmax has no gradient\n"


def test_a_terminal_gets_a_framed_table_with_nothing_cut_off(terminal, model):
    code, text = terminal("layers", model(layers=["L" * 90]), COLUMNS="60")
    assert code == 0
    assert text.count(b"L") == 90
    assert "│".encode() in text


def test_a_terminal_without_unicode_gets_escapes(terminal, model):
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code, text = terminal("layers", model(layers=["caf\u00e9"]), **ascii_only)
    assert code == 0
    assert rb"caf\xe9" in text


@pytest.mark.parametrize("command", ["explain", "layers"])
def test_a_closed_pipe_ends_the_table_and_nothing_else(model, photo, tmp_path, command):
    arguments = [photo(), "--model", model()] if command == "explain" else [model()]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cfcam_core.cli", command, *arguments],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert not {"Traceback", "Broken"} & set(done.stderr.replace(":", " ").split())
    assert ("1 explained, 0 failed" in done.stderr) == (command == "explain")


def test_ctrl_c_is_one_line(cfcam, model):
    done = cfcam("layers", model(interrupt=True))
    assert (done.returncode, done.stderr) == (130, "cfcam: stopped\n")


def test_ctrl_c_while_importing_is_one_line(cfcam, tmp_path):
    (tmp_path / "stop").mkdir()
    (tmp_path / "stop/typer.py").write_text("raise KeyboardInterrupt")
    done = cfcam("--version", PYTHONPATH=str(tmp_path / "stop"))
    assert (done.returncode, done.stderr) == (130, "cfcam: stopped\n")


def test_plain_columns_are_aligned():
    assert plain(("a", "b"), [("long cell", "x"), ("", "y")]) == [
        "a          b",
        "long cell  x",
        "           y",
    ]
    wide = plain(("a", "b"), [("\u732b", "x"), ("e\u0301", "y")])  # a cat of two columns, an accent
    assert wide == ["a   b", "\u732b  x", "e\u0301   y"]


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


@pytest.mark.parametrize(("given", "used"), [({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")])
def test_the_log_of_tensorflow_is_switched_off_if_nobody_has_set_it(given, used):
    code = (
        "import atexit, os, sys; sys.argv = ['cfcam', '--version']\n"
        "atexit.register(lambda: print(os.environ['TF_CPP_MIN_LOG_LEVEL']))\n"
        "from cfcam_core.cli import main; main()"
    )
    own = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == used


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

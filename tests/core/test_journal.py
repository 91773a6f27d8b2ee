"""The journal of a long run: nothing finished is lost, and nothing foreign is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from cfcam_core import InvalidInputError
from cfcam_core.evaluation.journal import dumps, open_journal, work_through

HEADER = {"seed": 0, "answer": [1.0, 2.0]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def _filled(path, *keys, header=HEADER):
    with open_journal(path, header) as journal:
        for key in keys:
            journal.add(key, {"value": key})


def test_what_was_added_is_there_again(path):
    _filled(path, "a", "b")
    with open_journal(path, HEADER) as journal:
        assert dict(journal.done) == {"a": {"value": "a"}, "b": {"value": "b"}}
        journal.add("c", [1.5, float("nan")])
    with open_journal(path, HEADER) as journal:
        assert journal.done["c"] == [1.5, None]


def test_a_record_is_on_disk_when_add_returns(path):
    with open_journal(path, HEADER) as journal:
        journal.add("a", 1)
        assert path.read_bytes().endswith(b'{"key": "a", "record": 1}\n')


def test_the_disk_is_told_to_keep_it(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    with open_journal(path, HEADER) as journal:
        journal.add("a", 1)
    assert synced[-1] == path.read_bytes()


def test_work_is_done_once_and_looks_the_same_when_read_again(path):
    tried = []

    def work(index):
        tried.append(index)
        if index == 1:
            raise InvalidInputError("no")
        return {"values": np.array([0.1, np.nan]), "of": (index,)}

    runs = []
    for _ in range(2):
        with open_journal(path, HEADER) as journal:
            runs.append(work_through(journal, ["a", "b", "c"], work))
    assert runs[0] == runs[1]
    records, failures = runs[0]
    assert records["c"] == {"values": [0.1, None], "of": [2]}
    assert failures == {"b": "no"}
    assert tried == [0, 1, 2, 1]
    with (
        pytest.raises(InvalidInputError, match="none of the 1 images could be measured: no"),
        open_journal(None, HEADER) as journal,
    ):
        work_through(journal, ["b"], lambda _: work(1))


def test_half_a_line_is_cut_off_wherever_the_kill_came(path):
    _filled(path, "a", "b")
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with open_journal(path, HEADER) as journal:
            assert len(journal.done) == max(sum(end <= length for end in ends) - 1, 0)
            for key in ("a", "b"):
                if key not in journal.done:
                    journal.add(key, {"value": key})
        assert path.read_bytes() == whole


def test_a_last_line_of_rubbish_is_cut_off_and_one_in_the_middle_is_refused(path):
    _filled(path, "a")
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0\n")
    with open_journal(path, HEADER) as journal:
        assert list(journal.done) == ["a"]
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"\0\0\n" + b'{"key": "b", "record": 1}\n')
    with (
        pytest.raises(InvalidInputError, match=r"line 3 .* is damaged"),
        open_journal(path, HEADER),
    ):
        pass


def test_the_journal_of_another_run_is_refused_with_what_differs(path):
    _filled(path, "a")
    other = {**HEADER, "seed": 1, "more": "x" * 100}
    with (
        pytest.raises(
            InvalidInputError, match=r'seed was 0, is 1; more was null, is "x+\.\.\.\. Write'
        ),
        open_journal(path, other),
    ):
        pass
    with open_journal(path, HEADER) as journal:
        assert list(journal.done) == ["a"]
    with open_journal(path, other, overwrite=True) as journal:
        assert not journal.done
    with open_journal(path, other) as journal:
        assert not journal.done


def test_differences_are_named_part_by_part(path):
    _filled(path, header={"images": {f"{i}.png": "old" for i in range(6)}})
    with (
        pytest.raises(InvalidInputError, match=r'images 1.png was "old", is "new"; .*; and 2 more'),
        open_journal(path, {"images": {"0.png": "old"} | {f"{i}.png": "new" for i in range(1, 6)}}),
    ):
        pass


def test_floats_of_a_header_may_differ_by_rounding(path):
    _filled(path, "a")
    with open_journal(path, {"seed": 0, "answer": [1.0001, 2.0]}) as journal:
        assert list(journal.done) == ["a"]
    with (
        pytest.raises(InvalidInputError, match="answer was"),
        open_journal(path, {"seed": 0, "answer": [1.1, 2.0]}),
    ):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_is_no_journal_is_left_alone(path, overwrite):
    path.write_bytes(b"my thesis")
    with (
        pytest.raises(InvalidInputError, match="no journal of cfcam"),
        open_journal(path, HEADER, overwrite=overwrite),
    ):
        pass
    assert path.read_bytes() == b"my thesis"


def test_it_is_of_one_process_at_a_time(path):
    with open_journal(path, HEADER):
        with (
            pytest.raises(InvalidInputError, match="in use by another process"),
            open_journal(path, HEADER),
        ):
            pass
        text = (
            "import sys; from pathlib import Path; from cfcam_core.evaluation.journal import *\n"
            f"with open_journal(Path({str(path)!r}), {HEADER!r}, overwrite=True): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=False
        )
        assert "in use by another process" in other.stderr
    with open_journal(path, HEADER):
        pass


def test_a_killed_process_blocks_nobody(path):
    text = (
        "import time; from pathlib import Path; from cfcam_core.evaluation.journal import *\n"
        f"with open_journal(Path({str(path)!r}), {HEADER!r}) as journal:\n"
        "    journal.add('a', 1); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    with open_journal(path, HEADER) as journal:
        assert dict(journal.done) == {"a": 1}


def test_a_full_disk_is_said_and_costs_nothing_that_was_finished(path):
    text = (
        "import resource; from pathlib import Path\n"
        "from cfcam_core.evaluation.journal import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        f"with open_journal(Path({str(path)!r}), {HEADER!r}) as journal:\n"
        "    for n in range(9): journal.add(str(n), 'x' * 50); print(n)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert "InvalidInputError: cannot write the journal" in done.stderr.splitlines()[-1]
    assert path.stat().st_size == 300  # a part of a line is there
    with open_journal(path, HEADER) as journal:
        assert 0 < len(journal.done) < 9
        assert list(journal.done) == done.stdout.split()
        assert set(journal.done.values()) == {"x" * 50}


def test_no_path_remembers_nothing():
    with open_journal(None, HEADER) as journal:
        journal.add("a", 1)
        assert not journal.done


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with (
        pytest.raises(InvalidInputError, match="cannot write the journal"),
        open_journal(tmp_path / "no" / "journal.jsonl", HEADER),
    ):
        pass


def test_json_has_no_nan_and_keeps_every_bit():
    values = [0.1, 1 / 3, 1e-300, np.float64(2 / 3)]
    assert json.loads(dumps(values)) == values
    assert dumps({"a": np.array([[1.0, np.nan]]), 3: np.int64(4), "c": float("inf")}) == (
        '{"a": [[1.0, null]], "3": 4, "c": null}'
    )

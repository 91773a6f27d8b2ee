"""A file that remembers what a long run has finished, one line of JSON a piece of work.

The first line, the header, says what decides the numbers. What was finished survives a kill at any
moment: a line counts once its last byte is on disk, and half a line is cut off.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cfcam_core.errors import InvalidInputError

FORMAT = 1
"""Version of the layout."""

START = b'{"cfcam journal": '
"""How every journal begins."""

CLOSE = 1e-3
"""Relative difference up to which floats in two headers count as equal: how far the logits of one
model lie apart between machines and thread counts at most."""

NAMED = 3
"""Differences between two headers that a message names."""


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """An open journal. Made by `open_journal`."""

    done: Mapping[str, Any]
    """What earlier runs have finished, by key."""
    path: Path
    _file: RawIOBase | None = field(repr=False)

    def add(self, key: str, record: Any) -> None:
        """Append a finished piece of work; when this returns, it is on disk.

        Raises
        ------
        InvalidInputError
            The disk is full or gone.
        """
        if self._file is None:
            return
        try:
            _to_disk(self._file, (dumps({"key": key, "record": record}) + "\n").encode())
        except OSError as error:
            raise _refused(self.path, error) from error


@contextmanager
def open_journal(
    path: Path | None, header: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[Journal]:
    """Open a journal, or begin one, and keep it to this process.

    Parameters
    ----------
    path : Path or None
        The file. None: nothing is remembered.
    header : mapping of str to what JSON holds
        Everything that decides the numbers. A journal with another header is refused.
    overwrite : bool
        Whether a journal that is there, of whatever run, is begun anew.

    Raises
    ------
    InvalidInputError
        The file is no journal, belongs to another run (the message says what differs), is in use
        by another process, or cannot be written.
    """
    if path is None:
        yield Journal(MappingProxyType({}), Path(), None)
        return
    wanted: dict[str, Any] = json.loads(dumps({"cfcam journal": FORMAT, **header}))
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise _refused(path, error) from error
    with file:
        _lock(file, path)  # the system lets go of it when the process ends, however it ends
        text = file.read()
        first = (dumps(wanted) + "\n").encode()
        if not (text.startswith(START) or START.startswith(text)):
            raise InvalidInputError(
                f"{str(path)!r} is no journal of cfcam and is left alone; choose another file"
            )
        begun = b"\n" in text and not overwrite
        lines, kept = _read(path, text) if begun else ([], 0)
        if begun:
            _check_header(path, lines[0], wanted)
        try:
            file.seek(kept)
            file.truncate()
            if not begun:
                _to_disk(file, first)
        except OSError as error:
            raise _refused(path, error) from error
        done = {line["key"]: line["record"] for line in lines[1:]}
        yield Journal(MappingProxyType(done), path, file)


def work_through(
    journal: Journal,
    keys: Sequence[str],
    work: Callable[[int], Any],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Do all pieces of work that the journal does not have, and remember each.

    Parameters
    ----------
    journal : Journal
    keys : sequence of str
        Of the pieces.
    work : callable
        Gets a piece's index, and returns its record.
    progress : callable, optional
        Called after each piece with how many are done, and of how many.

    Returns
    -------
    records : dict of str to what JSON holds
        By key, in the order of `keys`; new ones look like those that were read.
    failures : dict of str to str
        What could not be done, and why. It is not remembered: the next run tries again.

    Raises
    ------
    InvalidInputError
        Nothing could be done.
    """
    records: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for number, key in enumerate(keys):
        if key in journal.done:
            records[key] = journal.done[key]
        else:
            try:
                record = work(number)
            except (InvalidInputError, OSError, MemoryError) as error:
                failures[key] = str(error) or type(error).__name__
            else:
                journal.add(key, record)
                records[key] = json.loads(dumps(record))
        if progress is not None:
            progress(number + 1, len(keys))
    if not records:
        first = next(iter(failures.values()), "there are none")
        raise InvalidInputError(f"none of the {len(keys)} images could be measured: {first}")
    return records, failures


def dumps(value: Any) -> str:
    """Return JSON in one line; NaN and infinity, which JSON has not, as null."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return what `json` writes: arrays as lists, NumPy's numbers as Python's, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _to_disk(file: RawIOBase, data: bytes) -> None:
    while data:
        data = data[file.write(data) or 0 :]  # a full disk may take a part of it
    os.fsync(file.fileno())


def _read(path: Path, text: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines and how many bytes they take; what a kill has torn is left out."""
    lines: list[dict[str, Any]] = []
    kept = 0
    pieces = text.split(b"\n")[:-1]  # the last one has no line break: half a line, or nothing
    for number, piece in enumerate(pieces):
        try:
            line = json.loads(piece)
            if number:
                line = {"key": line["key"], "record": line["record"]}
        except (ValueError, KeyError, TypeError) as error:
            if 0 < number == len(pieces) - 1:
                break
            raise InvalidInputError(
                f"line {number + 1} of the journal {str(path)!r} is damaged; begin anew: "
                "overwrite=True, on the command line --restart"
            ) from error
        lines.append(line)
        kept += len(piece) + 1
    return lines, kept


def _check_header(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse the journal of another run, and say what differs."""
    differing = list(_differences(found, wanted, ""))
    if differing:
        rest = len(differing) - NAMED
        what = "; ".join(differing[:NAMED]) + (f"; and {rest} more" if rest > 0 else "")
        raise InvalidInputError(
            f"the journal {str(path)!r} is of another run: {what}. Write elsewhere, or begin anew: "
            "overwrite=True, on the command line --restart"
        )


def _differences(found: Any, wanted: Any, name: str) -> Iterator[str]:
    """Yield in words what is not the same, part by part."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys((*found, *wanted)):
            yield from _differences(found.get(key), wanted.get(key), f"{name} {key}".strip())
    elif not _same(found, wanted):
        yield f"{name} was {_short(found)}, is {_short(wanted)}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=CLOSE, atol=CLOSE))
    return bool(one == other)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lock(file: RawIOBase, path: Path) -> None:
    """Keep the file to this process until it is closed, or refuse one that another has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # bytes that are never written, so that reading stays possible
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InvalidInputError(
            f"the journal {str(path)!r} is in use by another process; wait for it, or write "
            "elsewhere"
        ) from error


def _refused(path: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"cannot write the journal {str(path)!r}: {error.strerror or error}; make room or choose "
        "another folder"
    )

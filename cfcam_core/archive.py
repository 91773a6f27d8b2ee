"""An Explanation as a ``.npz`` file: named arrays that plain ``numpy.load`` reads, no pickles."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_core.explanation import FORMAT, Explanation
from cfcam_core.files import replacing
from cfcam_core.images import SUFFIXES
from cfcam_core.settings import Settings

ARRAYS = ("heatmaps", "maps", "weights", "targets")
OPTIONAL_ARRAYS = ("labels", "scores")
WORDS = ("status", "layer", "method")
HOW = "pass a file written by Explanation.save"


def save(explanation: Explanation, path: Path) -> None:
    """Write an explanation; an existing file is replaced at once or not at all.

    Parameters
    ----------
    explanation : Explanation
        Absent arrays are left out; `settings` become JSON, a clusterer in them its ``repr``.
    path : Path
        ``.npz`` is added where it is missing. The folder must exist.

    Raises
    ------
    InvalidInputError
        There is no such folder, `path` itself is one or ends as pictures do, or it cannot be
        written there.
    """
    stored: dict[str, Any] = {"format": np.int64(FORMAT)}
    for name in (*ARRAYS, *OPTIONAL_ARRAYS):
        array = getattr(explanation, name)
        if array is not None:
            stored[name] = array
    stored["status"] = np.array(explanation.status, dtype=np.str_)
    stored["layer"] = np.str_(explanation.layer)
    stored["method"] = np.str_(explanation.method)
    if explanation.settings is not None:
        stored["settings"] = np.str_(explanation.settings.to_json())
    if path.suffix.lower() in SUFFIXES:
        raise InvalidInputError(
            f"{str(path)!r} has the ending of a picture; save writes arrays, a .npz file. For the "
            f"picture: png.write({str(path.with_suffix('.png'))!r}, e.overlay(photo)), with png "
            "from cfcam_core"
        )
    with replacing(_with_suffix(path)) as file:
        np.savez(file, **stored)


def load(path: Path) -> Explanation:
    """Read what `save` wrote.

    Settings with a clusterer, or with fields or values that this version does not know, come back
    as None rather than as others than those used; their JSON stays readable in the file.

    Raises
    ------
    InvalidInputError
        The file is missing, damaged, no such archive, or of a newer version.
    """
    if not path.is_file() and _with_suffix(path).is_file():
        path = _with_suffix(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInputError(f"{str(path)!r} {what}; {HOW}")
    stored = _read(path)
    _check(stored, path)
    arrays: dict[str, Any] = {name: stored.get(name) for name in (*ARRAYS, *OPTIONAL_ARRAYS)}
    try:
        return Explanation(
            **arrays,
            status=tuple(np.atleast_1d(stored["status"]).tolist()),
            layer=str(stored["layer"]),
            method=str(stored["method"]),
            settings=_settings(str(stored["settings"])) if "settings" in stored else None,
        )
    except InvalidInputError as error:
        raise InvalidInputError(f"{str(path)!r} is damaged: {error}; {HOW}") from error


def _with_suffix(path: Path) -> Path:
    """Add the suffix where it is missing, but never turn a folder's name into a file's."""
    has_it = path.suffix == ".npz" or path.is_dir()
    return path if has_it else path.with_name(path.name + ".npz")


def _settings(text: str) -> Settings | None:
    try:
        return Settings(**json.loads(text))
    except (TypeError, ValueError):  # unknown names; text for a clusterer, unknown words, no JSON
        return None


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:  # ours to close: numpy leaves it open on a damaged archive
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                return {}
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InvalidInputError(
            f"{str(path)!r} cannot be read: {error.strerror or error}; check the file"
        ) from error
    except (BadZipFile, ValueError, EOFError, KeyError, RuntimeError, zlib.error) as error:
        # without NumPy's own words, which advise to unpickle: that would run code from the file
        raise InvalidInputError(
            f"{str(path)!r} is no .npz archive of plain arrays, or it is damaged; {HOW}"
        ) from error


def _check(stored: dict[str, NDArray[Any]], path: Path) -> None:
    """Refuse foreign archives and newer ones."""
    if not stored:
        raise InvalidInputError(f"{str(path)!r} is no archive of named arrays; {HOW}")
    missing = {"format", *ARRAYS, *WORDS} - stored.keys()
    if missing:
        raise InvalidInputError(
            f"{str(path)!r} is an archive without {', '.join(sorted(missing))}; {HOW}"
        )
    version = stored["format"]
    if version.shape != () or version.dtype.kind not in "iu" or version < 1:
        raise InvalidInputError(f"{str(path)!r} has the format {version!r}; {HOW}")
    if version > FORMAT:
        raise InvalidInputError(
            f"{str(path)!r} has format {int(version)}, this version reads up to {FORMAT}; "
            "run: pip install --upgrade cfcam"
        )

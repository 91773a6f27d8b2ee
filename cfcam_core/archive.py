"""An Explanation as a ``.npz`` file: named arrays that plain ``numpy.load`` reads, no pickles."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_core.explanation import FORMAT, Explanation, Status
from cfcam_core.files import replacing
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
        Absent arrays are left out; `settings` become a JSON string, a clusterer in them its ``repr``.
    path : Path
        ``.npz`` is added where it is missing. The folder must exist.

    Raises
    ------
    InvalidInputError
        There is no such folder.
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
        stored["settings"] = np.str_(_settings_json(explanation.settings))
    with replacing(_with_suffix(path)) as file:
        np.savez(file, **stored)


def load(path: Path) -> Explanation:
    """Read what `save` wrote.

    Settings come back as `Settings`. A clusterer that was passed as an object comes back as None,
    its ``repr`` stays readable in the file; settings that this version does not know come back as a
    dict.

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
    return Explanation(
        **{name: stored[name] for name in ARRAYS},
        **{name: stored.get(name) for name in OPTIONAL_ARRAYS},
        status=tuple(stored["status"].tolist()),
        layer=str(stored["layer"]),
        method=str(stored["method"]),
        settings=_settings(str(stored["settings"])) if "settings" in stored else None,
    )


def _with_suffix(path: Path) -> Path:
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _settings_json(settings: Any) -> str:
    return (
        settings.to_json() if isinstance(settings, Settings) else json.dumps(settings, default=repr)
    )


def _settings(text: str) -> Settings | dict[str, Any] | None:
    values: dict[str, Any] | None = json.loads(text)
    if values is None:
        return None
    try:
        return Settings(**{**values, "clusterer": None})
    except (TypeError, InvalidInputError):
        return values


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            return {}
        with archive:
            return {name: archive[name] for name in archive.files}
    except (BadZipFile, ValueError, EOFError, OSError, KeyError, zlib.error) as error:
        raise InvalidInputError(
            f"{str(path)!r} cannot be read: {error or type(error).__name__}; it is damaged or no "
            f".npz archive, {HOW}"
        ) from error


def _check(stored: dict[str, NDArray[Any]], path: Path) -> None:
    """Refuse foreign archives, newer ones, and arrays that do not belong together."""
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
    samples = stored["targets"].shape
    short = [
        name
        for name in (*ARRAYS, *OPTIONAL_ARRAYS, "status")
        if name in stored and stored[name].shape[:1] != samples
    ]
    unknown = sorted(set(stored["status"].ravel().tolist()) - set(get_args(Status)))
    if len(samples) != 1 or short or unknown or stored["heatmaps"].ndim != stored["maps"].ndim:
        shapes = {name: stored[name].shape for name in stored if stored[name].shape}
        raise InvalidInputError(
            f"{str(path)!r} holds arrays that do not belong together: {shapes}, status "
            f"{unknown or 'known'}; {HOW}"
        )

"""What a run is about, for the header of its journal: the model and the version of cfcam."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any


def header_of(model: Any, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return how every header begins; `more` goes before what is found.

    Of a file or folder its digest counts, of another model the name of its type. Weights beside a
    file, or in memory, are not looked at: journals also hold what the model answers.
    """
    from cfcam_core import __version__

    is_path = isinstance(model, str | PathLike) and Path(model).exists()
    found = digest_of(Path(model)) if is_path else type(model).__qualname__
    return {"cfcam": __version__, "model": found, **(more or {})}


def digest_of(path: Path) -> str:
    """Return the digest of a file's bytes, or of all files in a folder.

    Of what cannot be read it says that.
    """
    whole = hashlib.sha256()
    try:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as stream:
                    whole.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        return f"not readable: {error.strerror}"
    return whole.hexdigest()[:32]


def digest(data: bytes) -> str:
    """Return the digest of bytes."""
    return hashlib.sha256(data).hexdigest()[:32]

"""What has been made before, kept on disk for the next process.

It is what is costly to find out: what a trial run has shown, and the programs made with it. An
entry is found by what it was made from: the model and its weights, the limits of the trial run and
what it has shown, the tensor that is explained, the layers, our own code, and the versions of onnx
and onnxruntime. The machine is not, so a folder is for one. Nothing that happens to the disk is an
error: work goes on without a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_core.files import replacing

VARIABLE = "CFCAM_CACHE"
"""Environment variable: the folder of the cache, or one of `OFF` for none."""

SIZE_VARIABLE = "CFCAM_CACHE_MB"
"""Environment variable: megabytes that all entries together may take; `LARGEST` by default."""

OFF = frozenset({"", "0", "false", "no", "none", "off"})

LARGEST = 256
"""Megabytes that all entries together may take. An entry has 0.1 to 5, so the models that somebody
works with fit, some hundred layers of them."""

SUFFIX = ".cfcam"
"""End of the names of entries; other files in the folder are left alone."""

ABANDONED = 3600.0
"""Seconds after which a half-written file belongs to nobody any more."""

NO_PLACE: tuple[type[Exception], ...] = (OSError, ValueError)
"""What says that there is no such file, or can be none: `InvalidInputError` is a ValueError."""

FORMAT = 1
"""Changes whenever what an entry holds is laid out differently."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries, the least recently used of which make room for new ones.

    Processes may share it. An entry is its SHA-256 and then its contents; one that does not fit
    its sum is as good as none.
    """

    folder: Path
    largest: int
    """Bytes that all entries together may take."""

    def read(self, key: str) -> bytes | None:
        """Return the contents of an entry, or None if there is none or it is damaged."""
        path = self._path(key)
        try:
            found = path.read_bytes()
        except NO_PLACE:
            return None
        content = found[hashlib.sha256().digest_size :]
        if not found.startswith(_sum(key, content)):
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return content

    def write(self, key: str, content: bytes) -> None:
        """Add an entry, if there is a place for it."""
        entry = _sum(key, content) + content
        if len(entry) > self.largest:
            return
        with suppress(*NO_PLACE):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(entry))
            with replacing(self._path(key)) as file:
                file.write(entry)

    def _path(self, key: str) -> Path:
        return self.folder / (key + SUFFIX)

    def _make_room(self, size: int) -> None:
        """Remove the least recently used entries until `size` more bytes fit."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process has removed it
                about = path.stat()
                if path.suffix == SUFFIX:
                    entries.append((about.st_mtime, about.st_size, path))
                elif _is_half_written(path) and time() - about.st_mtime > ABANDONED:
                    path.unlink()
        total = size + sum(length for _, length, _ in entries)
        for _, length, path in sorted(entries):
            if total <= self.largest:
                break
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total -= length


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries that belong to one model."""

    cache: Cache | None = None
    content: str = ""
    """Says all that the entries are made from; without it there are none."""

    def of(self, model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> Entries:
        """Return the entries of a model; its weights are read once for that."""
        if self.cache is None:
            return self
        sums = hashlib.sha256(model.SerializeToString(deterministic=True))
        for name, array in sorted(weights.items()):
            sums.update(f"{name}\0{array.dtype.str}{array.shape}".encode())
            sums.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return replace(self, content=sums.hexdigest())

    def knowing(self, found: bytes) -> Entries:
        """Return the entries of the same model together with what was found out about it."""
        if not self.content:
            return self
        return replace(self, content=hashlib.sha256(self.content.encode() + found).hexdigest())

    def read(self, *what: str) -> bytes | None:
        """Return an entry, or None if there is none."""
        key = self._key(what)
        return self.cache.read(key) if self.cache and key else None

    def write(self, content: bytes, *what: str) -> None:
        """Add an entry."""
        key = self._key(what)
        if self.cache and key:
            self.cache.write(key, content)

    def _key(self, what: tuple[str, ...]) -> str:
        if not self.content:
            return ""
        made_by = [onnx.__version__, onnxruntime.__version__, _code()]
        said = json.dumps([FORMAT, made_by, self.content, what])
        return hashlib.sha256(said.encode()).hexdigest()


def find_cache(choice: bool | str | os.PathLike[str]) -> Cache | None:  # noqa: FBT001
    """Return the cache that a user means; no folder is made yet.

    Parameters
    ----------
    choice : bool, str or path
        A folder; False for no cache; True for what the environment says: the folder `VARIABLE`
        names, else the platform's own for caches.

    Raises
    ------
    InvalidInputError
        `choice` is none of these, or `SIZE_VARIABLE` is no number.
    """
    if choice is False:
        return None
    if choice is True:
        named = os.environ.get(VARIABLE)
        if named is not None and named.strip().lower() in OFF:
            return None
        folder = Path(named).expanduser() if named else _platform_folder()
    elif isinstance(choice, str | os.PathLike):
        folder = Path(choice)
    else:
        raise InvalidInputError(
            f"cache={choice!r} is a {type(choice).__name__}; pass True, False or a folder"
        )
    return Cache(folder, int(_megabytes() * 1e6)) if folder else None


def _megabytes() -> float:
    said = os.environ.get(SIZE_VARIABLE, "").strip() or str(LARGEST)
    with suppress(ValueError):
        if 0 <= (size := float(said)) < float("inf"):
            return size
    raise InvalidInputError(
        f"the environment variable {SIZE_VARIABLE} is {said!r}; set it to a number of megabytes"
    )


def _platform_folder() -> Path | None:
    """Return where this platform keeps caches, or None for a user without a home."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base, "cfcam", "Cache") if base else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "cfcam"
    return (Path(base) if Path(base).is_absolute() else home / ".cache") / "cfcam"


def _sum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()


def _is_half_written(path: Path) -> bool:
    return path.name.startswith(".cfcam-") and path.suffix == ".tmp"


@lru_cache(maxsize=1)
def _code() -> str:
    """Return a sum of this package's own source: other rules make other programs."""
    here, sums = Path(__file__).parent, hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        sums.update(str(path.relative_to(here)).encode() + b"\0" + path.read_bytes())
    return sums.hexdigest()

"""Writing files so that a reader never meets one half written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from cfcam_core.errors import InvalidInputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` once the block ends without an error.

    The bytes go to a temporary file in the same folder, which an error removes; whatever stood at
    `path` stays until the last moment.

    Raises
    ------
    InvalidInputError
        The folder does not exist, `path` is a folder, the disk is full, or permission is missing.
    """
    if path.is_dir():
        raise InvalidInputError(f"cannot write {str(path)!r}: it is a folder; give a file name")
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; create it first"
        )
    temporary = path.with_name(f".cfcam-{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {str(path)!r}: {error.strerror or error}; make room or choose another "
            "folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def written(text: str, path: str | PathLike[str] | None) -> str:
    """Return a text, and write it to a file if one is named."""
    if path is not None:
        with replacing(Path(path)) as file:
            file.write(text.encode())
    return text


def make_folder(path: Path) -> None:
    """Make a folder for results, with those above it; one that is there is fine.

    Raises
    ------
    InvalidInputError
        It cannot be made: a file is in its place, or permission is missing.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"cannot make the folder {str(path)!r}: {error.strerror or error}; choose another"
        ) from error

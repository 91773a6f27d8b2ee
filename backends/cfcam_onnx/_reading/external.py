"""Tensors whose data lie in other files: found in the model's folder only, and mapped, not read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import Message  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto

from cfcam_core.errors import InvalidInputError


def is_elsewhere(message: Message) -> bool:
    """Whether a part of a model is a tensor that says its data lie in another file."""
    external = TensorProto.EXTERNAL
    return isinstance(message, TensorProto) and message.data_location == external


@dataclass(frozen=True, slots=True)
class Beside:
    """The files that one model may refer to; each is mapped once."""

    where: str
    """What the model is called in errors."""
    folders: tuple[Path, ...]
    """Where the files may lie, all links followed; none for a model that is no file."""
    maps: dict[Path, NDArray[np.uint8]] = field(default_factory=dict)
    """Their contents."""

    def data(self, tensor: TensorProto, called: str, nbytes: int | None) -> NDArray[np.uint8]:
        """Return the bytes of a tensor, mapped; `nbytes` None for as many as it says.

        The file must not be cut short as long as they are in use.

        Raises
        ------
        InvalidInputError
            The file is missing, too short or lies elsewhere.
        """
        told = {entry.key: str(entry.value) for entry in tensor.external_data}
        location = told.get("location", "")
        if not self.folders:
            raise InvalidInputError(
                f"{self.where} refers to weights in another file; pass the path of the .onnx file, "
                "with the weights beside it"
            )
        content = self._content(location, called)
        available = content.size
        try:
            offset = int(told.get("offset", 0))
            length = int(told.get("length", available - offset if nbytes is None else nbytes))
        except ValueError:
            offset = length = -1
        if not (0 <= offset <= available and 0 <= length <= available - offset) or (
            nbytes is not None and length != nbytes
        ):
            raise InvalidInputError(
                f"{called} should be {length if nbytes is None else nbytes} bytes from "
                f"byte {offset} of {location!r}, which does not fit that file of {available} "
                "bytes; copy the model and its weights again in full"
            )
        return content[offset : offset + length]

    def _content(self, location: str, called: str) -> NDArray[np.uint8]:
        try:
            path = self._path(location, called)
            if path not in self.maps:
                empty = not path.stat().st_size
                mapped = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, "r")
                self.maps[path] = mapped.view(np.ndarray)
        except OSError as error:
            raise InvalidInputError(
                f"{called} is in {location!r}, which cannot be read: {error}. Check its name and "
                "permissions"
            ) from error
        return self.maps[path]

    def _path(self, location: str, called: str) -> Path:
        """Return the file that a model calls `location`, if it is a plain file in one of `folders`.

        Links are followed first, so none leads out; a file with a second name may be anybody's.
        """
        relative = Path(location)
        if location and "\0" not in location and not relative.is_absolute() and not relative.drive:
            found = Path(os.path.realpath(self.folders[0] / relative))
            if any(found.is_relative_to(folder) for folder in self.folders):
                if not found.is_file():
                    raise InvalidInputError(
                        f"{called} should be in {location!r}, which is not there; "
                        "copy it beside the model"
                    )
                if found.stat().st_nlink == 1:
                    return found
        raise InvalidInputError(
            f"{called} is said to be in {location!r}; weights must lie in the model's folder or "
            "below it, in files with one name"
        )

"""The demo's picture: scenes down, methods across, both digits of a scene side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.demo.shipped import Scenes
from cfcam_core.errors import BackendUnavailableError
from cfcam_core.resize import resize

TILE = 128
"""Side of one picture in pixels."""
GAP, WIDE_GAP = 6, 18
"""Pixels between the two digits of a method, and between methods."""
LINE = 26
"""Height of a line of text in pixels."""
INK, PAPER = 40, 255


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One method's results: row 2 s + i belongs to digit i of scene s."""

    name: str
    pictures: NDArray[np.uint8]
    """(2 S, TILE, TILE, 3)."""
    share: NDArray[np.floating]
    """(2 S,): share of the map's energy on the digit's ink; NaN for a blank map."""

    def caption(self, row: int) -> str:
        """Say in a few words how the map of this row does."""
        share = float(self.share[row])
        return "blank" if np.isnan(share) else f"{share:.0%} on it"


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return gray images (S, H, W) at the size of a tile."""
    return np.rint(resize(images.astype(np.float32), (TILE, TILE))).astype(np.uint8)


def draw_sheet(scenes: Scenes, columns: Sequence[Column]) -> NDArray[np.uint8]:
    """Return the whole sheet, RGB, with a heading for each method and a caption under each map.

    Raises
    ------
    BackendUnavailableError
        OpenCV, which writes the text, is not installed.
    """
    lefts = [WIDE_GAP]
    for _ in columns:
        lefts += [lefts[-1] + TILE + WIDE_GAP, lefts[-1] + 2 * TILE + WIDE_GAP + GAP]
    pitch = TILE + LINE + GAP
    height = LINE + GAP + pitch * len(scenes.images)
    sheet = np.full((height, lefts[-1] + TILE + WIDE_GAP, 3), PAPER, np.uint8)

    write = Writer(sheet)
    write("scene", lefts[0], 0, TILE)
    for column, left in zip(columns, lefts[1::2], strict=True):
        write(column.name, left, 0, 2 * TILE + GAP)
    for scene, picture in enumerate(enlarged(scenes.images)):
        top = LINE + GAP + scene * pitch
        first, second = scenes.labels[scene]
        sheet[top : top + TILE, lefts[0] : lefts[0] + TILE] = picture[..., None]
        write(f"{first} and {second}", lefts[0], top + TILE, TILE)
        for at, left in enumerate(lefts[1:]):
            column, digit = columns[at // 2], at % 2
            row = 2 * scene + digit
            sheet[top : top + TILE, left : left + TILE] = column.pictures[row]
            caption = f"{scenes.labels[scene, digit]}: {column.caption(row)}"
            write(caption, left, top + TILE, TILE)
    return sheet


class Writer:
    """Writes centred text into a picture."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        self._cv2 = _opencv()
        self._picture = picture

    def __call__(self, text: str, left: int, top: int, width: int) -> None:
        """Write one line of height `LINE`."""
        font = self._cv2.FONT_HERSHEY_SIMPLEX
        (wide, high), _ = self._cv2.getTextSize(text, font, 0.5, 1)
        place = (left + (width - wide) // 2, top + (LINE + high) // 2)
        self._cv2.putText(self._picture, text, place, font, 0.5, (INK,) * 3, 1, self._cv2.LINE_AA)


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise BackendUnavailableError(
            "the demo's picture needs OpenCV, which is not installed; "
            'run: pip install "cfcam[onnx,cli]"'
        ) from error
    return cv2

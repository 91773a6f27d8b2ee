"""A picture of overlays side by side: photographs down, frameworks across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfcam_core.demo.sheet import GAP, LINE, PAPER, WIDE_GAP, Writer
from cfcam_core.images import fit

WIDTH = 184
"""Of one picture in pixels; its height keeps the photograph's proportions."""

STEP = 4
"""Colours are rounded to multiples of this: nobody sees it, and the file is a third smaller."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A photograph and its overlays, all of one size, with a line of text below each."""

    pictures: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]


def draw(titles: Sequence[str], rows: Sequence[Row]) -> NDArray[np.uint8]:
    """Return the sheet, RGB, with a title over each column."""
    heights = [round(WIDTH * row.pictures[0].shape[0] / row.pictures[0].shape[1]) for row in rows]
    lefts = [GAP + i * (WIDTH + GAP) + (WIDE_GAP if i else 0) for i in range(len(titles))]
    height = LINE + sum(heights) + len(rows) * (LINE + GAP)
    sheet = np.full((height, lefts[-1] + WIDTH + GAP, 3), PAPER, np.uint8)
    write = Writer(sheet)
    for title, left in zip(titles, lefts, strict=True):
        write(title, left, 0, WIDTH)
    top = LINE
    for row, high in zip(rows, heights, strict=True):
        for picture, caption, left in zip(row.pictures, row.captions, lefts, strict=True):
            sheet[top : top + high, left : left + WIDTH] = fit(picture, (high, WIDTH))
            write(caption, left, top + high, WIDTH)
        top += high + LINE + GAP
    return np.minimum(np.rint(sheet / STEP) * STEP, PAPER).astype(np.uint8)

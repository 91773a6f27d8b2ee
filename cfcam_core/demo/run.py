"""The demo from end to end: open, explain both digits of each scene, measure, draw, write.

Every number that is printed or written is computed in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfcam_core import png, report
from cfcam_core.demo.sheet import Column, draw_sheet, enlarged
from cfcam_core.demo.shipped import MODEL, Scenes, load_scenes
from cfcam_core.evaluation.localisation import energy_in_mask, pointing_game
from cfcam_core.explainer import explain
from cfcam_core.explanation import Explanation
from cfcam_core.files import make_folder, replacing
from cfcam_core.overlay import overlay
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings

METHODS: tuple[tuple[str, str, Settings | None], ...] = (
    ("CF-CAM, default", "cf-cam", Settings.preset("default")),
    ("CF-CAM, public code", "cf-cam", Settings.preset("reference")),
    ("Grad-CAM", "grad-cam", None),
)
"""What is compared: a name for people, the method, its settings."""

COLUMNS = ("on the digit", "on the other", "elsewhere", "in its box", "points at it")
"""Headings of the numbers in `Measured`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over all scenes and both digits of each.

    A blank map has no energy: it is left out of the first four and is a miss for the last.
    """

    right: float
    """Share of the map's positive energy on the ink of the explained digit."""
    other: float
    """The same on the ink of the scene's other digit."""
    elsewhere: float
    """What remains."""
    box: float
    """Share inside the upright box around the explained digit; `right` is part of it."""
    pointing: float
    """Share of maps whose highest point lies on the ink of the explained digit."""


def run_demo(out: Path, echo: Callable[[str], None]) -> Path:
    """Explain the shipped scenes and write ``sheet.png`` and ``index.html``.

    Parameters
    ----------
    out : Path
        Folder for the two files; made if missing.
    echo : callable
        Gets the report line by line, such as ``print``.

    Returns
    -------
    Path
        The page, which needs no other file.

    Raises
    ------
    BackendUnavailableError
        The ONNX backend's packages or OpenCV are missing; the message holds the command.
    InvalidInputError
        `out` cannot be a folder.
    """
    model, scenes = open_model(MODEL), load_scenes()
    explained = [
        explain(model, scenes.inputs(), target=scenes.targets(), method=method, settings=settings)
        for _, method, settings in METHODS
    ]
    names = [name for name, *_ in METHODS]
    rows = [
        *zip(names, [measure(each.heatmaps, scenes) for each in explained], strict=True),
        ("chance (area)", measure_chance(scenes)),
    ]
    verdict = _verdict(explained[0], scenes)

    pictures = enlarged(scenes.images).repeat(2, axis=0)
    columns = [
        Column(
            name,
            overlay(each.heatmaps, pictures),
            energy_in_mask(each.heatmaps, scenes.right()),
        )
        for name, each in zip(names, explained, strict=True)
    ]
    sheet, content = draw_sheet(scenes, columns), _page(scenes, columns, rows, verdict)

    make_folder(out)
    picture, page = out / "sheet.png", out / "index.html"
    png.write(picture, sheet)
    with replacing(page) as file:
        file.write(content.encode())
    for line in (verdict, "", *_lines(rows), "", f"picture: {picture}"):
        echo(line)
    return page


def measure(heatmaps: NDArray[np.floating], scenes: Scenes) -> Measured:
    """Score heatmaps of shape (2 S, H, W), one for each digit of each scene."""
    right = energy_in_mask(heatmaps, scenes.right())
    other = energy_in_mask(heatmaps, scenes.other())
    box = energy_in_mask(heatmaps, boxes(scenes.right()))
    pointing = pointing_game(heatmaps, scenes.right())
    return Measured(
        right=float(np.nanmean(right)),
        other=float(np.nanmean(other)),
        elsewhere=float(np.nanmean(1 - right - other)),
        box=float(np.nanmean(box)),
        pointing=float(pointing.mean()),
    )


def measure_chance(scenes: Scenes) -> Measured:
    """Return what a map gets that is the same everywhere, or whose highest point is anywhere."""
    right, other = float(scenes.right().mean()), float(scenes.other().mean())
    return Measured(
        right=right,
        other=other,
        elsewhere=1 - right - other,
        box=float(boxes(scenes.right()).mean()),
        pointing=right,
    )


def boxes(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the smallest upright box around each mask, filled; masks of shape (N, H, W)."""
    occupied = masks != 0
    rows, columns = (_span(np.asarray(occupied.any(axis=axis))) for axis in (2, 1))
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def _span(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N, L) true from the first to the last true value of each row."""
    up_to_here = np.logical_or.accumulate(occupied, axis=1)
    from_here = np.logical_or.accumulate(occupied[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(up_to_here & from_here)


def _verdict(explanation: Explanation, scenes: Scenes) -> str:
    """Say how often the model is right: a class counts as seen above logit 0."""
    if explanation.scores is None:
        return f"{len(scenes.images)} scenes"
    seen = explanation.scores[::2] > 0
    wanted = (scenes.labels[:, :, None] == np.arange(seen.shape[1])).any(axis=1)
    right = int((seen == wanted).all(axis=1).sum())
    return (
        f"The model names both digits, and no other, in {right} of {len(seen)} scenes made from "
        f"handwriting it was not trained on; layer explained: {explanation.layer}."
    )


def _lines(rows: Sequence[tuple[str, Measured]]) -> Iterator[str]:
    """Yield the table as lines of text."""
    first = max(len(name) for name, _ in rows)
    yield " " * first + "".join(f"  {column:>12}" for column in COLUMNS)
    for name, measured in rows:
        yield name.ljust(first) + "".join(f"  {value:12.3f}" for value in astuple(measured))


def _page(
    scenes: Scenes,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Measured]],
    verdict: str,
) -> str:
    parts = [
        report.paragraph(verdict),
        report.paragraph(
            "Each method explains one digit, then the other. A method that looks at the class "
            "shows two different maps. Below: the share of the map's positive energy that falls on "
            "the explained digit's ink, on the other digit's, elsewhere, and in the box around the "
            "explained digit; and how often the map's highest point lies on the explained digit. "
            f"Means over {2 * len(scenes.images)} maps."
        ),
        report.table(("method", *COLUMNS), [(name, *astuple(m)) for name, m in rows]),
    ]
    pictures = enlarged(scenes.images)
    for scene, digits in enumerate(scenes.labels):
        parts.append(report.heading(f"Scene {scene + 1}: {digits[0]} and {digits[1]}"))
        tiles = [(pictures[scene], "the scene")]
        for column in columns:
            for row in (2 * scene, 2 * scene + 1):
                caption = f"{column.name}: {digits[row % 2]}\n{column.caption(row)}"
                tiles.append((column.pictures[row], caption))
        parts.append(report.figures(tiles))
    return report.page("cfcam demo: which pixels speak for which digit?", *parts)

"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

from cfcam_core.images import SUFFIXES

MARK = ".cfcam"
"""Stands between stem and suffix of every file that ``cfcam explain`` writes."""

NO_IMAGES = "holds no image files; subfolders are not searched"


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, by name; our own overlays are passed over."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.stem.endswith(MARK) and path.is_file()
    )

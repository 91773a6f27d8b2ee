"""``cfcam export``: a model that explains itself, written to a file."""

from __future__ import annotations

from glob import escape
from pathlib import Path
from typing import Any

import cfcam_core as cfcam
from cfcam_core.cli.inputs import at_layers
from cfcam_core.errors import InvalidInputError


def export_path(model: Path) -> Path:
    """Return what the file is called by default: in this folder, named after the model."""
    return Path(f"{model.stem}.explain{model.suffix}")


def export(backend: cfcam.Backend, out: Path, *, layer: str | None, with_map: bool) -> list[str]:
    """Write the file; return a line for each that was written, the first says what it explains.

    Parameters
    ----------
    backend : Backend
        Must have a method ``export``, as that of the ONNX backend.
    out : Path
    layer : str or None
        As for `at_layers`; None for the default.
    with_map : bool
        Whether the file makes the Grad-CAM map, too.

    Raises
    ------
    CfcamError
        Models of this kind cannot be exported; the layer, an operator or the file do not fit.
    """
    write: Any = getattr(backend, "export", None)
    if write is None:
        raise InvalidInputError(
            "an explain-ready file cannot be made of this model: it is one already, or no .onnx "
            "file; pass the original .onnx file"
        )
    before = _files(out)
    made = at_layers(
        [] if layer is None else [layer],
        backend,
        lambda layers: write(out, layer=layers[0], with_map=with_map),
    )
    shape = " x ".join("?" if size is None else str(size) for size in made.shape)
    beside = sorted(path for path, facts in _files(out).items() if before.get(path) != facts)
    return [
        f"{out}: {_size(out)}, explains layer {made.name}, activations {shape}",
        *(
            f"{path}: {_size(path)}, its weights; keep both files in one folder"
            for path in beside
            if path != out
        ),
    ]


def _files(out: Path) -> dict[Path, tuple[int, int]]:
    """Return the files whose names begin like `out`, with what changes when they are replaced."""
    alike = out.parent.glob(escape(out.name) + "*")
    found = {path: path.stat() for path in alike if path.is_file()}
    return {path: (facts.st_ino, facts.st_mtime_ns) for path, facts in found.items()}


def _size(path: Path) -> str:
    """Return the size of a file as people read it."""
    size = path.stat().st_size / 1e3
    for unit in ("kB", "MB"):
        if size < 999.95:  # what is not rounded to 1000.0
            return f"{size:.1f} {unit}"
        size /= 1e3
    return f"{size:.1f} GB"

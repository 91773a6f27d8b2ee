"""What the user named: image files and folders, a file of class names, a class."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import cfcam_core as cfcam
from cfcam_core.errors import BackendNotFoundError, InvalidInputError
from cfcam_core.images import SUFFIXES

MARK = ".cfcam"
"""Stands between stem and suffix of every file that ``cfcam explain`` writes."""

Labels = Mapping[int, str]


def open_file(path: Path, **options: Any) -> cfcam.Backend:
    """Open a model file; options are those of its backend.

    Raises
    ------
    CfcamError
        There is no such file, nothing opens it, or it is not usable.
    """
    suffix, installed = path.suffix.lower(), sorted(cfcam.backends())
    if path.exists() and suffix.lstrip(".") not in installed:
        raise BackendNotFoundError(
            f"no backend opens files ending in {suffix!r}; installed are {', '.join(installed)}. "
            "Export the model to an .onnx file"
        )
    return cfcam.open_model(path, **options)


def find_images(given: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the image files meant, each once, and what is wrong with the rest.

    A folder stands for the image files directly in it, by name; overlays that were written there
    before are passed over.
    """
    found: dict[Path, Path] = {}
    problems: dict[Path, str] = {}
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if _is_image(p))
            if not inside:
                problems[path] = "the folder holds no image files; subfolders are not searched"
        else:
            inside = [path]
        for image in inside:
            found.setdefault(image.resolve(), image)
    return list(found.values()), problems


def _is_image(path: Path) -> bool:
    own = path.stem.endswith(MARK)
    return path.suffix.lower() in SUFFIXES and not own and path.is_file()


def output_stems(images: Iterable[Path]) -> list[str]:
    """Return a name for the results of each image: its stem, numbered where another has it already.

    Case is ignored, as some file systems do.
    """
    taken: set[str] = set()
    stems = []
    for image in images:
        stem, number = image.stem, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{image.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def read_labels(path: Path) -> Labels:
    """Read class names by index.

    Text holds one name a line, from class 0 on. JSON holds a list of names, or an object: index to
    name, index to a list that ends in the name (Keras' ``imagenet_class_index.json``), or name to
    index.

    Raises
    ------
    InvalidInputError
        The file is missing, not UTF-8, or neither of these.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the labels {str(path)!r}: {error.strerror or error}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the labels {str(path)!r} are not UTF-8 text: {error}") from error
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in {"[", "{"}:
        names = _from_json(text, path)
    else:
        names = dict(enumerate(line.strip() for line in text.rstrip().splitlines()))
    if not names:
        raise InvalidInputError(f"the labels {str(path)!r} are empty; wanted one name a line")
    return names


def _from_json(text: str, path: Path) -> dict[int, str]:
    problem = InvalidInputError(
        f"the labels {str(path)!r} are not understood; wanted a JSON list of names, or an object "
        "of index to name or name to index"
    )
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise problem from error
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        raise problem
    pairs = [(v, k) if _is_index(v) else (k, v) for k, v in value.items()]
    names = {}
    for index, name in pairs:
        last = name[-1] if isinstance(name, list) and name else name
        if not (_is_index(index) or str(index).isdecimal()) or not isinstance(last, str):
            raise problem
        names[int(index)] = last
    if len(names) != len(value):
        raise problem
    return names


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def find_class(target: str, labels: Labels | None) -> int:
    """Return the class index that ``--target`` means: a number, else a name or one of its synonyms.

    Names are compared without case; synonyms are the parts between commas.

    Raises
    ------
    InvalidInputError
        No such name (the closest are given), several classes of it, or a name without labels.
    """
    try:
        return int(target)
    except ValueError:
        pass
    if labels is None:
        raise InvalidInputError(
            f"target {target!r} is not a class index; pass a number, or --labels FILE to use names"
        )
    wanted = target.strip().casefold()
    exact = [k for k, name in labels.items() if name.casefold() == wanted]
    parts = {k: [part.strip() for part in name.split(",")] for k, name in labels.items()}
    found = exact or [k for k, names in parts.items() if wanted in map(str.casefold, names)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(
            f"target {target!r} names the classes {', '.join(map(str, found))}; pass one of these "
            "indices"
        )
    every = {part.casefold(): part for names in parts.values() for part in names}
    close = [every[name] for name in get_close_matches(wanted, every)]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see the labels file"
    raise InvalidInputError(f"target {target!r} is in none of the {len(labels)} labels; {hint}")


def check_labels(labels: Labels, classes: int) -> str | None:
    """Refuse names of more classes than the model has; return a note where there are fewer."""
    if max(labels) >= classes:
        raise InvalidInputError(
            f"the labels name {len(labels)} classes up to {max(labels)}, the model has {classes}; "
            "are they of another model, or shifted by a background class?"
        )
    if len(labels) < classes:
        return f"note: the labels name {len(labels)} of the model's {classes} classes"
    return None

"""What the user named: files of images and class names, a class, layers, a size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import cfcam_core as cfcam
from cfcam_core.errors import BackendNotFoundError, InvalidInputError, LayerNotFoundError
from cfcam_core.image_files import NO_IMAGES, image_files

NO_LAYER = (
    "the model has no layer with a spatial grid that all paths run through; "
    "name a tensor between with --layer, or try the picture itself: --layer input"
)
"""What is said where there is no default layer."""

Labels = Mapping[int, str]
Place = str | int | None
T = TypeVar("T")


def open_file(path: Path, **options: Any) -> cfcam.Backend:
    """Open a model file; options are those of its backend.

    Raises
    ------
    CfcamError
        There is no such file, nothing opens it, or it is not usable.
    """
    suffix, installed = path.suffix.lower(), sorted(cfcam.backends())
    if path.is_file() and suffix.lstrip(".") not in installed:
        raise BackendNotFoundError(
            f"no backend opens files ending in {suffix!r}; installed are {', '.join(installed)}. "
            "Export the model to an .onnx file"
        )
    return cfcam.open_model(path, **options)


def check_images(given: Iterable[Path]) -> None:
    """Refuse paths of which none exists, before a model is loaded for them.

    Raises
    ------
    InvalidInputError
        There is nothing under any of them.
    """
    if not any(path.exists() for path in given):
        names = ", ".join(repr(str(path)) for path in given)
        raise InvalidInputError(f"there is no image file or folder {names}; check the path")


def find_images(given: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the image files meant, each once, and what is wrong with the rest.

    A folder stands for the image files directly in it, by name; overlays that were written there
    before are passed over.
    """
    found: dict[Path, Path] = {}
    problems: dict[Path, str] = {}
    for path in given:
        if path.is_dir():
            inside = image_files(path)
            if not inside:
                problems[path] = f"the folder {NO_IMAGES}"
        else:
            inside = [path]
        for image in inside:
            found.setdefault(image.resolve(), image)
    return list(found.values()), problems


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
        No such name (the nearest are given), several classes of it, or a name without labels.
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
    words = re.compile(rf"\b{re.escape(wanted)}\b")
    near = dict.fromkeys([*filter(words.search, every), *get_close_matches(wanted, every)])
    close = [every[name] for name in near][:5]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see the labels file"
    raise InvalidInputError(f"target {target!r} is in none of the {len(labels)} labels; {hint}")


def at_layers(given: Sequence[str], backend: cfcam.Backend, use: Callable[[list[Place]], T]) -> T:
    """Return what `use` makes of the layers that ``--layer`` means; of ``[None]`` without any.

    A text of digits is a number in the list of ``cfcam layers``, unless a layer there has that
    name. Outside the list it may be a tensor between, as some exporters number theirs; but not in
    a model with modules, whose paths may end in any number.

    Raises
    ------
    LayerNotFoundError
        `use` finds no such layer.
    """
    if not given:
        try:
            return use([None])
        except LayerNotFoundError as error:
            raise LayerNotFoundError(NO_LAYER) from error
    listed = backend.layers()
    names, numbers = {layer.name for layer in listed}, range(-len(listed), len(listed))
    meant: list[Place] = [
        int(text) if re.fullmatch("-?[0-9]+", text) and text not in names else text
        for text in given
    ]
    try:
        return use(meant)
    except LayerNotFoundError as error:
        named: list[Place] = [
            text if isinstance(place, int) and place not in numbers else place
            for text, place in zip(given, meant, strict=True)
        ]
        if named != meant and not any(layer.module for layer in listed):
            with suppress(LayerNotFoundError):
                return use(named)
        raise LayerNotFoundError(f"{error}; all are listed by: cfcam layers") from error


def read_size(text: str) -> tuple[int, int]:
    """Return the height and width that ``--size`` means: ``HxW``, or one number for both.

    Raises
    ------
    InvalidInputError
        It is neither, or a number is 0 or has more than four digits.
    """
    found = re.fullmatch("([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", text.casefold())
    if found is None:
        raise InvalidInputError(
            f"the size {text!r} is not understood; wanted height x width, such as 224x320, or one "
            "number for both, up to 9999"
        )
    height, width = found.groups()
    return int(height), int(width or height)


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

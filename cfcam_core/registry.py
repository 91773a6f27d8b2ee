"""Which backend opens a model: found by name; nothing is imported while looking.

An entry point of the group ``cfcam.backends`` is named after the root module of the model's type
(``torch``, ``keras``, ``onnx``) or after a file suffix without its dot; a folder is known by the
suffixes of the files in it. It points to a callable ``open_model(model) -> Backend``. This is the
only module that loads plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cfcam_core.backend import Backend
from cfcam_core.errors import BackendNotFoundError, BackendUnavailableError, InvalidInputError

GROUP = "cfcam.backends"


def backends() -> Mapping[str, EntryPoint]:
    """Return the installed backends by name, without importing any of them.

    Returns
    -------
    mapping of str to importlib.metadata.EntryPoint
        Read-only. Of two distributions that claim one name, cfcam's own comes first.
    """
    _installed.cache_clear()
    return _installed()


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """Return the same as when it was last looked up, which takes milliseconds."""
    found = sorted(entry_points(group=GROUP), key=lambda ep: not _is_ours(ep))
    return MappingProxyType({ep.name: ep for ep in reversed(found)})


def open_model(model: Any, backend: str | None = None, **options: Any) -> Backend:
    """Open a model for explaining. An opened `Backend` is returned as it is.

    Parameters
    ----------
    model : object, str or path
        A PyTorch module, a Keras model, an ``onnx.ModelProto``, a path to a model file, or a
        `Backend`.
    backend : str, optional
        Name of the backend to use, one of `backends`. Default: told from the type or the suffix.
    **options
        What that backend's own ``open_model`` takes besides, such as ``providers`` for ONNX.

    Raises
    ------
    BackendNotFoundError
        No installed backend claims this type or suffix, or has that name.
    BackendUnavailableError
        The framework that the backend runs on is not installed; the message holds the command.
    InvalidInputError
        The file does not exist or cannot be read.
    """
    if isinstance(model, Backend):
        if options:
            raise InvalidInputError(
                f"the model is open already, so {', '.join(options)} cannot be set; "
                "give options when it is opened first"
            )
        return model
    known = _installed()
    try:
        name = _choose(model, known) if backend is None else backend
    except BackendNotFoundError:  # maybe it was installed a moment ago
        known = backends()
        name = _choose(model, known)
    if name not in known:
        known = backends()
    if name not in known:
        raise BackendNotFoundError(
            f"no backend is named {name!r}; installed are {', '.join(sorted(known)) or 'none'}"
        )
    try:
        factory = known[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == known[name].module.split(".")[0]:
            raise
        raise BackendUnavailableError(
            f"the {name} backend needs {error.name}, which is not installed; "
            f"run: {_install_command(known[name])}"
        ) from error
    try:
        signature(factory).bind(model, **options)
    except TypeError as error:
        raise InvalidInputError(
            f"the {name} backend does not take {', '.join(options)}: {error}"
        ) from error
    opened = factory(model, **options)
    if not isinstance(opened, Backend):
        raise BackendNotFoundError(
            f"{known[name].value} returned a {type(opened).__name__}, which is not a cfcam Backend"
        )
    return opened


def _choose(model: Any, known: Mapping[str, EntryPoint]) -> str:
    if isinstance(model, str | PathLike):
        path = Path(fspath(model))
        if not path.exists():
            raise InvalidInputError(f"there is no model file {str(path)!r}; check the path")
        inside = path.iterdir() if path.is_dir() else [path]
        candidates = sorted({one.suffix.lower().lstrip(".") for one in inside})
        what = f"the folder {str(path)!r}" if path.is_dir() else f"files ending in {path.suffix!r}"
    else:
        candidates = [cls.__module__.split(".")[0] for cls in type(model).__mro__]
        what = f"a {type(model).__module__}.{type(model).__qualname__}"
    for name in candidates:
        if name in known:
            return name
    raise BackendNotFoundError(
        f"no backend opens {what}; installed are {', '.join(sorted(known)) or 'none'}. "
        "Name one with backend=, or pass arrays to explain_arrays"
    )


def _is_ours(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "cfcam"


def _install_command(entry: EntryPoint) -> str:
    name = entry.dist.name if entry.dist is not None else "cfcam"
    extra = entry.module.removeprefix("cfcam_")
    return f'pip install "{name}[{extra}]"' if _is_ours(entry) else f'pip install "{name}"'

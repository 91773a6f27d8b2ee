"""What the layers of a model are called: paths through nested models, objects, attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from cfcam_core.errors import LayerNotFoundError
from cfcam_core.layers import unknown_layer


class Names:
    """All layers and operations inside some models, each by one path and by some shorter names.

    Parameters
    ----------
    models : sequence of keras.layers.Layer
        The outermost; with one, its own name is no part of a path.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self.operations: dict[str, Any] = {}
        """Layers and operations by path, outer ones before what is in them."""
        self.modules: dict[str, str] = {}
        """Dotted attributes by path, of layers that are attributes of a class of the user's."""
        self._paths: dict[int, str] = {}
        for model in models:
            front = f"{model.name}/" if len(models) > 1 else ""
            self._walk(model, front, "")
        self._roots = {model.name for model in models} if len(models) == 1 else set()

    def path(self, operation: Any) -> str | None:
        """Return the path of a layer, None if it is not in the model."""
        return self._paths.get(id(operation))

    def find(self, name: str) -> str:
        """Return the path that a path, its end, or a dotted attribute means.

        Raises
        ------
        LayerNotFoundError
            There is none, or there are several.
        """
        root, _, rest = name.partition("/")
        for whole in (name, rest if root in self._roots else name):
            if whole in self.operations:
                return whole
        ends = [path for path in self.operations if path.endswith(f"/{name}")]
        ends += [path for path, module in self.modules.items() if module == name]
        if len(ends) > 1:
            raise LayerNotFoundError(
                f"the model has {len(ends)} layers {name!r}; name one as {', '.join(ends[:6])}"
            )
        if not ends:
            raise unknown_layer(name, self.operations)
        return ends[0]

    def of_object(self, operation: Any) -> str:
        """Return the path of a layer.

        Raises
        ------
        LayerNotFoundError
            It is not in the model.
        """
        path = self.path(operation)
        if path is None:
            raise LayerNotFoundError(
                f"the {type(operation).__name__} {operation.name!r} is not in this model; pass one "
                "of its own layers, or a name"
            )
        return path

    def _walk(self, outer: Any, front: str, dots: str) -> None:
        attributes = _attributes(outer)
        for one in _inner(outer):
            if id(one) in self._paths or isinstance(one, keras.layers.InputLayer):
                continue
            path = _free(front + one.name, self.operations)
            self.operations[path] = one
            self._paths[id(one)] = path
            module = dots + attributes[id(one)] if id(one) in attributes else ""
            if module:
                self.modules[path] = module
            self._walk(one, f"{path}/", f"{module}." if module else "")


def _inner(outer: Any) -> Iterator[Any]:
    """Yield what is directly inside: the operations of a graph of layers, then other layers."""
    if isinstance(outer, keras.Model) and hasattr(outer, "operations"):
        yield from outer.operations
    if hasattr(outer, "_flatten_layers"):
        yield from outer._flatten_layers(include_self=False, recursive=False)  # noqa: SLF001


def _attributes(outer: Any) -> dict[int, str]:
    """Return under which attribute each layer of a user's class stands, also in lists and dicts."""
    if type(outer).__module__.split(".")[0] == "keras":
        return {}
    found: dict[int, str] = {}
    for name, value in vars(outer).items():
        if not name.startswith("_"):
            found |= {key: each for key, each in _held(value, name) if key not in found}
    return found


def _held(value: Any, name: str) -> Iterator[tuple[int, str]]:
    if isinstance(value, keras.layers.Layer):
        yield id(value), name
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _held(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _held(one, f"{name}.{place}")


def _free(path: str, taken: Iterable[str]) -> str:
    """Return the path, with a number behind it where others have it."""
    number, wanted = 1, path
    while path in taken:
        path, number = f"{wanted}_{number}", number + 1
    return path

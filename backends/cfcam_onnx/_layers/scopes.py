"""Module paths: what the parts of a graph were called in the framework that it was exported from.

PyTorch's newer exporter notes them in each node's metadata, its older one and TensorFlow's put
them into names with slashes. Here all become dotted paths, such as ``layer4.1.conv1``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

import onnx

METADATA = "pkg.torch.onnx.name_scopes"
"""Key under which PyTorch's newer exporter lists the modules a node stands in, outermost first."""

NUMBER = re.compile(r"_\d+(?=\.|$)")
"""What Keras 3 puts behind the name of each layer."""


def module_of(node: onnx.NodeProto) -> str:
    """Return the dotted path of the module that a node belongs to; empty if the file has none."""
    for entry in node.metadata_props:
        if entry.key == METADATA:
            *scopes, _ = "", *re.findall(r"'([^']*)'", entry.value)  # the last is the node itself
            return scopes[-1] if scopes else ""
    name = next((name for name in (node.name, *node.output) if "/" in name), "")
    *scopes, _ = name.split(";")[0].split("/")
    return ".".join(_unrepeated([scope for scope in scopes if scope]))


def modules(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    """Return every module with the nodes in it and in its parts, in order."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for path in _with_parents(module_of(node)):
            found.setdefault(path, []).append(node)
    return found


def match(path: str, there: Collection[str]) -> list[str]:
    """Return which of the module paths `there` are meant; several if that is not clear.

    The path itself goes first, then longer ones that end in it; after that the same for what is
    left of it without its first part. Users say ``model.layer4`` of what the file calls
    ``layer4``, and the other way round. Python's ``layer4[0]`` is ``layer4.0``, and ``layer4[-1]``
    the last part of ``layer4`` that the file has. Keras 3 writes ``resnet50_1.conv1_1`` where its
    layers are called ``resnet50`` and ``conv1``; where all paths begin like that, the numbers may
    be left out.
    """
    wanted = re.sub(r"\[(\d+)\]", r".\1", path.strip())
    container, last, rest = wanted.partition("[-1]")
    if last:
        parts = [one + rest for whole in match(container, there) for one in _last(whole, there)]
        return [part for part in parts if part in there]
    numbered = all(NUMBER.search(one.partition(".")[0]) for one in there)
    for name in filter(None, (wanted, wanted.partition(".")[2])):
        if name in there:
            return [name]
        found = [
            one
            for one in there
            if _ends(one, name) or (numbered and _ends(NUMBER.sub("", one), name))
        ]
        if found:
            return found
    return []


def _ends(path: str, name: str) -> bool:
    return f".{path}".endswith(f".{name}")


def _unrepeated(scopes: list[str]) -> list[str]:
    """Return the parts without those that the next one begins with, as in ``layer4/layer4.1``."""
    pairs = pairwise([*scopes, ""])
    return [one for one, following in pairs if not following.startswith(f"{one}.")]


def _with_parents(path: str) -> Iterator[str]:
    parts = path.split(".") if path else []
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _last(path: str, there: Collection[str]) -> list[str]:
    """Return the part of a module that has the highest number, if its parts have numbers."""
    names = [one.removeprefix(f"{path}.") for one in there if one.startswith(f"{path}.")]
    numbers = [int(name) for name in names if name.isdecimal()]
    return [f"{path}.{max(numbers)}"] if numbers else []

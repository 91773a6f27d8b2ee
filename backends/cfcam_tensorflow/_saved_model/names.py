"""What the tensors of a graph are called: by operation and by layer, without calls of functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from cfcam_core.errors import LayerNotFoundError
from cfcam_core.layers import unknown_layer

CALL = re.compile(r"(Stateful|Stateless)?PartitionedCall(_\d+)?")
COUNT = re.compile(r"_\d+$")


class Names:
    """The names of operations, and of the layers that their scopes tell of.

    Keras numbers the scopes of what it exports, ``conv_1`` for the layer ``conv``: where all are
    numbered, the numbers are left out of the layers' names.
    """

    def __init__(self, operations: Iterable[str]) -> None:
        short = {name: _without_calls(name) for name in operations}
        often = Counter(short.values())
        self.names = {name: one if often[one] == 1 else name for name, one in short.items()}
        scopes = {op: _scope(one) for op, one in short.items()}
        first = {scope[0] for scope in scopes.values() if scope}
        inner = {scope[1] for scope in scopes.values() if len(scope) > 1}
        root = 1 if len(first) == 1 and inner else 0
        numbered = root and all(COUNT.search(one) for one in first | inner)
        layers = {op: _layer(one) if numbered else one for op, one in scopes.items()}
        self.modules = {op: ".".join(scope[root:]) for op, scope in layers.items()}
        """Dotted path of the layer that an operation is part of; may be empty."""
        self._ways = [
            {op: ".".join(scope) for op, scope in paths.items()}
            for paths in (layers, {op: _scope(name) for op, name in self.names.items()})
        ]

    def operations(self, name: str) -> list[str]:
        """Return the operations that a name stands for: one, or those of a layer in order."""
        exact = [op for op, short in self.names.items() if name in {op, short}]
        if exact:
            return exact
        wanted = name.replace("/", ".")
        for scopes in self._ways:
            owners = {op: _owner(scope, wanted) for op, scope in scopes.items()}
            layers = sorted({owner for owner in owners.values() if owner})
            if len(layers) > 1:
                raise LayerNotFoundError(
                    f"the model has several layers {name!r}: {', '.join(layers)}; name one of them"
                )
            if layers:
                return [op for op, owner in owners.items() if owner]
        modules = dict.fromkeys(one for one in self.modules.values() if one)
        raise unknown_layer(name, modules or self.names.values())


def _without_calls(name: str) -> str:
    parts = [part for part in name.split("/") if not CALL.fullmatch(part)]
    return "/".join(parts) or name


def _scope(name: str) -> list[str]:
    """Return the path to an operation; what only passes arguments to functions has none."""
    return [] if name.startswith("Func/") else name.split("/")[:-1]


def _layer(scope: list[str]) -> list[str]:
    """Return the numbered part of a path, without the numbers; what is below is no layer."""
    return [COUNT.sub("", one) for one in takewhile(COUNT.search, scope)]


def _owner(scope: str, wanted: str) -> str:
    """Return the path down to a layer, if the scope is inside one of that name; else nothing."""
    start = f".{scope}.".find(f".{wanted}.")
    return "" if start < 0 else scope[: start + len(wanted)]

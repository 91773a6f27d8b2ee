"""What was learned of a model is kept as long as it is built of the same modules."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import nn

from cfcam_core.remembered import Parts, remembered
from cfcam_torch._running import modules_of


def structure(model: nn.Module) -> Parts:
    """Return of which modules a model is built, and under which names."""
    modules = modules_of(model)
    return Parts(modules, [list(module._modules.keys()) for module in modules])  # noqa: SLF001


def learned(model: nn.Module, key: Hashable, learn: Callable[[], Any]) -> Any:
    """Return what `learn` returns, called only if that is not known yet; see `remembered`."""
    return remembered(model, structure(model), key, learn)

"""Flax NNX for cfcam: each call runs its own copy of the model, whose modules show their output."""

from functools import cache, partial
from typing import Any

import jax
import numpy as np
from cfcam_core import Backend, Capture, InvalidInputError, Layer, capture, layers, targets
from flax import nnx


@cache
def watched(kind: Any) -> Any:
    """Make a subclass of a module's class whose output passes through the module's `watch`."""
    call = {"__call__": lambda self, *args, **how: self.watch(kind.__call__(self, *args, **how))}
    return type(kind)(kind.__name__, (kind,), call)


class FlaxBackend(Backend):
    """An `nnx.Module` that takes an array (N, *s, C) and returns logits (N, K)."""

    def __init__(self, model: nnx.Module, *, example: Any = None) -> None:
        self.model, self.found = model, []
        self.modules = {".".join(map(str, path)): one for path, one in nnx.iter_modules(model)}
        self.axes = {len(m.kernel_size) for m in self.modules.values() if isinstance(m, nnx.Conv)}
        _ = example is None or self.scores(example)

    def layers(self) -> list[Layer]:
        """Return what all paths run through; the example or the first inputs show it."""
        return self.found

    def scores(self, inputs: Any) -> Any:
        """Return the logits (N, K)."""
        return self.capture(inputs, layer="input").scores

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Any:
        """Return the logits with maps (N, C, *s) in place of the layer's output."""
        x, name, own = self._open(inputs, layer)
        given = np.moveaxis(capture.real_array(activations, "activations"), 1, -1)
        if given.shape != own.shape:
            raise InvalidInputError(f"activations fit {given.shape}; {name} has {own.shape}")
        return np.asarray(self._run(x, name, given)[0])

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Return the layer's output, and the gradient of what the model makes of it."""
        return self._differentiate(*self._open(inputs, layer), target)

    def _differentiate(self, x: Any, name: str, own: Any, target: Any = None) -> Capture:
        scores, back = jax.vjp(lambda given: self._run(x, name, given)[0], own)
        classes, seed = targets.resolve_targets(target, np.asarray(scores))
        maps = (np.moveaxis(np.asarray(array), -1, 1) for array in (own, *back(seed)))
        return Capture(*maps, scores, classes, name, x.shape[1:-1])

    def _open(self, inputs: Any, layer: Any) -> tuple[Any, str, Any]:
        x = capture.real_array(inputs, "inputs")
        x = x[None] if x.ndim - 1 in self.axes else x
        made = self._run(x)[1]
        self.found = self.found or self._find(x[:1])
        layer = next((name for name, module in self.modules.items() if module is layer), layer)
        name = layers.find_layer(layer, self.found)
        if name not in made:
            raise layers.unknown_layer(name, made)
        return x, name, made[name]

    def _run(self, x: Any, layer: str = "", given: Any = None) -> tuple[Any, dict[str, Any]]:
        model, made = nnx.clone(self.model), {}

        def watch(name: str, out: Any) -> Any:
            if name not in made and getattr(out, "ndim", 0) == x.ndim and min(out.shape[1:-1]) > 1:
                made[name] = out = given if name == layer else out
            return out

        for path, module in list(nnx.iter_modules(model)):
            module.__class__ = watched(type(module))
            module.watch = partial(watch, ".".join(map(str, path)))
        model.eval()
        logits = model(watch("input", x))
        if logits.ndim != 2 or not {x.ndim - 2} <= self.axes:
            raise InvalidInputError(f"inputs {x.shape} give {logits.shape}; wanted logits (N, K)")
        return logits, made

    def _find(self, x: Any) -> list[Layer]:
        # with another input's maps at a place that all paths run through, logits are that input's
        (own, made), (other, others) = self._run(x), self._run(np.flip(x, -2) - 1)
        cuts = [n for n in made if layers.is_bottleneck(self._run(x, n, others[n])[0], own, other)]
        maps = [self._differentiate(x, name, made[name]).gradients for name in cuts[1:]]
        shapes, how = [g.shape for g in maps], {"axes": x.ndim - 2, "is_cut": lambda _: True}
        best = layers.find_default(shapes, gradient=maps.__getitem__, **how)
        kinds = [type(self.modules[name]).__name__ for name in cuts[1:]]
        facts = enumerate(zip(cuts[1:], shapes, kinds, strict=True))
        return [Layer(n, (None, *s[2:], s[1]), kind, i == best) for i, (n, s, kind) in facts]


open_model = FlaxBackend

"""Flax NNX for cfcam: each call runs its own copy of the model, whose modules show their output."""

from functools import cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from cfcam_core import Backend, Capture, InvalidInputError, Layer
from cfcam_core.capture import real_array
from cfcam_core.layers import find_default, find_layer, is_bottleneck
from cfcam_core.targets import resolve_targets


@cache
def watched(kind: Any) -> Any:
    """Make a subclass of a module's class whose output passes through the module's `watch`."""
    call = {"__call__": lambda self, *args, **how: self.watch(kind.__call__(self, *args, **how))}
    return type(kind)(kind.__name__, (kind,), call)


class FlaxBackend(Backend):
    """An `nnx.Module` that takes an array (N, *s, C) and returns logits (N, K)."""

    input_layout = "channels_last"

    def __init__(self, model: nnx.Module, *, example: Any = None) -> None:
        self.model, self.found = model, []
        self.modules = {".".join(map(str, path)): one for path, one in nnx.iter_modules(model)}
        self.axes = {len(m.kernel_size) for m in self.modules.values() if isinstance(m, nnx.Conv)}
        if example is not None:
            self.capture(example)

    def layers(self) -> list[Layer]:
        """Return what all paths run through; known from the example or the first explanation."""
        return self.found

    def scores(self, inputs: Any) -> Any:
        """Return the logits (N, K)."""
        return np.asarray(self.run(self.place(inputs, "input")[0])[0])

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Any:
        """Return the logits with maps (N, C, *s) in place of the layer's output."""
        x, name, own = self.place(inputs, layer)
        given = np.moveaxis(real_array(activations, "activations"), 1, -1)
        if given.shape != own.shape:
            raise InvalidInputError(f"activations turn into {given.shape}; {name} has {own.shape}")
        return np.asarray(self.run(x, name, given)[0])

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Return the layer's output, and the gradient of what the model makes of it."""
        x, name, own = self.place(inputs, layer)
        scores, back = jax.vjp(lambda given: self.run(x, name, given)[0], own)
        targets, seed = resolve_targets(target, np.asarray(scores))
        maps = (np.moveaxis(np.asarray(a, np.float32), -1, 1) for a in (own, *back(seed)))
        return Capture(*maps, scores, targets, name, x.shape[1:-1])

    def place(self, inputs: Any, layer: Any) -> tuple[Any, str, Any]:
        """Return the inputs as a batch, the layer's name and its output on them."""
        x = real_array(inputs, "inputs")
        x = x[None] if x.ndim - 1 in self.axes else x
        _, made = self.run(x)
        if not isinstance(layer, str):
            self.found = self.found or self.find(x[:1])
        name = find_layer(layer, self.found, parts=self.modules, names=made)
        return x, name, made[name]

    def run(self, x: Any, layer: str = "", given: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return the logits and what each layer puts out, with `given` in the place of one."""
        model, made = nnx.clone(self.model), {}

        def watch(name: str, out: Any) -> Any:
            if name not in made and getattr(out, "ndim", 0) == x.ndim and min(out.shape[1:-1]) > 1:
                made[name] = out = given if name == layer else out
            return out

        for path, module in list(nnx.iter_modules(model)):
            module.__class__ = watched(type(module))
            module.watch = partial(watch, ".".join(map(str, path)))
        model.eval()
        try:
            logits = model(watch("input", x)).astype(np.float32)
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInputError(f"the model does not take {x.shape}: {error}") from error
        if logits.shape[:-1] != x.shape[:1] or (self.axes and x.ndim - 2 not in self.axes):
            raise InvalidInputError(f"of {x.shape} the model makes {logits.shape}; wanted (N, K)")
        return logits, made

    def find(self, x: Any) -> list[Layer]:
        """List where all paths meet: another input's maps there give that input's logits."""
        (own, made), (other, others) = self.run(x), self.run(np.flip(x, -2) - 1)
        cuts = [n for n in made if is_bottleneck(self.run(x, n, others[n])[0], own, other)][1:]
        slopes = [self.capture(x, layer=name).gradients for name in cuts]
        default = find_default([slope.shape for slope in slopes], x.ndim - 2, slopes.__getitem__)
        facts = [((None, *made[n].shape[1:]), type(self.modules[n]).__name__) for n in cuts]
        return [Layer(n, *facts[i], is_default=i == default) for i, n in enumerate(cuts)]

"""Maps as pytorch-grad-cam and torchcam make them: signed, at the layer's resolution.

Both cut off what is negative and stretch the rest; here their methods are stopped before that.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torchcam import methods as torchcam

Array = np.ndarray[Any, Any]


def _pytorch_grad_cam() -> tuple[Any, Any]:
    """Import it without torchvision, which it asks for, and which no method below runs."""
    transforms = ModuleType("torchvision.transforms")
    vars(transforms).update(Compose=None, Normalize=None, ToTensor=None)
    functional = ModuleType("torchvision.transforms.functional")
    vars(functional).update(resize=None)
    stubs = {m.__name__: m for m in (ModuleType("torchvision"), transforms, functional)}
    stubs = {name: stub for name, stub in stubs.items() if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    finally:
        for name in stubs:
            del sys.modules[name]
    return pytorch_grad_cam, ClassifierOutputTarget


grad_cams, _Target = _pytorch_grad_cam()


class Zeroed(grad_cams.AblationLayer):  # type: ignore[misc]
    """Sets channels to zero, as the paper says, whatever the sign of the others."""

    def __call__(self, x: Any) -> Any:
        for sample, channel in zip(self.activations, self.indices, strict=False):
            sample[channel] = 0
        return self.activations


def by_pytorch_grad_cam(
    name: str, model: Any, layer: str, x: torch.Tensor, classes: Sequence[int], **how: Any
) -> Array:
    """Return the maps (N, *s) of one of its classes."""
    own = copy.deepcopy(model)  # its ablation changes the model
    maps: list[Array] = []
    with getattr(grad_cams, name)(own, [own.get_submodule(layer)], **how) as cam:
        image = cam.get_cam_image

        def kept(*arguments: Any) -> Array:
            maps.append(image(*arguments))
            return maps[-1]

        cam.get_cam_image = kept
        with redirect_stderr(StringIO()):  # it draws progress bars
            cam(x, [_Target(k) for k in classes])
    return maps[0]


def by_torchcam(
    name: str, model: Any, layer: str, x: torch.Tensor, classes: Sequence[int], **how: Any
) -> Array:
    """Return the maps (N, *s) of one of its classes."""
    with getattr(torchcam, name)(model, model.get_submodule(layer), **how) as cam:
        cam._relu = False
        scores = model(x.clone().requires_grad_())
        (maps,) = cam(list(classes), scores, normalized=False)
    return np.asarray(maps.detach())

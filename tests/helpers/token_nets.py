"""Transformers of pictures, small, from their configurations alone, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

NARROW = {"hidden_size": 32, "num_attention_heads": 2, "num_labels": 10}
STAGES = {
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 1, 2, 2],
    "depths": [1, 1, 1, 2],
    "num_labels": 10,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """An architecture: its configuration, and where its map is."""

    family: str
    config: dict[str, Any]
    size: tuple[int, int]
    last: str
    """Path of the module whose output should be the default map."""
    grid: tuple[int, int]
    prefix: int


KINDS = {
    "ViT": Kind(
        *("ViT", {**NARROW, "num_hidden_layers": 3, "image_size": 64, "intermediate_size": 64}),
        *((64, 64), "vit.layers.1", (4, 4), 1),
    ),
    "DeiT": Kind(
        *("DeiT", {**NARROW, "num_hidden_layers": 3, "image_size": 64, "intermediate_size": 64}),
        *((64, 64), "deit.layers.1", (4, 4), 2),
    ),
    "DINOv2": Kind(
        *("Dinov2", {**NARROW, "num_hidden_layers": 3, "image_size": 56, "patch_size": 14}),
        *((56, 84), "dinov2.layernorm", (4, 6), 1),
    ),
    "DINOv2 with registers": Kind(
        "Dinov2WithRegisters",
        {
            **NARROW,
            "num_hidden_layers": 3,
            "image_size": 56,
            "patch_size": 14,
            "num_register_tokens": 4,
        },
        *((84, 56), "dinov2_with_registers.layernorm", (6, 4), 5),
    ),
    "BEiT": Kind(
        *("Beit", {**NARROW, "num_hidden_layers": 3, "image_size": 64, "intermediate_size": 64}),
        *((64, 64), "beit.layers.2", (4, 4), 1),
    ),
    "CvT": Kind(
        "Cvt",
        {"embed_dim": [16, 48, 64], "num_heads": [1, 3, 4], "depth": [1, 2, 3], "num_labels": 10},
        *((64, 96), "cvt.encoder.stages.2.layers.1", (4, 6), 1),
    ),
    "PVT": Kind(
        *("Pvt", {**STAGES, "image_size": 128}),
        *((128, 128), "pvt.encoder.block.3.0", (4, 4), 1),
    ),
    "PVTv2": Kind(
        *("PvtV2", {**STAGES, "image_size": 128}),
        *((96, 128), "pvt_v2.encoder.layers.3.layer_norm", (3, 4), 0),
    ),
    "SegFormer": Kind(
        *("Segformer", {**STAGES, "decoder_hidden_size": 16}),
        *((96, 128), "segformer.stages.3.layer_norm", (3, 4), 0),
    ),
    "Swin": Kind(
        "Swin",
        {
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "image_size": 64,
            "num_labels": 10,
        },
        *((64, 96), "swin.layernorm", (8, 12), 0),
    ),
    "Swin v2": Kind(
        "Swinv2",
        {
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "image_size": 64,
            "num_labels": 10,
        },
        *((64, 64), "swinv2.layernorm", (8, 8), 0),
    ),
}


def make_transformer(name: str, *, attention: str = "eager") -> Any:
    """Build a classifier whose weights make maps that differ from place to place."""
    import transformers

    kind = KINDS[name]
    config = getattr(transformers, f"{kind.family}Config")(
        **kind.config, attn_implementation=attention
    )
    model = getattr(transformers, f"{kind.family}ForImageClassification")(config).eval()
    return lively(model)


def lively(model: nn.Module) -> nn.Module:
    """Draw weights that are not as small as those a training starts from."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, (1.5 / weight[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                weight.normal_(0, 0.1)
            else:
                weight.uniform_(0.5, 1.5)
    return model


class Wide(nn.Module):
    """A transformers model whose position embeddings are stretched to the size of the picture."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return self.net(x, interpolate_pos_encoding=True).logits


def folded(tokens: torch.Tensor, prefix: int, grid: tuple[int, int]) -> Any:
    """Lay tokens (N, T, C) out by hand: (N, C, rows, columns)."""
    patches = tokens[:, prefix:].detach().transpose(1, 2)
    return patches.reshape(*patches.shape[:2], *grid).numpy()


def seen_at(model: nn.Module, path: str, x: Any, score: Callable[[Any], Any]) -> Any:
    """Return a module's output and the gradients there of a score of the model's output."""
    seen: list[Any] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = model.get_submodule(path).register_forward_hook(keep)
    try:
        chosen = score(model(x))
    finally:
        handle.remove()
    (gradients,) = torch.autograd.grad(chosen, seen[-1])
    return seen[-1], gradients

"""Architectures with seeded random weights: what the gradients of exported files are held against.

``python tests/helpers/zoo.py resnet50 out.onnx`` writes one to a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain_nets
import torch
from exporting import EXPORTERS, export
from torch import nn

SMALL, FULL = 96, 224
"""Sides of the images: some layers in the tests, the real depth in the table."""

FLOOR = 0.1
"""Least variance of a batch norm's channel, as a part of the mean variance."""


@dataclass(frozen=True, eq=False, slots=True)
class Net:
    """A classifier in evaluation mode, two images, and the modules whose outputs are explained."""

    model: Any
    x: torch.Tensor  # (2, 3, side, side)
    last: str
    """Path of the module whose output should be the default layer."""
    early: str
    smooth: bool
    """Whether no unit has a kink behind the early layer, so that rounding stays rounding."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How an architecture is made: ``build(small=...)`` returns model, last and early layer."""

    build: Callable[..., tuple[Any, str, str]]
    smooth: bool


ZOO: dict[str, Entry] = {}


def architecture(*, smooth: bool) -> Callable[[Any], Any]:
    def register(build: Any) -> Any:
        ZOO[build.__name__] = Entry(build, smooth)
        return build

    return register


def make(name: str, *, small: bool = False, seed: int = 0) -> Net:
    """Build an architecture, fill it with weights and draw its images."""
    torch.manual_seed(seed)
    model, last, early = ZOO[name].build(small=small)
    side = SMALL if small else FULL
    settle(model.eval(), side)
    return Net(model, images(2, side), last, early, ZOO[name].smooth)


def settle(model: Any, side: int) -> None:
    """Fill in weights at which signals neither vanish nor explode.

    Vectors (norms, biases, scales of residual branches) are moved off their neutral values, which
    would hide mistakes; the statistics of batch norms are those of random images, with a floor:
    a channel that hardly varies would be blown up, and its rounding with it.
    """
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(0, (1.5 / p[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                p.normal_(0, 0.1)
            else:
                p.uniform_(0.5, 1.5)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.train().momentum = None  # the mean of all batches
        if norms:
            model(images(8, side))
        for norm in norms:
            norm.running_var += FLOOR * norm.running_var.mean()
    model.eval()


def images(samples: int, side: int) -> torch.Tensor:
    """Draw coarse patches of colour and fine noise; noise alone looks alike to deep layers."""
    coarse = nn.functional.interpolate(torch.randn(samples, 3, 5, 5), (side, side))
    return coarse + 0.5 * torch.randn(samples, 3, side, side)


class Logits(nn.Module):
    """A transformers model that takes an image and returns an array."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return self.net(x).logits


def pretrained_kind(family: str, *, small: bool, reduced: dict[str, Any], **full: Any) -> Logits:
    """Build a transformers classifier from its configuration alone; `reduced` counts if small."""
    import transformers

    how = {**full, **(reduced if small else {}), "num_labels": classes(small=small)}
    config = getattr(transformers, f"{family}Config")(**how)
    return Logits(getattr(transformers, f"{family}ForImageClassification")(config))


def classes(*, small: bool) -> int:
    return 10 if small else 1000


TWO_STAGES = {"depths": [1, 2], "hidden_sizes": [32, 64]}


@architecture(smooth=False)
def resnet50(*, small: bool) -> tuple[Any, str, str]:
    model = pretrained_kind("ResNet", small=small, reduced={**TWO_STAGES, "embedding_size": 16})
    stages = "net.resnet.encoder.stages"
    return model, f"{stages}.{1 if small else 3}", f"{stages}.0"


@architecture(smooth=False)
def bit50(*, small: bool) -> tuple[Any, str, str]:
    reduced = {**TWO_STAGES, "embedding_size": 16, "num_groups": 8}
    model = pretrained_kind("Bit", small=small, reduced=reduced, global_padding="same")
    return model, "net.bit.norm", "net.bit.encoder.stages.0"


@architecture(smooth=False)
def regnet_y(*, small: bool) -> tuple[Any, str, str]:
    reduced = {**TWO_STAGES, "embedding_size": 16, "groups_width": 16}
    model = pretrained_kind("RegNet", small=small, reduced=reduced)
    stages = "net.regnet.encoder.stages"
    return model, f"{stages}.{1 if small else 3}", f"{stages}.0"


@architecture(smooth=False)
def mobilenet_v1(*, small: bool) -> tuple[Any, str, str]:
    model = pretrained_kind("MobileNetV1", small=small, reduced={"depth_multiplier": 0.25})
    return model, "net.mobilenet_v1.layer.25", "net.mobilenet_v1.layer.3"


@architecture(smooth=False)
def mobilenet_v2(*, small: bool) -> tuple[Any, str, str]:
    model = pretrained_kind("MobileNetV2", small=small, reduced={"depth_multiplier": 0.25})
    return model, "net.mobilenet_v2.conv_1x1", "net.mobilenet_v2.layer.1"


@architecture(smooth=False)
def mobilenet_v3(*, small: bool) -> tuple[Any, str, str]:
    blocks = plain_nets.MOBILENET_V3_SMALL[: 6 if small else None]
    model = plain_nets.MobileNetV3(blocks, classes(small=small))
    return model, f"features.{len(blocks) + 1}", "features.1"


@architecture(smooth=False)
def vgg16(*, small: bool) -> tuple[Any, str, str]:
    how = ([[8, 8], [16, 16], [24]], 32, 6) if small else (plain_nets.VGG_16, 1024, 7)
    model = plain_nets.VGG(*how, classes(small=small))
    return model, f"features.{len(model.features) - 2}", "features.8"


@architecture(smooth=False)
def densenet121(*, small: bool) -> tuple[Any, str, str]:
    blocks, growth = ([2, 3], 8) if small else ([6, 12, 24, 16], 32)
    return plain_nets.DenseNet(blocks, growth, classes(small=small)), "norm", "blocks.0"


@architecture(smooth=False)
def inception(*, small: bool) -> tuple[Any, str, str]:
    return plain_nets.Inception(8 if small else 32, classes(small=small)), "mixed", "mixed.0"


@architecture(smooth=True)
def grouped(*, small: bool) -> tuple[Any, str, str]:
    return plain_nets.Grouped(8 if small else 32, classes(small=small)), "last", "stem"


@architecture(smooth=True)
def efficientnet_b0(*, small: bool) -> tuple[Any, str, str]:
    full = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
    reduced = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320}
    model = pretrained_kind("EfficientNet", small=small, reduced=reduced, **full)
    encoder = "net.efficientnet.encoder"
    return model, f"{encoder}.top_activation", f"{encoder}.blocks.1"


@architecture(smooth=True)
def convnext_t(*, small: bool) -> tuple[Any, str, str]:
    reduced = {**TWO_STAGES, "num_stages": 2}
    model = pretrained_kind("ConvNext", small=small, reduced=reduced)
    stages = "net.convnext.encoder.stages"
    return model, f"{stages}.{1 if small else 3}", f"{stages}.0"


@architecture(smooth=True)
def poolformer_s12(*, small: bool) -> tuple[Any, str, str]:
    reduced = {
        "hidden_sizes": [16, 32],
        "depths": [1, 2],
        "num_encoder_blocks": 2,
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "padding": [2, 1],
    }
    model = pretrained_kind("PoolFormer", small=small, reduced=reduced)
    return model, "net.norm", "net.poolformer.encoder.block.0.0"


@architecture(smooth=True)
def mobilevit_s(*, small: bool) -> tuple[Any, str, str]:
    reduced = {
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [4, 8, 12, 16, 20, 24, 40],
        "image_size": SMALL,
    }
    model = pretrained_kind("MobileViT", small=small, reduced=reduced, image_size=FULL)
    return model, "net.mobilevit.conv_1x1_exp", "net.mobilevit.encoder.layer.1"


def _patches(family: str, *, small: bool) -> tuple[Any, str, str]:
    """Build a transformer with a class token; its last block's patches have no gradient."""
    width = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    narrow = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    reduced = {**narrow, "num_hidden_layers": 4, "image_size": SMALL}
    how = {"attn_implementation": "eager", **width}
    model = pretrained_kind(family, small=small, reduced=reduced, **how)
    layers = f"net.{family.lower()}.layers"
    return model, f"{layers}.{2 if small else 10}", f"{layers}.1"


@architecture(smooth=True)
def vit_s(*, small: bool) -> tuple[Any, str, str]:
    return _patches("ViT", small=small)


@architecture(smooth=True)
def deit_s(*, small: bool) -> tuple[Any, str, str]:
    return _patches("DeiT", small=small)


@architecture(smooth=True)
def swin_t(*, small: bool) -> tuple[Any, str, str]:
    reduced = {
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 6,
        "image_size": SMALL,
    }
    model = pretrained_kind("Swin", small=small, reduced=reduced, attn_implementation="eager")
    return model, "net.swin.layernorm", "net.swin.encoder.layers.0"


def main() -> None:
    """Write one architecture to a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=ZOO)
    parser.add_argument("file", type=Path)
    parser.add_argument("--exporter", choices=EXPORTERS, default="dynamo")
    parser.add_argument("--small", action="store_true", help=f"few layers, {SMALL} x {SMALL}")
    arguments = parser.parse_args()
    net = make(arguments.name, small=arguments.small)
    export(net.model, net.x, arguments.file, arguments.exporter)


if __name__ == "__main__":
    main()

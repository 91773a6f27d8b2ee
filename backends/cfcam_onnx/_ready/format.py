"""What an explain-ready file looks like: the names of its tensors, and what its metadata say.

Method-independent: any class activation map can be made from activations and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

import cfcam_core
from cfcam_core.errors import InvalidInputError

LOGITS, ACTIVATIONS, GRADIENTS = "logits", "activations", "gradients"
"""Outputs of every such file: (N, K), and twice (N, C, *s), channels first; float32."""

CLASS_INDEX = "class_index"
"""Input (N,) int64: the class to explain in each sample, -1 for the one with the largest logit."""

MAP, HEATMAP = "map", "heatmap"
"""Outputs of files made with the map: (N, *s), signed, and (N, *size of the input), in [0, 1]."""

RESERVED = (LOGITS, ACTIVATIONS, GRADIENTS, CLASS_INDEX, MAP, HEATMAP)
"""Names that mean this and nothing else; tensors of the model that have them get others."""

FORMAT = "1"
"""Version of all this; a file of a later one is refused."""

KEY = "cfcam."
"""Start of the keys in the metadata."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the metadata of an explain-ready file say."""

    layer: str
    """The layer, as it is called in the original."""
    kind: str
    """Operator that makes it."""
    source_sha256: str
    """Of the file that this one was made from."""
    module: str = ""
    """Dotted path of the module that makes it, where the original has one."""
    logits_behind: tuple[str, ...] = ()
    """Operators behind the logits that were looked through."""
    input: str = ""
    """Input that the maps lie over; empty if there is none with as many spatial axes."""
    input_axes: tuple[int, ...] = ()
    """Its spatial axes."""
    prefix: int | None = None
    """Tokens in front of those of the picture, where tokens stand in a row; else None."""

    def write(self, model: onnx.ModelProto) -> None:
        """Add them to a model."""
        entries = {
            "format": FORMAT,
            "version": cfcam_core.__version__,
            "layer": self.layer,
            "kind": self.kind,
            "source_sha256": self.source_sha256,
            "logits_behind": ",".join(self.logits_behind),
            "input": self.input,
            "input_axes": ",".join(map(str, self.input_axes)),
        }
        if self.module:
            entries["module"] = self.module
        if self.prefix is not None:
            entries["prefix"] = str(self.prefix)
        for key, value in entries.items():
            model.metadata_props.add(key=KEY + key, value=value)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> Facts | None:
        """Return what a model says, or None if it is not explain-ready.

        Raises
        ------
        InvalidInputError
            It is of a newer format, or damaged.
        """
        said = {p.key.removeprefix(KEY): p.value for p in _own(model)}
        if "format" not in said:
            return None
        if said["format"] != FORMAT:
            raise InvalidInputError(
                f"the file is explain-ready in format {said['format']!r}, this version reads "
                f"{FORMAT!r}; run: pip install --upgrade cfcam"
            )
        there = [info.name for info in (*model.graph.input, *model.graph.output)]
        missing = {LOGITS, ACTIVATIONS, GRADIENTS, CLASS_INDEX} - {*there}
        numbers = [*filter(None, said.get("input_axes", "").split(",")), said.get("prefix", "0")]
        wrong = [repr(text) for text in numbers if not text.isdecimal()]
        if missing or wrong:
            raise InvalidInputError(
                "the file says that it is explain-ready, but "
                + (f"has no {', '.join(sorted(missing))}" if missing else f"has {wrong[0]} as axis")
                + "; export it again with cfcam export"
            )
        *axes, prefix = map(int, numbers)
        return cls(
            said.get("layer", ""),
            said.get("kind", ""),
            said.get("source_sha256", ""),
            said.get("module", ""),
            tuple(filter(None, said.get("logits_behind", "").split(","))),
            said.get("input", ""),
            tuple(axes),
            prefix if "prefix" in said else None,
        )


def _own(model: onnx.ModelProto) -> list[onnx.StringStringEntryProto]:
    return [entry for entry in model.metadata_props if entry.key.startswith(KEY)]

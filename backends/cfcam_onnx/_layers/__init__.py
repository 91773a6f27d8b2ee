"""The layers of a model: which there are, what users call them, where they have their channels."""

from cfcam_onnx._layers.lookup import Layers as Layers
from cfcam_onnx._layers.sites import Site as Site

__all__ = ["Layers", "Site"]

"""Explain-ready files: models that hand out activations and gradients, how made and how read."""

from cfcam_onnx._ready.backend import ReadyBackend as ReadyBackend
from cfcam_onnx._ready.format import Facts as Facts
from cfcam_onnx._ready.tensors import OURS as OURS
from cfcam_onnx._ready.tensors import Tensors as Tensors
from cfcam_onnx._ready.writing import write_export as write_export

__all__ = ["OURS", "Facts", "ReadyBackend", "Tensors", "write_export"]

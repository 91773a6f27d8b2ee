"""Reading models, which may be damaged or hostile: what leaves is sound, and weights are arrays."""

from cfcam_onnx._reading.source import Source as Source
from cfcam_onnx._reading.source import blaming as blaming
from cfcam_onnx._reading.source import read_model as read_model

__all__ = ["Source", "blaming", "read_model"]

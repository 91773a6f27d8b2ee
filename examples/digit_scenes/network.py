"""The demo's network: as a PyTorch module for training, and as an ONNX file built node by node.

The file is written from the weights with `onnx.helper`, not by PyTorch's exporters, so it needs no further package, holds
only what is listed here, and is the same bytes for the same weights.
"""

"""Placeholder of the PyTorch backend."""

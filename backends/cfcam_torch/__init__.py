"""PyTorch models for cfcam: the layer's output and its gradient, and no trace on the model."""

from __future__ import annotations

from typing import Any

from cfcam_torch._backend import TorchBackend as TorchBackend

__all__ = ["TorchBackend", "open_model"]


def open_model(
    model: Any, *, output: Any = None, look_through: bool = True, example: Any = None
) -> TorchBackend:
    """Open a PyTorch model for explaining.

    Parameters
    ----------
    model : nn.Module, ExportedProgram or path
        A classifier. What is wrapped for several devices or compiled is unwrapped and runs eagerly;
        an exported program, or a ``.pt2`` file of one, is taken apart into its modules again. Of
        TorchScript there are only the scores and ``layer="input"``.
    output : str, int or callable, optional
        Where the logits (N, K) are in what the model returns: a key, an attribute, an index, or a
        function that makes them of it, in tensors. Default: the tensor itself, its ``logits``, or
        the first tensor in it, unless another is made of that one by a dense layer.
    look_through : bool
        Whether to explain what a closing softmax, log-softmax or sigmoid reads: the logits, not the
        probabilities. False: explain the output as it is.
    example : array_like, Tensor, dict or tuple, optional
        Inputs for the trial run that finds the layers. Default: the first inputs that come, or, if
        `TorchBackend.layers` is asked first, a guess.

    Returns
    -------
    TorchBackend

    Raises
    ------
    InvalidInputError
        It is no model or its weights are not there; the file cannot be read, or is a pickle
        (``.pt``, ``.pth``), which may run code; the model fails on the example; `output` is none of
        these.

    Examples
    --------
    >>> cfcam_torch.open_model(model).capture(batch, layer="layer4")  # doctest: +SKIP
    """
    return TorchBackend(model, output=output, look_through=look_through, example=example)

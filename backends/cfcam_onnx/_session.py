"""The only module that runs anything: onnxruntime sessions, and its errors turned into ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from cfcam_core.errors import InvalidInputError

Feeds = Mapping[str, NDArray[Any]]

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, RuntimeError, EncodeError),
    *(state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf),
    *(state.NoSuchFile, state.NotImplemented, state.RuntimeException),
)
"""What onnxruntime raises; its own errors have no common root."""


LARGEST_FILLED = 1 << 28
"""Elements that an array may have once it is filled up to the model's own batch: 1 GiB of float32,
or 1783 RGB images of 224 x 224. A file may declare any batch, and memory is not to run out."""


class Session:
    """A model ready to run. May be used from many threads.

    Weights that the model only refers to are used where they are, not copied.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        *,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
        optimize: bool = True,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions
        options.intra_op_num_threads = threads or 0
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        outside = [t.name for t in model.graph.initializer if t.name in weights]
        self._weights = [weights[name] for name in outside]  # the session reads them as it runs
        options.add_external_initializers(
            outside, [ort.OrtValue.ortvalue_from_numpy(array) for array in self._weights]
        )
        wanted = list(providers) if providers is not None else default_providers()
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(),
                options,
                providers=wanted,
                enable_fallback=int(len(wanted) > 1),
            )
        except RUNTIME_ERRORS as error:
            raise InvalidInputError(f"onnxruntime cannot load the model: {error}") from error
        self._inputs = {i.name for i in self._session.get_inputs()}

    def __call__(self, feeds: Feeds, *, seconds: float | None = None) -> list[NDArray[Any]]:
        """Run once; feeds that the model does not read are left out.

        Raises
        ------
        InvalidInputError
            The model does not run on these inputs.
        TimeoutError
            It was still running after `seconds`.
        """
        used = {name: array for name, array in feeds.items() if name in self._inputs}
        with _ended_after(seconds) as options:
            try:
                return list(self._session.run(None, used, options))
            except RUNTIME_ERRORS as error:
                if options.terminate:
                    raise TimeoutError(f"it did not end within {seconds} s") from error
                shapes = {name: array.shape for name, array in used.items()}
                raise InvalidInputError(
                    f"onnxruntime could not run the model on inputs of shape {shapes}: {error}"
                ) from error

    def in_batches(self, feeds: Feeds, samples: int, batch: int | None) -> list[NDArray[Any]]:
        """Run on any number of samples, also where the model takes exactly `batch` at a time.

        Arrays without axes are the same for all samples; the last batch is filled up with copies
        of its last sample.
        """
        if batch is None:
            return self(feeds)
        largest = max(math.prod(array.shape[1:]) for array in feeds.values())
        if batch > samples and batch * largest > LARGEST_FILLED:
            raise InvalidInputError(
                f"the model takes {batch} samples at a time, {batch * largest} numbers; "
                "export it with an open or a smaller batch"
            )
        parts = []
        for start in range(0, samples, batch):
            rows = np.minimum(np.arange(start, start + batch), samples - 1)
            parts.append(self({n: a[rows] if a.ndim else a for n, a in feeds.items()}))
        return [np.concatenate(arrays)[:samples] for arrays in zip(*parts, strict=True)]


@contextmanager
def _ended_after(seconds: float | None) -> Iterator[ort.RunOptions]:
    """Yield options of a run that is told to end when the time is up."""
    options = ort.RunOptions()
    options.log_severity_level = 4
    timer = Timer(seconds or 0, setattr, (options, "terminate", True))
    if seconds is not None:
        timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def default_providers() -> list[str]:
    """Return CUDA if this onnxruntime has it, then the CPU."""
    return [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in ort.get_available_providers()
    ]


def check_providers(providers: Sequence[Any]) -> None:
    """Refuse execution providers that this onnxruntime does not have.

    Raises
    ------
    InvalidInputError
        With the names of those it has.
    """
    there = ort.get_available_providers()
    named = [p if isinstance(p, str) else p[0] for p in providers]
    unknown = [name for name in named if name not in there]
    if unknown or not named:
        raise InvalidInputError(
            f"this onnxruntime has no execution provider {', '.join(unknown) or '(none named)'}; "
            f"it has {', '.join(there)}"
        )

"""The only module that runs anything: onnxruntime sessions, and its errors turned into ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, Timer
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._limits import Bounds
from cfcam_onnx._reading.weights import LARGE

Feeds = Mapping[str, Any]
"""Arrays by the names of a model's inputs, or what `Session.placed` made of them."""

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, RuntimeError, EncodeError),
    *(state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf),
    *(state.NoSuchFile, state.NotImplemented, state.RuntimeException),
)
"""What onnxruntime raises; its own errors have no common root."""


CUDA = "CUDAExecutionProvider"

LARGEST_FILLED = 1 << 28
"""Elements that an array may have once it is filled up to the model's own batch: 1 GiB of float32,
or 1783 RGB images of 224 x 224. A file may declare any batch, and memory is not to run out."""

EXHAUSTED = "Available memory of"
"""What onnxruntime says when the memory that it may use does not suffice."""

FOLDED_UP_TO = 1 << 29
"""Bytes up to which onnxruntime may work out a constant when it loads a model; one whose size is
not known beforehand it then leaves alone."""

HEAVY = 1 << 30
"""Bytes of weights from which onnxruntime makes no second copies of them, in the order in which it
multiplies fastest: they would be in each session, and the next to run would not fit."""

ALLOCATING = Lock()
"""Held from saying what memory the next session may use until it is made: onnxruntime's one place
for that is the whole process's, and gets an ordinary arena afterwards."""


class StillRunningError(InvalidInputError, TimeoutError):
    """A run took longer than it may."""


class Session:
    """A model ready to run. May be used from many threads.

    Weights that the model only refers to are used where they are, not copied. `bounds` hold for
    each run; with one on memory, results are copied, so that those that are kept do not count.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        *,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
        optimize: bool = True,
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds = bounds or Bounds()
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions
        options.intra_op_num_threads = threads or 0
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED  # shapes come first
        outside = [t for t in model.graph.initializer if t.name in weights]
        self._weights = [weights[t.name] for t in outside]  # the session reads them as it runs
        direct = "session.use_external_initializer_file_buffers_directly"  # or it makes copies
        options.add_session_config_entry(direct, "1")
        total = sum(array.nbytes for array in self._weights)
        heavy = total > HEAVY
        fold = "optimization.constant_folding_max_output_size_in_bytes"
        options.add_session_config_entry(fold, str(LARGE if heavy else FOLDED_UP_TO))
        if heavy:
            without = "optimization.disable_specified_optimizers"
            options.add_session_config_entry(without, "NchwcTransformer")
        if heavy or not optimize:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_external_initializers_from_files_in_memory(
            [onnx.external_data_helper.ExternalDataInfo(t).location for t in outside],
            [array.reshape(-1).view(np.uint8) for array in self._weights],
            [array.nbytes for array in self._weights],
        )
        wanted = list(providers) if providers is not None else default_providers()
        try:
            with _allowing(bounds.memory, total, options):
                self._session = ort.InferenceSession(
                    model.SerializeToString(),
                    options,
                    providers=wanted,
                    enable_fallback=int(len(wanted) > 1),
                )
        except RUNTIME_ERRORS as error:
            raise InvalidInputError(f"onnxruntime cannot load the model: {error}") from error
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]
        missing = [name for name in map(_name, providers or ()) if name not in self.providers]
        if missing:
            warnings.warn(
                f"onnxruntime could not start {', '.join(missing)} and runs the model on "
                f"{', '.join(self.providers)}; check that the driver and the libraries it needs "
                "are installed in the versions this onnxruntime wants",
                stacklevel=2,
            )

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that run the model, the preferred first."""
        return tuple(self._session.get_providers())

    def placed(self, arrays: Mapping[str, NDArray[Any]]) -> Feeds:
        """Return feeds that lie where the model runs, so that several runs copy them once.

        On a CPU that is where they are.
        """
        if self.providers[0] != CUDA:
            return arrays
        number = int(self._session.get_provider_options()[CUDA]["device_id"])
        return {
            name: ort.OrtValue.ortvalue_from_numpy(array, "cuda", number)
            for name, array in arrays.items()
        }

    def __call__(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Run once; feeds that the model does not read are left out.

        Raises
        ------
        InvalidInputError
            The model does not run on these inputs, or not within its bounds.
        """
        used = {name: array for name, array in feeds.items() if name in self._inputs}
        with _ended_after(self._bounds.seconds) as options:
            try:
                return self._run(used, options)
            except RUNTIME_ERRORS as error:
                if options is not None and options.terminate:
                    raise StillRunningError(
                        f"the model did not end within {self._bounds.seconds} s; if it is to be "
                        "trusted, raise trial_seconds= or loop_seconds= of cfcam_onnx.Limits"
                    ) from error
                shapes = {name: _shape(value) for name, value in used.items()}
                advice = ""
                if EXHAUSTED in str(error):
                    advice = (
                        f". It may take {self._bounds.memory:,} bytes; pass fewer samples at once, "
                        "or raise memory= of cfcam_onnx.Limits"
                    )
                raise InvalidInputError(
                    f"onnxruntime could not run the model on inputs of shape {shapes}: {error}"
                    + advice
                ) from error

    def _run(self, feeds: Feeds, options: ort.RunOptions | None) -> list[NDArray[Any]]:
        """Run on arrays as they are, or bound to what was placed; the results are arrays."""
        if any(isinstance(value, ort.OrtValue) for value in feeds.values()):
            binding = self._session.io_binding()
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, _ort_value(value))
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._session.run_with_iobinding(binding, options)
            found = [value.numpy() for value in binding.get_outputs()]
        else:
            found = list(self._session.run(None, feeds, options))
        return found if self._bounds.memory is None else [array.copy() for array in found]

    def in_batches(self, feeds: Feeds, samples: int, batch: int | None) -> list[NDArray[Any]]:
        """Run on any number of samples, also where the model takes exactly `batch` at a time.

        Arrays without axes are the same for all samples; the last batch is filled up with copies
        of its last sample. Only where any batch is taken may the feeds be placed already.
        """
        if batch is None:
            return _of_samples(self(feeds), samples)
        if batch < 1:
            raise InvalidInputError("the model takes no samples at all; export it again")
        largest = max(math.prod(array.shape[1:]) for array in feeds.values())
        if batch > samples and batch * largest > LARGEST_FILLED:
            raise InvalidInputError(
                f"the model takes {batch} samples at a time, {batch * largest} numbers; "
                "export it with an open or a smaller batch"
            )
        parts = []
        for start in range(0, samples, batch):
            rows = np.minimum(np.arange(start, start + batch), samples - 1)
            made = self({n: a[rows] if a.ndim else a for n, a in feeds.items()})
            parts.append(_of_samples(made, batch))
        return [np.concatenate(arrays)[:samples] for arrays in zip(*parts, strict=True)]


def _of_samples(arrays: list[NDArray[Any]], samples: int) -> list[NDArray[Any]]:
    """Return arrays that have a row for each sample; others are refused."""
    rows = next((len(a) for a in arrays if a.ndim and len(a) != samples), None)
    if rows is not None:
        raise InvalidInputError(
            f"the model makes {rows} rows of {samples} samples; wanted one each. Name an output "
            "that has as many, or export the model with what puts them together"
        )
    return arrays


@contextmanager
def _allowing(memory: int | None, weights: int, options: ort.SessionOptions) -> Iterator[None]:
    """Give the session that is made meanwhile an arena of its own, no larger than `memory`.

    There is room in it, too, for what onnxruntime makes of the weights.
    """
    if memory is None:
        yield
        return
    options.add_session_config_entry("session.use_env_allocators", "1")
    where = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    with ALLOCATING:
        arena = ort.OrtArenaCfg({"max_mem": memory + 2 * weights})
        ort.create_and_register_allocator(where, arena)
        try:
            yield
        finally:
            ort.create_and_register_allocator(where, ort.OrtArenaCfg({}))


@contextmanager
def _ended_after(seconds: float | None) -> Iterator[ort.RunOptions | None]:
    """Yield options of a run that is told to end when the time is up, or None if it is never."""
    if seconds is None:
        yield None
        return
    options = ort.RunOptions()
    options.log_severity_level = 4
    timer = Timer(seconds, setattr, (options, "terminate", True))
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def default_providers() -> list[str]:
    """Return CUDA if this onnxruntime has it, then the CPU."""
    available = ort.get_available_providers()
    return [name for name in (CUDA, "CPUExecutionProvider") if name in available]


def check_providers(providers: Sequence[Any]) -> None:
    """Refuse execution providers that this onnxruntime does not have.

    Raises
    ------
    InvalidInputError
        With the names of those it has.
    """
    there = ort.get_available_providers()
    if isinstance(providers, str) or not isinstance(providers, Sequence):
        raise InvalidInputError(
            f"providers={providers!r} is a {type(providers).__name__}; pass a list of names, out "
            f"of {', '.join(there)}"
        )
    named = list(map(_name, providers))
    unknown = [name for name in named if name not in there]
    if unknown or not named:
        raise InvalidInputError(
            f"this onnxruntime has no execution provider {', '.join(unknown) or '(none named)'}; "
            f"it has {', '.join(there)}"
        )


def _name(provider: Any) -> str:
    """Return the name of a provider, which may come with its options."""
    name: str = provider if isinstance(provider, str) else provider[0]
    return name


def _ort_value(value: Any) -> ort.OrtValue:
    if isinstance(value, ort.OrtValue):
        return value
    return ort.OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape() if isinstance(value, ort.OrtValue) else value.shape)

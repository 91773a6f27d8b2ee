"""`OnnxBackend`: one opened model. Names are resolved and arrays turned here; the work is done by its neighbours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from threading import Lock
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_core.targets import resolve_targets
from cfcam_onnx._gradient import active_tensors
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input, Sizes, read_inputs, shown
from cfcam_onnx._layers import Site, channel_axes, cut_points, default_site, site
from cfcam_onnx._logits import find_logits
from cfcam_onnx._model import prepare, read_model
from cfcam_onnx._probe import is_incomplete, probe
from cfcam_onnx._programs import (
    COTANGENT,
    EXPLAIN_TOP,
    forward_program,
    gradient_program,
    problems_from,
    tail_program,
)
from cfcam_onnx._session import Session, check_providers

KEPT_SESSIONS = 8
"""Sessions that are kept, the last used ones; each holds a copy of the weights."""


class OnnxBackend(Backend):
    """One ONNX classifier, opened for explaining.

    Gradients are exact: the backward pass from the logits to the layer is added to the graph as ordinary ONNX nodes. All
    methods may be called from many threads; the model that was passed is never changed.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto
        A classifier: one output of shape (N, K), (N, K, 1, 1) or the like.
    output : str, optional
        Name of the output to explain. Default: the first that has such a shape.
    providers : sequence of str, optional
        onnxruntime's execution providers, the preferred first. Default: CUDA where this onnxruntime has it, then CPU.
    threads : int, optional
        Threads of one run on the CPU. Default: onnxruntime's own choice.

    Raises
    ------
    InvalidInputError
        The model cannot be read or run, is no classifier, or a provider is not there.
    UnsupportedOpError
        The model has operators that onnxruntime does not have.

    Notes
    -----
    Where shape inference leaves sizes open, the model is run twice on noise when it is opened; open image sizes are
    then taken to be 224 x 256 and 320 x 384 (see `cfcam_onnx._probe`).
    """

    def __init__(
        self,
        model: Any,
        *,
        output: str | None = None,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
    ) -> None:
        if providers is not None:
            check_providers(providers)
        self._providers, self._threads = providers, threads
        self._graph = graph = Graph(prepare(read_model(model)))
        if is_incomplete(graph):
            probe(graph, [info.name for info in graph.model.graph.output], threads=threads)
        self._logits, self._logits_behind = find_logits(graph, output)
        self._channels = channel_axes(graph)
        self._inputs = self._find_inputs()
        cuts = cut_points(graph, self._logits)
        found = [site(graph, name, self._channels) for name in cuts]
        self._sites = [s for s in found if s is not None and s.least >= 2]
        self._default = default_site(graph, self._logits, self._sites)
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._lock = Lock()

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        last = self._inputs[0].channels not in (None, 1)
        return "channels_last" if last else "channels_first"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; what is passed is converted to it."""
        return self._inputs[0].dtype

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs; with more than one, pass a dict."""
        return tuple(one.name for one in self._inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the file leaves it open."""
        size = (self._graph.sample_shape(self._logits) or (None, None))[1]
        return size if isinstance(size, int) else None

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Operators between the logits and the model's output that were looked through; empty if there are none.

        ``("Softmax",)`` means that the model returns probabilities, but scores and gradients are those of the logits.
        """
        return self._logits_behind

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the tensors that every path runs through and that have a grid of at least 2 positions an axis."""
        return [
            Layer(s.name, _numbers(self._graph.shape(s.name)), s.kind, s is self._default)
            for s in self._sites
        ]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            Preprocessed, in the model's own layout; one sample may come without the axis N.
        layer : str, int or Layer, optional
            Name of a tensor or node, or index into `layers`. Any tensor with a channel axis and one to three spatial axes
            will do, not only those listed. Default: the listed default.
        target : optional
            See `cfcam_core.targets.resolve_targets`. A callable costs one more forward run.

        Returns
        -------
        Capture
            Channels first, float32.

        Raises
        ------
        InvalidInputError
            Inputs or target do not fit the model.
        LayerNotFoundError
            There is no such layer, or it has no spatial axes, or the logits do not depend on it.
        UnsupportedOpError
            Operators behind the layer have no gradient; all are listed, with the nearest later layer that works.
        """
        where = self._resolve(layer)
        feeds, samples = read_inputs(inputs, self._inputs)
        session = self._session("gradient", where.name)
        cotangents = self._cotangents(target, feeds, samples)
        seed = {COTANGENT: cotangents, EXPLAIN_TOP: np.array(target is None)}
        logits, activations, gradients = session.in_batches({**feeds, **seed}, samples, self._batch)
        targets = logits.argmax(axis=1) if target is None else self._targets(target, logits)
        size = tuple(feeds[self._inputs[0].name].shape[axis] for axis in self._inputs[0].spatial)
        return Capture(
            np.moveaxis(activations, where.channels, 1),
            np.moveaxis(gradients, where.channels, 1),
            scores=logits,
            targets=targets,
            layer=where.name,
            input_size=size if len(size) == len(where.grid) else None,
        )

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            As for `capture`.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        InvalidInputError
            The inputs do not fit the model.
        """
        feeds, samples = read_inputs(inputs, self._inputs)
        return self._scores(feeds, samples)

    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with a layer's output replaced.

        Parameters
        ----------
        activations : array_like of shape (N, C, *s)
            Channels first, as `capture` returns them.
        inputs : array_like of shape (N, ...), or dict of str to array_like
            What paths that go past the layer are computed from.
        layer : str, int or Layer, optional
            As for `capture`.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        InvalidInputError
            Activations or inputs do not fit the model, or each other.
        LayerNotFoundError
            As for `capture`.
        """
        where = self._resolve(layer)
        feeds, samples = read_inputs(inputs, self._inputs)
        shape = _numbers(self._graph.shape(where.name))
        order = [0, where.channels, *(a for a in range(1, len(shape)) if a != where.channels)]
        expected = Input(
            where.name, tuple(shape[a] for a in order), self._graph.dtype(where.name), 1
        )
        replaced = expected.read(activations)
        if len(replaced) != samples:
            raise InvalidInputError(
                f"there are activations of {len(replaced)} samples and inputs of {samples}; wanted as many"
            )
        feeds[where.name] = np.ascontiguousarray(np.moveaxis(replaced, 1, where.channels))
        (logits,) = self._session("tail", where.name).in_batches(feeds, samples, self._batch)
        return logits.astype(np.float32)

    # ------------------------------------------------------------------------------- within

    @property
    def _batch(self) -> int | None:
        """Number of samples that the model takes at a time, None for any."""
        fixed = (self.input_shape[0], (self._graph.shape(self._logits) or (None,))[0])
        return next((size for size in fixed if isinstance(size, int)), None)

    def _scores(self, feeds: dict[str, NDArray[Any]], samples: int) -> NDArray[np.float32]:
        (logits,) = self._session("forward", "").in_batches(feeds, samples, self._batch)
        return logits.astype(np.float32)

    def _cotangents(
        self, target: Any, feeds: dict[str, NDArray[Any]], samples: int
    ) -> NDArray[Any]:
        """Return the cotangents of the logits; the model is run only if the target needs scores."""
        if callable(target) or self.classes is None:
            logits = self._scores(feeds, samples)
        else:
            logits = np.zeros((samples, self.classes), np.float32)
        cotangents = resolve_targets(target, logits)[1]
        double = self._graph.dtype(self._logits) == np.float64
        return cotangents.astype(np.float64) if double else cotangents

    def _targets(self, target: Any, logits: NDArray[Any]) -> NDArray[np.intp]:
        return resolve_targets(target, logits.astype(np.float32))[0]

    def _find_inputs(self) -> list[Input]:
        found = []
        for info in self._graph.inputs:
            shape = self._graph.shape(info.name)
            if shape is None:
                raise InvalidInputError(
                    f"the model does not say what shape its input {info.name!r} has; export it with shapes"
                )
            channels = self._channels.get(info.name, 1) if len(shape) >= 3 else None
            sizes, dtype = _numbers(shape), self._graph.dtype(info.name)
            found.append(Input(info.name, sizes, dtype, channels))
        if not found:
            raise InvalidInputError("the model has no inputs; wanted a classifier of arrays")
        return found

    def _resolve(self, layer: Any) -> Site:
        """Return the place a user means."""
        if layer is None:
            if self._default is None:
                raise LayerNotFoundError(
                    "the model has no layer with spatial axes that all paths run through; name a tensor with layer="
                )
            return self._default
        if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
            if not -len(self._sites) <= layer < len(self._sites):
                raise LayerNotFoundError(
                    f"layer {layer} is out of range: the model has {len(self._sites)} layers"
                )
            return self._sites[layer]
        name = layer.name if isinstance(layer, Layer) else layer
        if not isinstance(name, str):
            raise LayerNotFoundError(
                f"layer {layer!r} is a {type(layer).__name__}; pass a name, an index or None"
            )
        return self._named(name)

    def _named(self, name: str) -> Site:
        graph = self._graph
        tensors = {o for n in graph.nodes for o in n.output if o} | set(self.input_names)
        by_node = {node.name: node.output[0] for node in graph.nodes if node.name}
        tensor = name if name in tensors else by_node.get(name)
        if tensor is None:
            close = get_close_matches(name, sorted(tensors | set(by_node)), n=5, cutoff=0.4)
            close = close or [s.name for s in self._sites]
            raise LayerNotFoundError(
                f"the model has no layer {name!r}; the closest names are {', '.join(close) or '(none)'}"
            )
        found = site(graph, tensor, self._channels)
        if found is None:
            raise LayerNotFoundError(
                f"layer {name!r} is {graph.dtype(tensor)} of shape {shown(_numbers(graph.shape(tensor)))}; "
                "wanted a float tensor (N, C, *spatial) with one to three spatial axes"
            )
        if tensor not in active_tensors(graph, tensor, self._logits):
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        return found

    def _session(self, kind: str, name: str) -> Session:
        """Return a session, made once; whoever asks meanwhile waits."""
        with self._lock:
            key = kind, name
            if key not in self._sessions:
                self._sessions[key] = Session(
                    self._program(kind, name), providers=self._providers, threads=self._threads
                )
                while len(self._sessions) > KEPT_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def _program(self, kind: str, name: str) -> onnx.ModelProto:
        programs: dict[str, Callable[[], onnx.ModelProto]] = {
            "forward": lambda: forward_program(self._graph, self._logits),
            "tail": lambda: tail_program(self._graph, self._logits, name),
            "gradient": lambda: gradient_program(self._graph, self._logits, name),
        }
        try:
            return programs[kind]()
        except UnsupportedOpError as error:
            raise UnsupportedOpError(f"layer {name!r} {error}. {self._advice(name)}") from None

    def _advice(self, name: str) -> str:
        """Return which later layer can be explained."""
        later = active_tensors(self._graph, name, self._logits) - {name}
        for candidate in self._sites:
            if candidate.name in later and not problems_from(
                self._graph, self._logits, candidate.name
            ):
                return f"The nearest later layer that works is {candidate.name!r}"
        return "No later layer works; export the model with standard operators"


def _numbers(shape: Sequence[int | str | None] | None) -> Sizes:
    return tuple(size if isinstance(size, int) else None for size in shape or ())

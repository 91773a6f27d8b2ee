"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError, UnsupportedOpError
from cfcam_core.targets import resolve_targets
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._inputs import Input, Sizes, read_inputs
from cfcam_onnx._programs import (
    COTANGENT,
    EXPLAIN_TOP,
    forward_program,
    gradient_program,
    problems_from,
    tail_program,
)
from cfcam_onnx._reading import blaming
from cfcam_onnx._session import Session, check_providers

KEPT_SESSIONS = 8
"""Sessions that are kept, the last used ones; what onnxruntime makes of the weights is in each."""


class OnnxBackend(Backend):
    """One ONNX classifier, opened for explaining.

    Gradients are exact: the backward pass from the logits to the layer is added to the graph as
    ordinary ONNX nodes. All methods may be called from many threads; the model that was passed
    is never changed.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto
        A classifier: one output of shape (N, K), (N, K, 1, 1) or the like.
    output : str, optional
        Name of the output to explain. Default: the first that has such a shape.
    providers : sequence of str, optional
        onnxruntime's execution providers, the preferred first. Default: CUDA where this
        onnxruntime has it, then CPU.
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
    Where shape inference leaves sizes open, the model is run on noise when it is opened; open
    image sizes are then taken to be 224 x 256, 96 x 128 and 320 x 384 (see `cfcam_onnx._probe`).
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
        self._model = Classifier(model, output=output, threads=threads)
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._lock = Lock()

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._model.inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        last = self._model.inputs[0].channels not in (None, 1)
        return "channels_last" if last else "channels_first"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; what is passed is converted to it."""
        return self._model.inputs[0].dtype

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs; with more than one, pass a dict."""
        return tuple(one.name for one in self._model.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the file leaves it open."""
        return self._model.classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Operators behind the logits that were looked through; empty if there are none.

        ``("Softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits.
        """
        return self._model.logits_behind

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the tensors that all paths run through, with a grid of at least 2 an axis."""
        return self._model.layers()

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            Preprocessed, in the model's own layout; one sample may come without the axis N.
        layer : str, int or Layer, optional
            Name of a tensor or node, or index into `layers`. Any tensor with a channel axis and
            one to three spatial axes will do, not only those listed. Default: the listed
            default.
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
            Operators behind the layer have no gradient; all are listed, with the nearest later
            layer that works.
        """
        where = self._model.resolve(layer)
        feeds, samples = read_inputs(inputs, self._model.inputs)
        session = self._session("gradient", where.name)
        targets, cotangents = self._targets(target, feeds, samples)
        own = self._model.graph.own
        seed = {own(COTANGENT): cotangents, own(EXPLAIN_TOP): np.array(target is None)}
        source, batch = self._model.input_of(where), self._model.batch
        logits, activations, gradients = session.in_batches({**feeds, **seed}, samples, batch)
        if target is None:
            targets = logits.argmax(axis=1)
        size = tuple(feeds[source.name].shape[a] for a in source.spatial) if source else None
        return Capture(
            np.moveaxis(activations, where.channels, 1),
            np.moveaxis(gradients, where.channels, 1),
            scores=logits,
            targets=targets,
            layer=where.name,
            input_size=size,
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
        feeds, samples = read_inputs(inputs, self._model.inputs)
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
        where = self._model.resolve(layer)
        feeds, samples = read_inputs(inputs, self._model.inputs)
        shape = self._model.shape(where.name)
        order = [0, where.channels, *(a for a in range(1, len(shape)) if a != where.channels)]
        expected = Input(
            where.name, tuple(shape[a] for a in order), self._model.graph.dtype(where.name), 1
        )
        replaced = expected.read(activations)
        if len(replaced) != samples:
            raise InvalidInputError(
                f"there are activations of {len(replaced)} samples and inputs of {samples}; "
                "wanted as many"
            )
        feeds[where.name] = np.ascontiguousarray(np.moveaxis(replaced, 1, where.channels))
        (logits,) = self._session("tail", where.name).in_batches(feeds, samples, self._model.batch)
        return logits.astype(np.float32)

    # ------------------------------------------------------------------------------- within

    def _scores(self, feeds: dict[str, NDArray[Any]], samples: int) -> NDArray[np.float32]:
        (logits,) = self._session("forward", "").in_batches(feeds, samples, self._model.batch)
        return logits.astype(np.float32)

    def _targets(
        self, target: Any, feeds: dict[str, NDArray[Any]], samples: int
    ) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """Return classes and cotangents; the model is run only if the target needs its scores.

        For the arg-max (None) both only hold a place: the program finds them itself.
        """
        if callable(target) or self.classes is None:
            logits = self._scores(feeds, samples)
        else:
            logits = np.zeros((samples, self.classes), np.float32)
        targets, cotangents = resolve_targets(target, logits)
        double = self._model.graph.dtype(self._model.logits) == np.float64
        return targets, cotangents.astype(np.float64) if double else cotangents

    def _session(self, kind: str, name: str) -> Session:
        """Return a session, made once; whoever asks meanwhile waits."""
        with self._lock:
            key = kind, name
            if key not in self._sessions:
                self._sessions[key] = Session(
                    self._program(kind, name),
                    self._model.graph.weights,
                    providers=self._providers,
                    threads=self._threads,
                )
                while len(self._sessions) > KEPT_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def _program(self, kind: str, name: str) -> onnx.ModelProto:
        programs: dict[str, Callable[[], onnx.ModelProto]] = {
            "forward": lambda: forward_program(self._model.graph, self._model.logits),
            "tail": lambda: tail_program(self._model.graph, self._model.logits, name),
            "gradient": lambda: gradient_program(self._model.graph, self._model.logits, [name]),
        }
        try:
            with blaming(self._model.source):
                return programs[kind]()
        except UnsupportedOpError as error:
            raise UnsupportedOpError(f"layer {name!r} {error}. {self._advice(name)}") from None

    def _advice(self, name: str) -> str:
        """Return which later layer can be explained."""
        model = self._model
        later = model.later_site(problems_from(model.graph, model.logits, [name]).outputs)
        if later is None:
            return "No later layer works; export the model with standard operators"
        return f"The nearest later layer that works is {later.name!r}"

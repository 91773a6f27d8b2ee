"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer, SeveralLayers
from cfcam_core.capture import Capture, real_array
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.layers import find_layer
from cfcam_core.layout import Layout
from cfcam_core.targets import resolve_targets
from cfcam_tensorflow._engines import Tap, find_engine
from cfcam_tensorflow._inputs import Feeds, Inputs, Sizes
from cfcam_tensorflow._intercepting import Around
from cfcam_tensorflow._naming import Names
from cfcam_tensorflow._outputs import as_scores, described
from cfcam_tensorflow._probing import Ending, merged
from cfcam_tensorflow._running import Runner
from cfcam_tensorflow._seen import channel_axis
from cfcam_tensorflow._trial import Trial

INPUT = "input"
"""What the model's own (first) picture is called as a layer."""


class KerasBackend(Backend, SeveralLayers):
    """One Keras classifier, opened for explaining; on TensorFlow, PyTorch or JAX.

    The calls of its layers are intercepted while a run needs it, so sequential, functional, nested
    and subclassed models are all alike. All methods may be called from many threads; the model is
    as it was afterwards, also after an exception. It is always run in inference.

    Parameters
    ----------
    model : keras.layers.Layer or callable
        What is called with the inputs.
    roots : sequence of keras.layers.Layer
        The models inside `model`, or `model` itself.
    output : str, int or callable, optional
        Which output is explained: its key, name, attribute or index, or a function that makes
        scores (N, K) of all that the model returns, in the framework's own tensors. Default: the
        first that has such a shape.
    look_through : bool
        Whether to explain what a closing softmax, sigmoid or the logarithm of one reads: the
        logits, not the probabilities. False: explain the output as it is.
    example : optional
        Inputs as for `capture`, for the trial runs that find the layers. Default: the first inputs
        that come, or noise if `layers` is asked before and the model says what it takes.

    Notes
    -----
    Some weights of a subclassed model may be made by its first run; if so, the first run here makes
    them. Nothing else of a model is ever changed.

    Inside a ``tf.function`` no calls of layers are seen. Where a layer's own ``call`` is one it is
    run uncompiled, in the thread of the call only.
    """

    def __init__(
        self,
        model: Any,
        roots: Sequence[Any],
        *,
        output: Any = None,
        look_through: bool = True,
        example: Any = None,
    ) -> None:
        self._runner = Runner(model, roots, Names(roots), find_engine())
        self._inputs = Inputs.of(model)
        self._ending = Ending(output, list(getattr(roots[0], "output_names", None) or []))
        self._look_through = look_through
        self._lock = RLock()
        self._found: Trial | None = None
        if example is not None:
            self._trial(self._inputs.read(example))

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes | None:
        """Shape of the (first) input, batch first; None for open sizes, or if none is known."""
        return self._inputs.inputs[0].shape if self._inputs.inputs else None

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        first = channel_axis(self._runner.names.operations, 4) == 1
        return "channels_first" if first else "channels_last"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the (first) input; what is passed is converted to it."""
        known = self._inputs.inputs[0].dtype if self._inputs.inputs else None
        return known or np.dtype(np.float32)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs, as far as the model has them; with several, pass a dict or list."""
        return tuple(one.name for one in self._inputs.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None if the output is no classifier's."""
        return self._trial().classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Activations behind the logits that were looked through; may be empty.

        ``("softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits.
        """
        return self._trial().ending.behind

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the maps that all paths from an input run through, in the order of execution.

        They have at least 2 positions an axis. A map is named by the outermost layer that returns
        it, its kind is the class of the layer that made it.

        Raises
        ------
        InvalidInputError
            No inputs have come yet, and the model does not say what it takes.
        """
        with self._lock:
            return self._trial().listed

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict or list of array_like
            Preprocessed, in the model's own layout; one sample may come without the axis N where
            the model says how many axes it takes. Several inputs as a dict by name, or as a list.
        layer : str, int, Layer, keras.layers.Layer, optional
            Path of a layer through nested models (``"base/out_relu"``), the end of one where that
            is unique, dotted attributes (``"blocks.0.conv"``), the layer itself, ``"input"`` for
            the model's (first) picture, or index into `layers`. Of a layer that is called several
            times the last call counts. Default: the listed default.
        target : optional
            See `cfcam_core.targets.resolve_targets`. If the model's output is no scores (N, K), a
            callable: it gets the output in the framework's own tensors and returns what is
            explained, of shape () or (N,).

        Returns
        -------
        Capture
            Channels first, float32. Tokens (N, T, C) that are patches of a picture come as maps
            (N, C, rows, columns); those in front of them, such as a class token, are left out.

        Raises
        ------
        InvalidInputError
            Inputs or target do not fit the model.
        LayerNotFoundError
            There is no such layer, it has no spatial axes, the logits do not depend on it, or it
            is called where it cannot be seen.
        """
        return self.captures(inputs, layers=[layer], target=target)[0]

    def captures(self, inputs: Any, *, layers: Sequence[Any], target: Any = None) -> list[Capture]:
        """Run the model once and return what `capture` returns for each of several layers.

        Parameters
        ----------
        inputs, target : optional
            As for `capture`.
        layers : sequence
            Each as for `capture`; the same may come twice.

        Returns
        -------
        list of Capture
            One a layer, in their order.

        Raises
        ------
        InvalidInputError, LayerNotFoundError
            As for `capture`.
        """
        feeds = self._inputs.read(inputs)
        trial = self._trial(feeds)
        layouts = [self._resolve(layer, trial) for layer in layers]
        if trial.classes is None and not callable(target):
            raise InvalidInputError(
                f"the model returns no scores (N, K) but {trial.returned}; open it with output=, "
                "or pass a callable target that makes a scalar, or one a sample, of what it returns"
            )
        engine = self._runner.engine
        recording = engine.record(
            lambda tap: self._explained(trial, feeds, layouts, tap, target=target)
        )
        made = engine.array(recording.explained)
        scores = made if trial.classes is not None else None
        if scores is None:
            targets, cotangents = np.full(feeds.samples, -1), np.ones_like(made)
        else:
            targets, cotangents = resolve_targets(target, scores)
        gradients = recording.pull(cotangents)
        size = self._size(trial, feeds)
        captures = []
        for layout in layouts:
            activations, found = recording.taken.get(layout.name), gradients.get(layout.name)
            if activations is None:
                raise LayerNotFoundError(
                    f"layer {layout.name!r} was not called where it can be seen; it runs inside a "
                    "tf.function or not at all"
                )
            if found is None:
                raise LayerNotFoundError(
                    f"the explained scores do not depend on layer {layout.name!r}; choose an "
                    "earlier one"
                )
            maps = layout.maps(engine.array(activations), size)
            if len(maps) != feeds.samples:
                raise LayerNotFoundError(
                    f"layer {layout.name!r} makes {len(maps)} maps of {feeds.samples} samples: it "
                    "works on pieces of them; choose another"
                )
            captures.append(
                Capture(maps, layout.maps(found, size), scores, targets, layout.name, size)
            )
        return captures

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict or list of array_like
            As for `capture`.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        InvalidInputError
            The inputs do not fit the model, or its output is no scores.
        """
        feeds = self._inputs.read(inputs)
        return self._scores(self._trial(feeds), feeds, {})

    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with a layer's output replaced.

        Parameters
        ----------
        activations : array_like of shape (N, C, *s)
            Channels first, as `capture` returns them. Tokens that it leaves out are computed from
            the inputs.
        inputs : array_like of shape (N, ...), or dict or list of array_like
            What paths that go past the layer are computed from.
        layer : optional
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
        feeds = self._inputs.read(inputs)
        trial = self._trial(feeds)
        self._check_scores(trial)
        layout = self._resolve(layer, trial)
        own = self._own(trial, feeds, layout)
        wanted = layout.maps(own, self._size(trial, feeds)).shape
        maps = real_array(activations, "activations")
        if maps.shape != wanted:
            raise InvalidInputError(
                f"activations have shape {maps.shape}; on these inputs layer {layout.name!r} makes "
                f"{wanted}"
            )
        array = layout.array(maps, own)
        place = self._place(layout.name, trial) if self._is_input(layout.name) else None
        if place is not None:
            arrays = list(feeds.arrays)
            arrays[place] = array
            return self._scores(trial, Feeds(arrays, feeds.hold), {})
        seen = trial.seen[layout.name]
        value = self._runner.engine.tensor(array)

        def replaced(x: Any) -> Any:
            return keras.ops.cast(value, x.dtype)

        around = self._runner.replacing(seen.calls - 1, replaced)
        return self._scores(trial, feeds, {seen.operation: around})

    # ------------------------------------------------------------------------------- within

    def _trial(self, feeds: Feeds | None = None) -> Trial:
        """Return what a trial has shown; the first to ask makes it, on what it has at hand."""
        with self._lock:
            if self._found is None:
                feeds = feeds or self._inputs.guess()
                if feeds is None:
                    raise InvalidInputError(
                        "the model does not say what it takes; pass example= when it is opened, "
                        "or explain something first"
                    )
                self._found = Trial(
                    self._runner,
                    feeds.first(),
                    self._ending,
                    look_through=self._look_through,
                    is_size_free=self._inputs.is_size_free,
                )
                if not self._inputs.inputs:
                    self._inputs = self._inputs.as_seen(feeds)
            return self._found

    def _resolve(self, layer: Any, trial: Trial) -> Layout:
        """Return how the output of a layer becomes maps; its name is the layer's path."""
        if layer is None:
            with self._lock:
                layer = trial.default
        if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
            name = find_layer(layer, self.layers())
        elif isinstance(layer, keras.layers.InputLayer) and layer.name in self.input_names:
            name = layer.name
        elif isinstance(layer, keras.Operation):
            name = self._runner.names.of_object(layer)
        else:
            name = find_layer(layer, [])
        if self._is_input(name):
            place = self._place(name, trial)
            layout = None if place is None else trial.input_layout(place, name)
            if layout is None:
                raise LayerNotFoundError(
                    f"{name!r} is no picture or signal of floats, so it has no gradient to map; "
                    "choose a layer"
                )
            return layout
        path = self._runner.names.find(name)
        seen = trial.seen.get(path)
        if seen is None:
            raise LayerNotFoundError(
                f"layer {path!r} was not called where it can be seen, or returns no floats: it "
                "runs inside a tf.function, or not at all"
            )
        if seen.layout is None:
            raise LayerNotFoundError(
                f"layer {path!r} makes an array of shape {seen.shape} of one sample; wanted one "
                "with channels and one to three spatial axes"
            )
        return seen.layout

    def _is_input(self, name: str) -> bool:
        return name == INPUT or name in self.input_names

    def _place(self, name: str, trial: Trial) -> int | None:
        """Return the number of an input that is meant as a layer."""
        names = self.input_names
        return names.index(name) if name in names and len(names) > 1 else trial.picture

    def _size(self, trial: Trial, feeds: Feeds) -> tuple[int, ...] | None:
        if trial.picture is None or trial.channels is None:
            return None
        shape = feeds.arrays[trial.picture].shape
        return tuple(n for axis, n in enumerate(shape) if axis not in {0, trial.channels})

    def _explained(
        self,
        trial: Trial,
        feeds: Feeds,
        layouts: Sequence[Layout],
        tap: Tap,
        *,
        target: Callable[[Any], Any] | Any = None,
    ) -> Any:
        """Run the model and return the logits, or what a callable makes of the raw output."""
        runner = self._runner
        tensors = [runner.engine.tensor(one) for one in feeds.arrays]
        arounds: dict[Any, Around] = {}
        for name in dict.fromkeys(layout.name for layout in layouts):
            place = self._place(name, trial) if self._is_input(name) else None
            if place is not None:
                tensors[place] = tap(name, tensors[place])
            else:
                arounds[trial.seen[name].operation] = runner.tapping(name, tap)
        arounds = merged(trial.ending.arounds(), arounds)
        raw = runner.run(feeds.hold(tensors), arounds)
        if trial.classes is None:
            return _one_a_sample(target(raw), feeds.samples)
        scores = as_scores(trial.ending.of(raw), feeds.samples)
        if scores is None:
            raise InvalidInputError(
                f"the output is no scores of {feeds.samples} samples: "
                f"{described(raw, self._ending.names)}"
            )
        return scores

    def _scores(
        self, trial: Trial, feeds: Feeds, arounds: Mapping[Any, Around]
    ) -> NDArray[np.float32]:
        engine = self._runner.engine
        self._check_scores(trial)

        def run(_: Tap) -> Any:
            tensors = [engine.tensor(one) for one in feeds.arrays]
            raw = self._runner.run(feeds.hold(tensors), merged(trial.ending.arounds(), arounds))
            return as_scores(trial.ending.of(raw), feeds.samples)

        made, _ = engine.forward(run)
        return engine.array(made)

    def _check_scores(self, trial: Trial) -> None:
        if trial.classes is None:
            raise InvalidInputError(
                f"the model returns no scores (N, K) but {trial.returned}; open it with output="
            )

    def _own(self, trial: Trial, feeds: Feeds, layout: Layout) -> NDArray[Any]:
        """Return a layer's own output on some inputs."""
        place = self._place(layout.name, trial) if self._is_input(layout.name) else None
        if place is not None:
            return feeds.arrays[place]
        engine = self._runner.engine
        _, taken = engine.forward(lambda tap: self._explained(trial, feeds, [layout], tap))
        return engine.array(taken[layout.name])


def _one_a_sample(explained: Any, samples: int) -> Any:
    shape = tuple(getattr(explained, "shape", (None,)))
    if not keras.ops.is_tensor(explained) or shape not in {(), (samples,)}:
        raise InvalidInputError(
            f"the target made {type(explained).__name__} of shape {shape} of the model's output; "
            f"wanted a tensor of shape () or ({samples},)"
        )
    return explained

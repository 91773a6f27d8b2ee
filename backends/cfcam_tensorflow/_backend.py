"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer, Randomisable, SeveralLayers
from cfcam_core.capture import Capture, real_array
from cfcam_core.inputs import Sizes
from cfcam_core.layers import find_layer
from cfcam_core.targets import resolve_targets
from cfcam_tensorflow._batch import Batch
from cfcam_tensorflow._classifier import Classifier
from cfcam_tensorflow._randomised import randomised, weights_of
from cfcam_tensorflow._seen import channel_axis


class KerasBackend(Backend, SeveralLayers, Randomisable):
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
        self._called = model
        self._options: dict[str, Any] = {"output": output, "look_through": look_through}
        self._model = Classifier(model, roots, **self._options)
        if example is not None:
            self._model.trial(self._model.read(example))

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes | None:
        """Shape of the (first) input, batch first; None for open sizes, or if none is known."""
        return self._model.inputs.inputs[0].shape if self._model.inputs.inputs else None

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        rank = len(self.input_shape or ()) or 4
        first = channel_axis(self._model.runner.names.operations, rank) == 1
        return "channels_first" if first else "channels_last"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the (first) input; what is passed is converted to it."""
        known = self._model.inputs.inputs[0].dtype if self._model.inputs.inputs else None
        return known or np.dtype(np.float32)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs, as far as the model has them; with several, pass a dict or list."""
        return tuple(one.name for one in self._model.inputs.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None if the output is no classifier's."""
        return self._model.trial().facts.classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Activations behind the logits that were looked through; may be empty.

        ``("softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits.
        """
        return self._model.trial().facts.ending.behind

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
        return self._model.listed(self._model.trial())

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
            explained, of shape () or (N,). It is asked again where a run has to be repeated.

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
        return self._model.on(inputs, lambda batch: self._captured(batch, layers, target))

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
        return self._model.on(inputs, lambda batch: batch.scores())

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
        maps = real_array(activations, "activations")
        return self._model.on(
            inputs, lambda batch: batch.scores(batch.layout(self._name(layer, batch)), maps)
        )

    # -------------------------------------------------------------------------- sanity checks

    def weight_names(self) -> Sequence[str]:
        """Return the names of the kernels and matrices, in the order of the layers."""
        return tuple(weights_of(self._called))

    def randomised(self, seed: int, *, last: int | None = None) -> KerasBackend:
        """Return a copy of the model, opened, with the values of its weights in random order.

        Parameters
        ----------
        seed, last : optional
            See `cfcam_core.backend.Randomisable`.

        Raises
        ------
        InvalidInputError
            The model is subclassed or a function, has no such weights, or fewer than `last`.
        """
        copy = randomised(self._called, seed, last)
        return KerasBackend(copy, [copy], **self._options)

    # ------------------------------------------------------------------------------- within

    def _captured(self, batch: Batch, layers: Sequence[Any], target: Any) -> list[Capture]:
        layouts = [batch.layout(self._name(layer, batch)) for layer in layers]
        recording = batch.record(layouts, target)
        made = batch.runner.engine.array(recording.explained)
        scores = made if batch.facts.classes is not None else None
        if scores is None:
            targets, cotangents = np.full(batch.samples, -1), np.ones_like(made)
        else:
            targets, cotangents = resolve_targets(target, scores)
        gradients = recording.pull(cotangents)
        return [
            batch.captured(
                layout,
                recording.taken.get(layout.name),
                gradients.get(layout.name),
                scores,
                targets,
            )
            for layout in layouts
        ]

    def _name(self, layer: Any, batch: Batch) -> str:
        """Return the name that is meant by an index, a layer, a name or None."""
        if layer is None:
            return find_layer(self._model.default(batch.trial), [])
        if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
            return find_layer(layer, self._model.listed(batch.trial))
        if isinstance(layer, keras.layers.InputLayer) and layer.name in self.input_names:
            return str(layer.name)
        if isinstance(layer, keras.Operation):
            return batch.runner.names.of_object(layer)
        return find_layer(layer, [])

"""TensorFlow SavedModels: opened as one flat graph, gradients by TensorFlow in that graph."""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer, SeveralLayers
from cfcam_core.capture import Capture, real_array
from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_core.layers import find_layer
from cfcam_core.layout import Layout
from cfcam_core.targets import resolve_targets
from cfcam_tensorflow._saved_model.classifier import SavedClassifier
from cfcam_tensorflow._saved_model.graph import ADVICE, read_saved_model
from cfcam_tensorflow._saved_model.inputs import Feeds, read_inputs
from cfcam_tensorflow._saved_model.layers import Site
from cfcam_tensorflow._saved_model.programs import Programs
from cfcam_tensorflow._saved_model.trial import Seen, run_trial


def open_saved_model(
    path_or_loaded: Any, *, output: Any = None, look_through: bool = True, example: Any = None
) -> SavedModelBackend:
    """Open a TensorFlow SavedModel for explaining.

    Parameters
    ----------
    path_or_loaded : str, path or object
        A folder that Keras's ``model.export`` or `tf.saved_model.save` wrote, what
        `tf.saved_model.load` returned, or one of its signatures or other concrete functions.
    output : str, int or callable, optional
        Name or number of the signature's output to explain, or name of a tensor; a callable takes
        what the signature returns, in TensorFlow's tensors, and returns logits (N, K). Default: the
        first output that has such a shape.
    look_through : bool
        Whether to explain what a closing Softmax, Sigmoid or LogSoftmax reads.
    example : array_like or dict, optional
        Inputs for the trial run that finds the layers. Default: the first inputs that come, or
        noise.

    Raises
    ------
    InvalidInputError
        It cannot be read, or has no such output.
    UnsupportedOpError
        Its graph cannot be flattened: it has operators that are not there, tables or strings.
    """
    graph = read_saved_model(path_or_loaded, output if callable(output) else None)
    wanted = None if callable(output) else output
    model = SavedClassifier(graph, output=wanted, look_through=look_through)
    return SavedModelBackend(model, example=example)


class SavedModelBackend(Backend, SeveralLayers):
    """One SavedModel, opened for explaining. Its variables are copied when it is opened.

    A SavedModel has operations, not layers: layers are named by the scopes of these. A layer's map
    is the output of the last operation in its scope. All methods may be called from many threads.

    Parameters
    ----------
    model : SavedClassifier
    example : array_like or dict, optional
        As for `open_saved_model`.
    """

    def __init__(self, model: SavedClassifier, *, example: Any = None) -> None:
        self._model = model
        self._programs = Programs(
            model.graph, model.inputs, ends=model.ends, classifier=model.is_classifier
        )
        self._example = None if example is None else read_inputs(example, model.inputs)
        self._found: Seen | None = None
        self._lock = RLock()

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._model.inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        return "channels_first" if self._model.inputs[0].channels == 1 else "channels_last"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; what is passed is converted to it."""
        return self._model.inputs[0].dtype

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs, as the signature has them."""
        return tuple(one.name for one in self._model.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the model leaves it open or is no classifier."""
        return self._model.classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Operators behind the logits that were looked through, the last first; may be empty."""
        return self._model.logits_behind

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the tensors that all paths from an input run through, with a grid.

        It has at least 2 positions an axis. ``name`` is the path of the operation, ``module`` that
        of the layer that it is part of.

        Raises
        ------
        InvalidInputError
            The model refuses the noise of the trial run; `example` is what helps.
        """
        seen = self._seen()
        return [
            Layer(s.name, s.shape, s.kind, s.name == seen.default, s.module) for s in seen.sites
        ]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), dict of str to array_like, or sequence of these
            Preprocessed, in the model's own layout; one sample may come without the axis N.
        layer : str, int or Layer, optional
            Name of a tensor, an operation or a layer, for the last map that it makes; ``input`` for
            the model's (first) picture; or index into `layers`. Default: the listed default.
        target : optional
            See `cfcam_core.targets.resolve_targets`. Where the output is not (N, K), a callable
            that takes it, in TensorFlow's tensors, and returns a scalar or (N,).

        Returns
        -------
        Capture
            Channels first, float32. Tokens that are patches of a picture come as maps; those in
            front of them are left out.

        Raises
        ------
        InvalidInputError
            Inputs or target do not fit the model.
        LayerNotFoundError
            There is no such layer, or it has no spatial axes, or the logits do not depend on it.
        UnsupportedOpError
            An operator behind the layer has no gradient.
        """
        return self.captures(inputs, layers=[layer], target=target)[0]

    def captures(self, inputs: Any, *, layers: Sequence[Any], target: Any = None) -> list[Capture]:
        """Run the model once and return what `capture` returns for each of several layers.

        Parameters
        ----------
        inputs, target : optional
            As for `capture`.
        layers : sequence of str, int, Layer or None
            Each as for `capture`; the same may come twice.

        Raises
        ------
        InvalidInputError, LayerNotFoundError, UnsupportedOpError
            As for `capture`.
        """
        feeds = read_inputs(inputs, self._model.inputs)
        if not layers:
            return []
        sites = [self._resolve(layer, feeds) for layer in layers]
        names = list(dict.fromkeys(site.tensor for site in sites))
        targets, cotangents = self._seeds(target, feeds)
        ends, made, found = self._programs.gradients(names, feeds, cotangents)
        scores = ends[0] if self._model.is_classifier else None
        if scores is not None and target is None:
            targets = scores.argmax(axis=1)
        pairs = dict(zip(names, zip(made, found, strict=True), strict=True))
        return [self._captured(site, pairs[site.tensor], feeds, scores, targets) for site in sites]

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits.

        Parameters
        ----------
        inputs : array_like or dict of str to array_like
            As for `capture`.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        InvalidInputError
            The inputs do not fit the model, or it is no classifier.
        """
        feeds = read_inputs(inputs, self._model.inputs)
        self._model.check_classifier()
        return self._programs.forward(feeds)[0]

    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with a layer's output replaced.

        Parameters
        ----------
        activations : array_like of shape (N, C, *s)
            Channels first, as `capture` returns them. Tokens that it leaves out are computed from
            the inputs.
        inputs : array_like or dict of str to array_like
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
        feeds = read_inputs(inputs, self._model.inputs)
        self._model.check_classifier()
        site = self._resolve(layer, feeds)
        maps = real_array(activations, "activations")
        (own,) = self._programs.layers([site.tensor], feeds)
        layout = self._layout(site, feeds)
        wanted = layout.maps(own, self._model.size_of(site, feeds)).shape
        if maps.shape != wanted:
            raise InvalidInputError(
                f"activations have shape {maps.shape}; with these inputs, layer {site.name!r} has "
                f"{wanted}"
            )
        return self._programs.tail(site.tensor, layout.array(maps, own), feeds)[0]

    # ------------------------------------------------------------------------------- within

    def _seeds(self, target: Any, feeds: Feeds) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
        """Return targets and a cotangent for each end."""
        samples = len(next(iter(feeds.values())))
        if not self._model.is_classifier:
            if not callable(target):
                self._model.check_classifier()
            return np.full(samples, -1), self._raw_seeds(target, feeds, samples)
        if target is None:
            return np.full(samples, -1), [np.full((samples, 1), np.nan, np.float32)]
        if callable(target) or self.classes is None:
            (scores,) = self._programs.forward(feeds)
        else:
            scores = np.broadcast_to(np.float32(0), (samples, self.classes))
        targets, cotangents = resolve_targets(target, scores)
        return targets, [cotangents]

    def _raw_seeds(self, target: Any, feeds: Feeds, samples: int) -> list[NDArray[Any]]:
        """Return the gradient of what a callable makes of the raw outputs, with respect to them."""
        outputs = self._programs.raw(feeds)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([one for one in outputs if one.dtype.is_floating])
            value = target(self._model.graph.raw(outputs))
        shape = tuple(getattr(value, "shape", ("no tensor",)))
        if not tf.is_tensor(value) or shape not in {(), (samples,)}:
            raise InvalidInputError(
                f"the target made a {type(value).__name__} of shape {shape} of the model's output; "
                f"wanted a tensor, a scalar or of shape ({samples},)"
            )
        found = tape.gradient(value, outputs)
        if all(one is None for one in found):
            raise InvalidInputError(
                "what the target made of the model's output does not depend on it; compute it from "
                "that output with TensorFlow's functions"
            )
        return [
            np.zeros(end.shape, np.float32) if one is None else tf.cast(one, tf.float32).numpy()
            for end, one in zip(outputs, found, strict=True)
        ]

    def _resolve(self, layer: Any, feeds: Feeds | None) -> Site:
        """Return the place a user means; a trial run is made only if it takes one."""
        if isinstance(layer, str):
            return self._model.site_named(layer)
        seen = self._seen(feeds)
        if layer is None and seen.default is None:
            if self._model.without_gradient:
                raise UnsupportedOpError(
                    "no layer can be explained: TensorFlow has no gradient of "
                    f"{', '.join(self._model.without_gradient)}; {ADVICE}"
                )
            raise LayerNotFoundError(
                "the SavedModel's graph has no tensor with a spatial grid that all paths run "
                f'through; name one with layer=, pass layer="input", or {ADVICE}'
            )
        return self._model.site_named(find_layer(layer, self.layers()))

    def _captured(
        self,
        site: Site,
        pair: tuple[NDArray[Any], NDArray[Any]],
        feeds: Feeds,
        scores: NDArray[Any] | None,
        targets: NDArray[np.intp],
    ) -> Capture:
        size, layout = self._model.size_of(site, feeds), self._layout(site, feeds)
        activations, gradients = (layout.maps(array, size) for array in pair)
        fits = size if size is not None and len(size) == activations.ndim - 2 else None
        return Capture(activations, gradients, scores, targets, site.name, fits)

    def _layout(self, site: Site, feeds: Feeds) -> Layout:
        may_be_tokens = len(site.shape) == 3 and len(self._model.picture.spatial) == 2
        if may_be_tokens:
            return self._seen(feeds).layout(site)
        return Layout(site.name, site.channels)

    def _seen(self, feeds: Feeds | None = None) -> Seen:
        """Return what a trial run has shown; it is made once, on what there is for it."""
        with self._lock:
            if self._found is None:
                self._found = run_trial(self._model, self._programs, self._example or feeds)
            return self._found

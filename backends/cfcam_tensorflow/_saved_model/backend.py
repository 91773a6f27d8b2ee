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
from cfcam_core.errors import InvalidInputError, UnsupportedOpError
from cfcam_core.layers import find_layer
from cfcam_core.targets import resolve_targets
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._saved_model.classifier import SavedClassifier, Site
from cfcam_tensorflow._saved_model.graph import ADVICE, read_saved_model
from cfcam_tensorflow._saved_model.programs import Programs
from cfcam_tensorflow._saved_model.trial import Trial, run_trial


def open_saved_model(
    model: Any, *, output: Any = None, look_through: bool = True, example: Any = None
) -> SavedModelBackend:
    """Open a TensorFlow SavedModel for explaining; see `cfcam_tensorflow.open_model`.

    Parameters
    ----------
    model : str, path or object
        A folder that Keras's ``model.export`` or `tf.saved_model.save` wrote, what
        `tf.saved_model.load` returned, or one of its signatures or other concrete functions.
    output : str, int or callable, optional
        Name or number of the signature's output to explain; a callable takes what the signature
        returns, in TensorFlow's tensors, and returns logits (N, K). Default: the first of that
        shape.
    look_through, example : optional
        As for `KerasBackend`.

    Raises
    ------
    InvalidInputError
        It cannot be read, or has no such output.
    UnsupportedOpError
        Its graph cannot be flattened: it has operators that are not there, tables or strings.
    """
    made, chosen = (output, None) if callable(output) else (None, output)
    known = SavedClassifier(read_saved_model(model, made), chosen, look_through=look_through)
    return SavedModelBackend(known, example=example)


class SavedModelBackend(Backend, SeveralLayers):
    """One SavedModel, opened for explaining. Its variables are copied when it is opened.

    A SavedModel has operations, not layers: layers are named by the scopes of these. A layer's map
    is the output of the last operation in its scope. All methods may be called from many threads;
    what they take and raise is what `KerasBackend`'s do, and `UnsupportedOpError` where an operator
    behind a layer has no gradient.
    """

    def __init__(self, model: SavedClassifier, *, example: Any = None) -> None:
        self._model = model
        tensors = [one.tensor for one in model.sources]
        self._programs = Programs(model.graph, model.ends, tensors)
        self._example = None if example is None else model.inputs.read(example)
        self._found: Trial | None = None
        self._lock = RLock()

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._model.inputs.inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        return "channels_first" if self._model.sources[0].channels == 1 else "channels_last"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; what is passed is converted to it."""
        return self._model.inputs.inputs[0].dtype or np.dtype(np.float32)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs, as the signature has them."""
        return tuple(one.name for one in self._model.inputs.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the model leaves it open or is no classifier."""
        return self._model.classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """The operator behind the logits that was looked through; may be empty."""
        return self._model.logits_behind

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the tensors that all paths from an input run through, with a grid.

        It has at least 2 positions an axis. ``name`` is the path of the operation, ``module`` that
        of the layer that it is part of.
        """
        seen = self._trial()
        return [
            Layer(s.name, s.shape, s.kind, s.name == seen.default, s.module) for s in seen.sites
        ]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        ``layer`` is the name of an operation, or of a layer, for the last map that it makes;
        ``input`` for the model's (first) picture; or an index into `layers`.
        """
        return self.captures(inputs, layers=[layer], target=target)[0]

    def captures(self, inputs: Any, *, layers: Sequence[Any], target: Any = None) -> list[Capture]:
        """Run the model once and return what `capture` returns for each of several layers."""
        feeds = self._model.inputs.read(inputs)
        fed, samples = self._model.tensors(feeds), feeds.samples
        sites = [self._resolve(layer, feeds) for layer in layers]
        if not sites:
            return []
        targets, seeds = np.full(samples, -1), list[NDArray[Any]]()
        if not self._model.is_classifier:
            seeds = self._seeds(target, fed, samples)
        elif target is not None:
            is_known = self.classes is not None and not callable(target)
            known = np.zeros((samples, self.classes or 0)) if is_known else self._scores(fed)
            targets, cotangents = resolve_targets(target, known)
            seeds = [cotangents]
        names = list(dict.fromkeys(site.tensor for site in sites))
        ends, made, found = self._programs.gradients(names, fed, seeds)
        scores = _as_scores(ends[0]) if self._model.is_classifier else None
        if scores is not None and target is None:
            targets = scores.argmax(axis=1)
        pairs = dict(zip(names, zip(made, found, strict=True), strict=True))
        captures = []
        for site in sites:
            size = self._model.size_of(site, feeds)
            layout = self._trial(feeds).layout(site, size)
            maps, slopes = (layout.maps(x.astype(np.float32), size) for x in pairs[site.tensor])
            shown = size if size is not None and len(size) == maps.ndim - 2 else None
            captures.append(Capture(maps, slopes, scores, targets, site.name, shown))
        return captures

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits, shape (N, K)."""
        feeds = self._model.inputs.read(inputs)
        self._model.check_classifier()
        return self._scores(self._model.tensors(feeds))

    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with a layer's output, shape (N, C, *s), replaced.

        Tokens that `capture` leaves out, and paths that go past the layer, are computed from the
        inputs.
        """
        feeds = self._model.inputs.read(inputs)
        self._model.check_classifier()
        fed, site = self._model.tensors(feeds), self._resolve(layer, feeds)
        maps = real_array(activations, "activations")
        (own,) = self._programs.tensors([site.tensor], fed)
        size = self._model.size_of(site, feeds)
        layout = self._trial(feeds).layout(site, size)
        wanted = layout.maps(own, size).shape
        if maps.shape != wanted:
            raise InvalidInputError(
                f"activations have shape {maps.shape}; with these inputs, layer {site.name!r} has "
                f"{wanted}"
            )
        replaced = layout.array(maps, own.astype(np.float32))
        return self._scores(fed, {site.tensor: replaced})

    # ------------------------------------------------------------------------------- within

    def _scores(
        self, fed: dict[str, NDArray[Any]], replaced: dict[str, NDArray[Any]] | None = None
    ) -> NDArray[np.float32]:
        return _as_scores(self._programs.tensors(self._model.ends, fed, replaced)[0])

    def _seeds(self, target: Any, fed: dict[str, NDArray[Any]], samples: int) -> list[NDArray[Any]]:
        """Return the gradient of what a callable makes of the raw outputs, with respect to them."""
        if not callable(target):
            self._model.check_classifier()
        outputs = [tf.constant(one) for one in self._programs.tensors(self._model.ends, fed)]
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

    def _resolve(self, layer: Any, feeds: Feeds) -> Site:
        trial, missing = self._trial(feeds), self._model.without_gradient
        if layer is None and trial.default is None and missing:
            raise UnsupportedOpError(
                f"no layer can be explained: TensorFlow has no gradient of {', '.join(missing)}; "
                f"{ADVICE}"
            )
        return self._model.site_named(find_layer(layer, self.layers()))

    def _trial(self, feeds: Feeds | None = None) -> Trial:
        """Return what a trial run has shown; it is made once, on what there is for it."""
        with self._lock:
            if self._found is None:
                self._found = run_trial(self._model, self._programs, self._example or feeds)
            return self._found


def _as_scores(end: NDArray[Any]) -> NDArray[np.float32]:
    return end.astype(np.float32).reshape(len(end), -1)

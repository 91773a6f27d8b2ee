"""Models that hand out activations and gradients themselves; nothing is differentiated here.

Such a file was written by `OnnxBackend.export`, or by somebody who says what its outputs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_core.inputs import Sizes
from cfcam_core.targets import resolve_targets
from cfcam_core.tokens import fold_of
from cfcam_onnx._bounds import bounds_of
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import read_inputs
from cfcam_onnx._kept import Kept
from cfcam_onnx._layers.scopes import match
from cfcam_onnx._limits import Limits
from cfcam_onnx._model import prepare
from cfcam_onnx._programs import forward_program
from cfcam_onnx._reading import blaming, read_model
from cfcam_onnx._ready.format import Facts
from cfcam_onnx._ready.inputs import find_inputs, picture
from cfcam_onnx._ready.tensors import Tensors, check
from cfcam_onnx._session import Session, check_providers
from cfcam_onnx._sessions import KEPT_SESSIONS

BEST = -1
"""Class index that stands for the largest logit, in files that we have written."""


class ReadyBackend(Backend):
    """One model whose activations and gradients are among its outputs, opened for explaining.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto
    tensors : Tensors
        What its outputs are called.
    facts : Facts, optional
        What the file says of itself, if we have written it.
    providers, threads, limits : optional
        As for `OnnxBackend`.

    Raises
    ------
    InvalidInputError
        The model cannot be read or run, has no such tensors, or they do not fit each other.
    UnsupportedOpError
        The model has operators that onnxruntime does not have.

    Notes
    -----
    Without a `class_index` the file alone decides which class is explained, and does not say
    which: `target` must then be None, and the targets of an explanation are -1.
    """

    def __init__(
        self,
        model: Any,
        tensors: Tensors,
        *,
        facts: Facts | None = None,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if providers is not None:
            check_providers(providers)
        self._providers, self._threads = providers, threads
        read = read_model(model, limits)
        source = onnx.ModelProto()
        source.CopyFrom(read.model)
        with blaming(source):
            self._graph = Graph(prepare(read.model), read.weights)
            self._bounds = bounds_of(self._graph, limits or Limits())
        self._tensors, self._facts = tensors, facts
        check(self._graph, tensors)
        self._inputs = find_inputs(self._graph, tensors, facts)
        self._sessions: Kept[tuple[str, ...], Session] = Kept(self._session, KEPT_SESSIONS)

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        return self._inputs[0].layout

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; what is passed is converted to it."""
        return self._inputs[0].dtype

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs but the class index; with more than one, pass a dict."""
        return tuple(one.name for one in self._inputs)

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """Operators behind the logits that were looked through; empty if that is not known."""
        return self._facts.logits_behind if self._facts else ()

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the one layer that the file explains."""
        activations, facts = self._tensors.activations, self._facts
        producer = self._graph.producer.get(activations)
        return [
            Layer(
                facts.layer if facts else activations,
                self._channels_first(self._graph.sizes(activations) or (None,)),
                facts.kind if facts else producer.op_type if producer else "Input",
                is_default=True,
                module=facts.module if facts else "",
            )
        ]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, scores and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            Preprocessed, in the model's own layout; one sample may come without the axis N.
        layer : str, int or Layer, optional
            The one of `layers`, by its name, index or module.
        target : None, int, sequence of int, or callable
            Class to explain. What a callable returns must be classes, not coefficients. Only None
            where the model takes no class.

        Returns
        -------
        Capture
            Channels first, float32. Tokens of a picture come as maps.

        Raises
        ------
        InvalidInputError
            Inputs or target do not fit the model, or its outputs do not fit each other.
        LayerNotFoundError
            The file explains another layer.
        """
        name = self._resolve(layer)
        feeds, samples = read_inputs(inputs, self._inputs)
        tensors = self._tensors
        targets = self._targets(target, feeds, samples)
        outputs = [tensors.activations, tensors.gradients, *filter(None, [tensors.scores])]
        activations, gradients, *rest = self._run(outputs, feeds, targets)
        scores = _scores(rest[0]) if rest else None
        if self._facts and scores is not None and target is None:
            targets = scores.argmax(axis=1)
        if tensors.channels_last:
            activations, gradients = (np.moveaxis(a, -1, 1) for a in (activations, gradients))
        source = picture(self._inputs, self._facts, activations.ndim - 2)
        size = source.size(feeds) if source else None
        prefix = self._facts.prefix if self._facts else None
        alike = activations.shape == gradients.shape and activations.ndim == 3
        if prefix is not None and alike and size and len(size) == 2:
            fold = fold_of(name, activations.shape[-1], size, prefix)
            activations, gradients = fold.maps(activations), fold.maps(gradients)
        return Capture(activations, gradients, scores, targets, name, size)

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits, shape (N, K).

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            As for `capture`.

        Raises
        ------
        InvalidInputError
            The inputs do not fit the model, or nobody has said which output the scores are.
        """
        feeds, samples = read_inputs(inputs, self._inputs)
        return self._only_scores(feeds, samples)

    def scores_from(
        self,
        activations: Any,  # noqa: ARG002 - as every backend has it
        inputs: Any,  # noqa: ARG002
        *,
        layer: Any = None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Refuse: the file does not say how the scores come from the layer.

        Raises
        ------
        UnsupportedOpError
            Always.
        """
        raise UnsupportedOpError(
            "the file hands out activations and gradients, and cannot be run from a layer on; "
            "open the original model"
        )

    # ------------------------------------------------------------------------------- within

    def _resolve(self, layer: Any) -> str:
        """Return the name of the one layer, if that is meant."""
        (own,) = self.layers()
        wanted = layer.name if isinstance(layer, Layer) else layer
        is_index = isinstance(layer, int | np.integer) and not isinstance(layer, bool)
        is_name = isinstance(wanted, str) and bool(
            wanted == own.name or (own.module and match(wanted, [own.module]))
        )
        if wanted is None or is_name or (is_index and layer in (0, -1)):
            return own.name
        raise LayerNotFoundError(
            f"the file explains the layer {own.name!r} alone, not {wanted!r}; open the original "
            "model, or export it anew at that layer"
        )

    def _targets(
        self, target: Any, feeds: dict[str, NDArray[Any]], samples: int
    ) -> NDArray[np.intp]:
        """Return the class of each sample; -1 where the file finds it itself."""
        if self._tensors.class_index is None:
            if target is not None:
                raise InvalidInputError(
                    f"target {target!r} cannot be chosen: the file's gradients are of a class that "
                    "it settles itself. Leave target out, or name the input that takes the class "
                    "with class_index="
                )
            return np.full(samples, BEST)
        if target is None and self._facts:
            return np.full(samples, BEST)
        targets, cotangents = resolve_targets(target, self._only_scores(feeds, samples))
        if (targets < 0).any():
            raise InvalidInputError(
                f"the target gives floats or coefficients of shape {cotangents.shape}; the file "
                "takes one class a sample. Return class indices, or open the original model"
            )
        return targets

    def _only_scores(self, feeds: dict[str, NDArray[Any]], samples: int) -> NDArray[np.float32]:
        if self._tensors.scores is None:
            raise InvalidInputError(
                "which output of the file are the scores is not known; name it with scores="
            )
        (found,) = self._run([self._tensors.scores], feeds, np.zeros(samples, np.intp))
        return _scores(found)

    def _run(
        self, outputs: list[str], feeds: dict[str, NDArray[Any]], targets: NDArray[np.intp]
    ) -> list[NDArray[Any]]:
        index = self._tensors.class_index
        if index is not None:
            feeds = {**feeds, index: targets.astype(self._graph.dtype(index))}
        batches = [one.shape[0] for one in self._inputs if one.shape]
        batch = next((size for size in batches if size is not None), None)
        return self._sessions(tuple(outputs)).in_batches(feeds, len(targets), batch)

    def _session(self, outputs: tuple[str, ...]) -> Session:
        return Session(
            forward_program(self._graph, *outputs),
            self._graph.weights,
            providers=self._providers,
            threads=self._threads,
            bounds=self._bounds,
        )

    def _channels_first(self, shape: Sizes) -> Sizes:
        return (shape[0], shape[-1], *shape[1:-1]) if self._tensors.channels_last else shape


def _scores(found: NDArray[Any]) -> NDArray[np.float32]:
    """Return scores as (N, K) float32."""
    if found.ndim < 2 or sum(size != 1 for size in found.shape[1:]) > 1:
        raise InvalidInputError(
            f"the scores have shape {found.shape}; wanted one number a sample and class, (N, K)"
        )
    return found.reshape(len(found), -1).astype(np.float32)

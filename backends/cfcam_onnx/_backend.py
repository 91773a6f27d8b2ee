"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend, Layer, Randomisable, SeveralLayers
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import Sizes
from cfcam_onnx._arrays import as_layer, captured, seeds
from cfcam_onnx._cache import Entries, find_cache
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._inputs import read_inputs
from cfcam_onnx._layers.sites import Site
from cfcam_onnx._limits import Limits
from cfcam_onnx._programs import COTANGENT, EXPLAIN_TOP
from cfcam_onnx._randomised import randomised, weight_sizes
from cfcam_onnx._ready import write_export
from cfcam_onnx._session import check_providers
from cfcam_onnx._sessions import Sessions


class OnnxBackend(Backend, SeveralLayers, Randomisable):
    """One ONNX classifier, opened for explaining.

    Gradients are exact: the backward pass from the logits to the layer is added to the graph as
    ordinary ONNX nodes. All methods may be called from many threads; the model that was passed
    is never changed.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto
        A classifier: one output of shape (N, K), (N, K, 1, 1) or the like.
    output : str, optional
        Name of the output to explain; any tensor or node of that shape will do. Default: the first
        output that has such a shape.
    look_through : bool
        Whether to explain what a closing Softmax, Sigmoid or the like reads: the logits, not the
        probabilities, and as they were before they were quantized. False: explain the output as
        it is.
    providers : sequence of str, optional
        onnxruntime's execution providers, the preferred first. Default: CUDA where this
        onnxruntime has it, then CPU.
    threads : int, optional
        Threads of one run on the CPU. Default: onnxruntime's own choice.
    cache : bool, str or path
        Where to keep, for the next process, what was costly to find out about the model: a folder
        to which only trusted people may write, or False for nowhere. Default: the folder that the
        environment variable ``CFCAM_CACHE`` names (``off`` for none), else the platform's for
        caches; see `cfcam_onnx._cache`.
    limits : Limits, optional
        What the model may ask for before it is refused.

    Raises
    ------
    InvalidInputError
        The model cannot be read or run, asks for more than `limits`, is no classifier, or a
        provider is not there.
    UnsupportedOpError
        The model has operators that onnxruntime does not have.

    Notes
    -----
    Models quantized in the QDQ format have straight-through gradients: rounding counts for nothing,
    and what is cut off at an end of the integers' range has the gradient zero.

    Where shape inference leaves sizes open or may be wrong, the model is run on noise when it is
    opened; open image sizes are then taken to be 224 x 256, 21 x 27 and 331 x 395, or others where
    the model refuses these (see `cfcam_onnx._probe`). A model that does something else on images
    smaller or larger than all of them may be explained wrongly there.

    Weights beside the model's file are mapped, not read: replace that file by renaming a new one,
    for writing into it while the model is open mixes old and new weights or ends the process.
    """

    def __init__(
        self,
        model: Any,
        *,
        output: str | None = None,
        look_through: bool = True,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
        cache: bool | str | PathLike[str] = True,
        limits: Limits | None = None,
    ) -> None:
        if providers is not None:
            check_providers(providers)
        entries = Entries(find_cache(cache))
        self._options: dict[str, Any] = {
            "output": output,
            "look_through": look_through,
            "providers": providers,
            "threads": threads,
            "limits": limits,
        }
        self._model = Classifier(
            model,
            output=output,
            look_through=look_through,
            threads=threads,
            entries=entries,
            limits=limits or Limits(),
        )
        self._sessions = Sessions(self._model, providers=providers, threads=threads)

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes:
        """Shape of the model's (first) input, batch first; None where any size is taken."""
        return self._model.inputs[0].shape

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        return self._model.inputs[0].layout

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
        """Operators behind the logits that were looked through, the last first; may be empty.

        ``("Softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits; ``("QuantizeLinear",)`` that it rounds the logits and cuts them off.
        """
        return self._model.logits_behind

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that really run the model, the preferred first."""
        return self._sessions("forward").providers

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the tensors that all paths from an input run through, with a grid.

        It has at least 2 positions an axis. The shapes are the tensors' own, also of tokens. What
        lies before an operator without a gradient rule is not among them; naming it says which.
        """
        return self._model.layers.listed()

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like of shape (N, ...), or dict of str to array_like
            Preprocessed, in the model's own layout; one sample may come without the axis N.
        layer : str, int or Layer, optional
            Name of a tensor or node; dotted path of a module, for the last map that it makes;
            ``input`` for the model's (first) picture; or index into `layers`. Any tensor with a
            channel axis and one to three spatial axes will do, not only those listed. Default:
            the listed default.
        target : optional
            See `cfcam_core.targets.resolve_targets`. A callable costs one more forward run.

        Returns
        -------
        Capture
            Channels first, float32. Tokens (N, T, C) that are patches of a picture come as maps
            (N, C, rows, columns); those in front of them, such as a class token, are left out
            (see `cfcam_onnx._layers.patches`). Other tokens stay in a row: those in the order of
            windows, those that were learned, and all behind recurrent layers.

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
        return self.captures(inputs, layers=[layer], target=target)[0]

    def captures(self, inputs: Any, *, layers: Sequence[Any], target: Any = None) -> list[Capture]:
        """Run the model once and return what `capture` returns for each of several layers.

        Parameters
        ----------
        inputs, target : optional
            As for `capture`.
        layers : sequence of str, int, Layer or None
            Each as for `capture`; the same may come twice.

        Returns
        -------
        list of Capture
            One a layer, in their order.

        Raises
        ------
        InvalidInputError, LayerNotFoundError, UnsupportedOpError
            As for `capture`.
        """
        places = [self._model.layers.resolve(layer) for layer in layers]
        names = list(dict.fromkeys(place.name for place in places))
        feeds, samples = read_inputs(inputs, self._model.inputs)
        if not names:
            return []
        session, batch = self._sessions("gradient", *names), self._model.batch
        sent = session.placed(feeds) if batch is None else feeds
        targets, cotangents = seeds(
            self._model, target, samples, scores=lambda: self._scores(sent, samples)
        )
        own = self._model.graph.own
        seed = {own(COTANGENT): cotangents, own(EXPLAIN_TOP): np.array(target is None)}
        logits, *found = session.in_batches({**sent, **seed}, samples, batch)
        if target is None:
            targets = logits.argmax(axis=1)
        pairs = zip(found[: len(names)], found[len(names) :], strict=True)
        made = dict(zip(names, pairs, strict=True))
        return [
            captured(
                self._model, where, made[where.name], feeds=feeds, logits=logits, targets=targets
            )
            for where in places
        ]

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
            Channels first, as `capture` returns them. Tokens that it leaves out are computed from
            the inputs.
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
        where = self._model.layers.resolve(layer)
        feeds, samples = read_inputs(inputs, self._model.inputs)
        maps = self._model.maps_of(where).read(activations)
        if len(maps) != samples:
            raise InvalidInputError(
                f"there are activations of {len(maps)} samples and inputs of {samples}; "
                "wanted as many"
            )
        feeds[where.name] = as_layer(where, maps, self._in_front(where, feeds, samples))
        (logits,) = self._sessions("tail", where.name).in_batches(feeds, samples, self._model.batch)
        return logits.astype(np.float32)

    # ------------------------------------------------------------------------------- export

    def export(
        self, path: str | PathLike[str], *, layer: Any = None, with_map: bool = False
    ) -> Layer:
        """Write a model that explains itself: logits, activations and gradients are its outputs.

        The file is plain ONNX with the weights inside. Any runtime computes it, in any language;
        no part of cfcam is needed for that. `explain` takes it like any other model.

        Parameters
        ----------
        path : str or path
            Where to write, ending in ``.onnx``. A file that is there is replaced, at once or not
            at all. Over 2 GB the weights go to a second file beside it.
        layer : str, int or Layer, optional
            As for `capture`.
        with_map : bool
            Whether the file also makes the Grad-CAM map itself.

        Returns
        -------
        Layer
            The layer, in the shape that it has in the file: (N, C, *s).

        Raises
        ------
        InvalidInputError
            The model is explain-ready already; `path` is the model itself, or cannot be written.
        LayerNotFoundError, UnsupportedOpError
            As for `capture`.

        Warns
        -----
        UserWarning
            Tokens stay in a row, for how they lie on a grid depends on the size of the input.

        Notes
        -----
        The inputs are those that the logits need, and ``class_index`` (N,) int64, -1 standing for
        the class with the largest logit. The outputs, float32, are ``logits`` (N, K),
        ``activations`` and ``gradients`` (N, C, *s); `with_map` adds ``map`` (N, *s) and
        ``heatmap`` (N, *size of the input). Tensors of the model with one of these names get
        others. What the file was made from stands in its metadata under ``cfcam.*``.
        """
        where = self._model.layers.resolve(layer)
        with self._sessions.advising(where.name):
            return write_export(self._model, where, path, with_map=with_map)

    # -------------------------------------------------------------------------- sanity checks

    def weight_names(self) -> Sequence[str]:
        """Return the names of the kernels and matrices, as they are reached from the inputs."""
        return tuple(weight_sizes(self._model))

    def randomised(self, seed: int, *, last: int | None = None) -> OnnxBackend:
        """Return a copy of the model, opened, with the values of its weights in random order.

        Parameters
        ----------
        seed, last : optional
            See `cfcam_core.backend.Randomisable`.

        Raises
        ------
        InvalidInputError
            The model has no such weights, or fewer than `last`.
        """
        return OnnxBackend(randomised(self._model, seed, last), **self._options, cache=False)

    # ------------------------------------------------------------------------------- within

    def _scores(self, feeds: Mapping[str, Any], samples: int) -> NDArray[np.float32]:
        (logits,) = self._sessions("forward").in_batches(feeds, samples, self._model.batch)
        return logits.astype(np.float32)

    def _in_front(self, where: Site, feeds: Mapping[str, Any], samples: int) -> NDArray[Any] | None:
        """Return a layer's own tokens (N, C, T), if some of them are on no grid."""
        if not where.prefix:
            return None
        session = self._sessions("layer", where.name)
        (made,) = session.in_batches(feeds, samples, self._model.batch)
        return np.moveaxis(made, where.channels, 1)

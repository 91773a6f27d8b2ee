"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfcam_core.backend import Backend, Layer, Randomisable, SeveralLayers
from cfcam_core.capture import Capture, real_array
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.layout import Layout
from cfcam_torch._classifier import Classifier
from cfcam_torch._explaining import explained
from cfcam_torch._inputs import Feeds, Sizes, samples, weight_of
from cfcam_torch._outputs import numpy_of
from cfcam_torch._places import find_place, module_of
from cfcam_torch._randomised import randomised, weights_of
from cfcam_torch._replacing import scores_with
from cfcam_torch._trial import Facts


class TorchBackend(Backend, SeveralLayers, Randomisable):
    """One PyTorch classifier, opened for explaining.

    Gradients are autograd's, from the logits to the layer and no further. All methods may be called
    from many threads; no hook, flag or gradient is left on the model.

    Parameters
    ----------
    model, output, look_through, example : optional
        See `cfcam_torch.open_model`.

    Raises
    ------
    InvalidInputError
        It is no model, cannot be read, or fails on the example.
    """

    def __init__(
        self, model: Any, *, output: Any = None, look_through: bool = True, example: Any = None
    ) -> None:
        self._options: dict[str, Any] = {"output": output, "look_through": look_through}
        self._model = Classifier(model, **self._options)
        self._slow: set[str] = set()
        if example is not None:
            self._model.facts(self._model.read(example))

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes | None:
        """Shape of the model's (first) input, batch first; None where any size is taken.

        None altogether where neither the model nor a run has told. Sizes that the model does not
        tell are tried out.
        """
        found, told = self._model.found, self._model.shape()
        if told is not None:
            is_guess = not self._model.inputs.example  # by the weights of the first layer
            is_turned = is_guess and self.input_layout == "channels_last"
            return (told[0], *told[2:], told[1]) if is_turned else told
        if found is None:
            return None
        facts, feeds = found
        shape = next(v.shape for v in feeds.values() if isinstance(v, Tensor))
        channels = facts.input.channels if facts.input is not None else None
        return tuple(size if axis == channels else None for axis, size in enumerate(shape))

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        found = self._model.found
        last = found is not None and found[0].input is not None and found[0].input.channels != 1
        return "channels_last" if last else "channels_first"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; float32 stands for those that NumPy lacks."""
        inputs = self._model.inputs
        if inputs.has_indices and inputs.shape is None:
            return np.dtype(np.int64)
        weight = weight_of(self._model.module)
        known = {torch.float16: np.float16, torch.float64: np.float64}
        return np.dtype(known.get(weight.dtype if weight is not None else None, np.float32))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs that must be given; with more than one, pass a dict or a tuple."""
        return self._model.inputs.names

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the model has not run yet or is no classifier."""
        found = self._model.found
        return None if found is None else found[0].classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """What closes the logits off and was looked through, the last first; may be empty.

        ``("Softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits.
        """
        return self._model.known().behind

    @property
    def device(self) -> str:
        """Where the model's weights are, such as ``cpu`` or ``cuda:0``."""
        weight = next(self._model.module.parameters(), None)
        return str(weight.device) if weight is not None else "cpu"

    # ------------------------------------------------------------------------------ backend

    def layers(self) -> Sequence[Layer]:
        """Return the outputs of modules that all paths from an input run through, with a grid.

        It has at least 2 positions an axis. Each tensor is listed once, under the name of the
        outermost module that returns it; the shapes are the tensors' own, also of tokens.

        Raises
        ------
        InvalidInputError
            Nothing was run yet, and the model does not run on any input that was guessed.
        """
        return self._model.known().layers

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> Capture:
        """Run the model and return activations, gradients, logits and targets.

        Parameters
        ----------
        inputs : array_like or Tensor of shape (N, ...), or dict of these by name, or tuple
            Preprocessed, in the model's own layout; they are copied to its device and float dtype.
            One sample may come without the axis N where the model tells how many axes it takes.
        layer : str, int, nn.Module or Layer, optional
            Dotted name of a module, the module itself, ``input`` for the model's (first) picture,
            or index into `layers`. Any module that returns a tensor with a channel axis and one to
            three spatial axes will do, not only those listed; of a tuple, list, dict or the like
            the first tensor counts, and of a module that runs more than once its last run.
            Default: the listed default.
        target : optional
            See `cfcam_core.targets.resolve_targets`. Where the model's output is no classifier's,
            a callable that takes it as it is and returns a scalar or (N,) tensor; it is asked again
            where a run has to be repeated. The scores are then None and the targets -1.

        Returns
        -------
        Capture
            Channels first, float32. Tokens (N, T, C) that are patches of a picture come as maps
            (N, C, rows, columns); those in front of them, such as a class token, are left out.
            Other tokens stay in a row.

        Raises
        ------
        InvalidInputError
            Inputs or target do not fit the model.
        LayerNotFoundError
            There is no such layer, or it has no spatial axes, or the logits do not depend on it.
        """
        return self.captures(inputs, layers=[layer], target=target)[0]

    def captures(self, inputs: Any, *, layers: Sequence[Any], target: Any = None) -> list[Capture]:
        """Run the model once and return what `capture` returns for each of several layers.

        Parameters
        ----------
        inputs, target : optional
            As for `capture`.
        layers : sequence of str, int, nn.Module, Layer or None
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
        feeds = self._model.read(inputs)
        return self._model.with_facts(
            feeds, lambda facts: self._captured(feeds, facts, layers=layers, target=target)
        )

    def scores(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits.

        Parameters
        ----------
        inputs : array_like or Tensor of shape (N, ...), or dict of these by name, or tuple
            As for `capture`.

        Returns
        -------
        ndarray of float32, shape (N, K)

        Raises
        ------
        InvalidInputError
            The inputs do not fit the model, or it is no classifier.
        """
        feeds = self._model.read(inputs)
        return self._model.scores(feeds, self._model.facts(feeds))

    def scores_from(
        self, activations: Any, inputs: Any, *, layer: Any = None
    ) -> NDArray[np.float32]:
        """Return the logits with a layer's output replaced.

        Parameters
        ----------
        activations : array_like of shape (N, C, *s)
            Channels first, as `capture` returns them. Tokens that it leaves out are computed from
            the inputs.
        inputs : array_like or Tensor of shape (N, ...), or dict of these by name, or tuple
            What paths that go past the layer are computed from.
        layer : str, int, nn.Module or Layer, optional
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
        feeds = self._model.read(inputs)
        maps = real_array(_plain(activations), "activations")
        if maps.ndim < 3 or len(maps) != samples(feeds):
            raise InvalidInputError(
                f"there are activations of shape {maps.shape} and inputs of {samples(feeds)} "
                "samples; wanted (N, C, *s) with as many"
            )

        def put_in(facts: Facts) -> NDArray[np.float32]:
            place = find_place(self._model.module, layer, facts)
            return scores_with(self._model, maps, feeds, facts, place)

        return self._model.with_facts(feeds, put_in)

    # -------------------------------------------------------------------------- sanity checks

    def weight_names(self) -> Sequence[str]:
        """Return the names of the kernels and matrices, as they are registered."""
        return tuple(weights_of(self._model.module))

    def randomised(self, seed: int, *, last: int | None = None) -> TorchBackend:
        """Return a copy of the model, opened, with the values of its weights in random order.

        Parameters
        ----------
        seed, last : optional
            See `cfcam_core.backend.Randomisable`.

        Raises
        ------
        InvalidInputError
            The model cannot be copied, has no such weights, or fewer than `last`.
        """
        return TorchBackend(randomised(self._model.module, seed, last), **self._options)

    # ------------------------------------------------------------------------------- within

    def _captured(
        self, feeds: Feeds, facts: Facts, *, layers: Sequence[Any], target: Any
    ) -> list[Capture]:
        if facts.classes is None and not callable(target):
            self._model.scores(feeds, facts)  # which says what it returns instead
        places = [find_place(self._model.module, layer, facts) for layer in layers]
        if not places:
            return []
        found = explained(
            self._model.module,
            feeds,
            {place.name: module_of(self._model.module, place.name) for place in places},
            source=facts.source,
            target=target,
            reading=self._model.reading(facts),
            slow=self._slow,
        )
        size = facts.size(feeds)
        captures = []
        for place in places:
            arrays = found.pairs[place.name]
            _check(place, arrays[0], samples(feeds))
            activations, gradients = (place.maps(array, size or None) for array in arrays)
            fitting = size if len(size) == activations.ndim - 2 else None
            captures.append(
                Capture(activations, gradients, found.scores, found.targets, place.name, fitting)
            )
        return captures


def _check(place: Layout, array: NDArray[Any], count: int) -> None:
    if len(array) != count or not 3 <= array.ndim <= 5:
        raise LayerNotFoundError(
            f"layer {place.name!r} returns an array of shape {array.shape} for {count} samples; "
            "its first axis must be theirs"
        )


def _plain(values: Any) -> Any:
    return numpy_of(values) if isinstance(values, Tensor) else values

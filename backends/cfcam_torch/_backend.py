"""One opened model: names are resolved and arrays turned here, the neighbours do the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cfcam_core.backend import Backend, Layer, SeveralLayers
from cfcam_core.capture import Capture, real_array
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.layers import find_layer, unknown_layer
from cfcam_core.layout import Layout
from cfcam_torch._explaining import INPUT, Reading, explained, replaced
from cfcam_torch._inputs import Feeds, Inputs, Sizes, rows, samples
from cfcam_torch._learned import Structure, learned
from cfcam_torch._models import find_module, is_scripted, plain_name
from cfcam_torch._outputs import no_classifier, numpy_of, shown
from cfcam_torch._running import undisturbed
from cfcam_torch._trial import Facts, try_out


class TorchBackend(Backend, SeveralLayers):
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
        self._model = find_module(model)
        self._inputs = Inputs.of(self._model)
        self._output, self._look_through = output, look_through
        self._lock = Lock()
        self._found: tuple[Structure, Facts, Feeds] | None = None
        self._slow: set[str] = set()
        if example is not None:
            self._facts(self._read(example))

    # ------------------------------------------------------------------------------- facts

    @property
    def input_shape(self) -> Sizes | None:
        """Shape of the model's (first) input, batch first; None where any size is taken.

        None altogether where neither the model nor a run has told.
        """
        if self._inputs.shape is not None or self._found is None:
            return self._inputs.shape
        facts, feeds = self._found[1], self._found[2]
        shape = next(v.shape for v in feeds.values() if isinstance(v, Tensor))
        channels = facts.input.channels if facts.input is not None else None
        return tuple(size if axis == channels else None for axis, size in enumerate(shape))

    @property
    def input_layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the (first) input has its channels."""
        facts = None if self._found is None else self._found[1]
        last = facts is not None and facts.input is not None and facts.input.channels != 1
        return "channels_last" if last else "channels_first"

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the model's (first) input; float32 stands for those that NumPy lacks."""
        if self._inputs.has_indices and self._inputs.shape is None:
            return np.dtype(np.int64)
        weight = next((p for p in self._model.parameters() if p.is_floating_point()), None)
        known = {torch.float16: np.float16, torch.float64: np.float64}
        return np.dtype(known.get(weight.dtype if weight is not None else None, np.float32))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs that must be given; with more than one, pass a dict or a tuple."""
        return self._inputs.names

    @property
    def classes(self) -> int | None:
        """Number of classes K; None where the model has not run yet or is no classifier."""
        return None if self._found is None else self._found[1].classes

    @property
    def logits_behind(self) -> tuple[str, ...]:
        """What closes the logits off and was looked through, the last first; may be empty.

        ``("Softmax",)`` means that the model returns probabilities, but scores and gradients are
        those of the logits.
        """
        return self._known().behind

    @property
    def device(self) -> str:
        """Where the model's weights are, such as ``cpu`` or ``cuda:0``."""
        weight = next(self._model.parameters(), None)
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
        return self._known().layers

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
            a callable that takes it as it is and returns a scalar or (N,) tensor; then the scores
            are None and the targets -1.

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
        feeds = self._read(inputs)
        return self._with_facts(
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
        feeds = self._read(inputs)
        return self._scores(feeds, self._facts(feeds))

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
        feeds = self._read(inputs)
        maps = real_array(_plain(activations), "activations")
        if maps.ndim < 3 or len(maps) != samples(feeds):
            raise InvalidInputError(
                f"there are activations of shape {maps.shape} and inputs of {samples(feeds)} "
                "samples; wanted (N, C, *s) with as many"
            )
        return self._with_facts(feeds, lambda facts: self._put_in(maps, feeds, facts, layer))

    # ------------------------------------------------------------------------------- within

    def _read(self, inputs: Any) -> Feeds:
        axes = None if self._found is None else self._found[1].axes
        return self._inputs.read(inputs, self._model, axes)

    def _known(self) -> Facts:
        """Return what a trial has shown, on a guessed input where nothing was run yet."""
        if self._found is not None:
            return self._facts(self._found[2])
        failure: Exception | None = None
        for guess in self._inputs.guesses():
            try:
                return self._facts(self._read(guess))
            except InvalidInputError as error:
                failure = failure or error
        raise InvalidInputError(
            "the layers are found by running the model once, and no input could be guessed on "
            "which it runs; open it with open_model(model, example=inputs)"
        ) from failure

    def _facts(self, feeds: Feeds) -> Facts:
        """Return what a trial has shown, made on these inputs if there was none."""
        found = self._found
        if found is not None and found[0].fits(self._model):
            return found[1]
        with self._lock:
            if self._found is not None:
                if self._found[0].fits(self._model):
                    return self._found[1]
                feeds = self._found[2]  # a module was exchanged: tried again as before
            facts = self._learned(feeds)
            self._found = (Structure(self._model), facts, rows(feeds, 1))
            return facts

    def _learned(self, feeds: Feeds) -> Facts:
        """Return what a trial on inputs of these sizes shows."""
        first = rows(feeds, 1)
        sizes = tuple(
            (name, *((value.shape, value.dtype) if isinstance(value, Tensor) else ()))
            for name, value in sorted(first.items())
        )
        try:
            hash(self._output)
            output = self._output
        except TypeError:
            output = id(self._output)
        key = (sizes, self._look_through, output)
        facts: Facts = learned(self._model, key, lambda: self._tried(first, feeds))
        return facts

    def _tried(self, first: Feeds, feeds: Feeds) -> Facts:
        how = {"output": self._output, "look_through": self._look_through}
        if samples(feeds) > 1:
            with suppress(InvalidInputError):
                return try_out(self._model, first, **how)
        return try_out(self._model, feeds, **how)  # some models take a fixed number of samples

    def _with_facts(self, feeds: Feeds, use: Callable[[Facts], Any]) -> Any:
        """Return what is made of the facts; a model may go other ways on these inputs."""
        facts = self._facts(feeds)
        try:
            return use(facts)
        except LayerNotFoundError:
            own = self._learned(feeds)
            if own is facts:
                raise
            return use(own)

    def _captured(
        self, feeds: Feeds, facts: Facts, *, layers: Sequence[Any], target: Any
    ) -> list[Capture]:
        if facts.classes is None and not callable(target):
            raise no_classifier(facts.returned[""], samples(feeds))
        places = [self._resolved(layer, facts) for layer in layers]
        if not places:
            return []
        found = explained(
            self._model,
            feeds,
            {place.name: self._module(place.name) for place in places},
            source=facts.source,
            target=target,
            reading=Reading(self._output, bool(facts.behind)),
            slow=self._slow,
        )
        size = self._size(feeds, facts)
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

    def _put_in(
        self, maps: NDArray[np.float32], feeds: Feeds, facts: Facts, layer: Any
    ) -> NDArray[np.float32]:
        """Return the logits with maps in the place of a layer's own."""
        place = self._resolved(layer, facts)
        size = self._size(feeds, facts) or None

        def change(own: NDArray[np.float32]) -> NDArray[Any]:
            wanted = place.maps(own, size).shape
            if maps.shape != wanted:
                raise InvalidInputError(
                    f"activations have shape {maps.shape}; layer {place.name!r} has {wanted}"
                )
            return place.array(maps, own)

        module = self._module(place.name)
        if module is None:
            name = str(facts.source)
            array = np.array(change(numpy_of(feeds[name])), np.float32)
            return self._scores({**feeds, name: torch.from_numpy(array).to(feeds[name])}, facts)
        turn = facts.runs.get(place.name, 1)
        action, runs = replaced(turn, change)
        scores = self._scores(feeds, facts, [(module, action)])
        if len(runs) < turn:
            raise LayerNotFoundError(f"layer {place.name!r} did not run on these inputs")
        return scores

    def _scores(self, feeds: Feeds, facts: Facts, actions: Any = ()) -> NDArray[np.float32]:
        with undisturbed(self._model):
            reading = Reading(self._output, bool(facts.behind))
            output = reading.of(self._model, feeds, actions, record=False)
            if output.logits is None:
                raise no_classifier(shown(output.raw), samples(feeds))
            return np.array(numpy_of(output.logits))

    def _resolved(self, layer: Any, facts: Facts) -> Layout:
        """Return how the layer lies that a user means."""
        if isinstance(layer, nn.Module):
            layer = self._name_of(layer)
        if layer is None and is_scripted(self._model):
            raise LayerNotFoundError(
                'the model is TorchScript, into which nothing can look; pass layer="input", or '
                "open the model that it was made from, or what torch.export.export makes of it"
            )
        name = find_layer(layer, facts.layers)
        if name == INPUT:
            if facts.input is None:
                raise LayerNotFoundError("none of the model's inputs is a picture or a signal")
            return facts.input
        for one in (name, plain_name(name)):
            if one in facts.layouts:
                return facts.layouts[one]
        module = self._module_or_none(plain_name(name))
        if module is None:
            raise unknown_layer(name, facts.layouts)
        own = self._name_of(module)
        if own in facts.layouts:
            return facts.layouts[own]
        if own not in facts.returned:
            raise LayerNotFoundError(f"layer {own!r} did not run; name a module that does")
        raise LayerNotFoundError(
            f"layer {own!r} returns {facts.returned[own]}; wanted floating-point numbers with axes "
            "for samples, channels and one to three spatial ones. Name another layer, such as one "
            "of layers()"
        )

    def _name_of(self, module: nn.Module) -> str:
        inside = getattr(module, "_orig_mod", None)
        for name, one in self._model.named_modules():
            if name and (one is module or one is inside):
                return str(name)
        raise LayerNotFoundError(
            f"the {type(module).__name__} that came as layer is none of the model's modules; pass "
            "one of them or its name"
        )

    def _module_or_none(self, name: str) -> nn.Module | None:
        try:
            return self._model.get_submodule(name) if name else None
        except AttributeError:
            return None

    def _module(self, name: str) -> nn.Module | None:
        """Return the module of a resolved layer; None for the input itself."""
        return None if name == INPUT else self._model.get_submodule(name)

    def _size(self, feeds: Feeds, facts: Facts) -> tuple[int, ...]:
        """Return the spatial size of the input; nothing where it is none."""
        if facts.input is None or facts.source not in feeds:
            return ()
        shape = feeds[facts.source].shape
        return tuple(n for axis, n in enumerate(shape) if axis not in {0, facts.input.channels})


def _check(place: Layout, array: NDArray[Any], count: int) -> None:
    if len(array) != count or not 3 <= array.ndim <= 5:
        raise LayerNotFoundError(
            f"layer {place.name!r} returns an array of shape {array.shape} for {count} samples; "
            "its first axis must be theirs"
        )


def _plain(values: Any) -> Any:
    return numpy_of(values) if isinstance(values, Tensor) else values

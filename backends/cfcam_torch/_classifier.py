"""What is known of a model once it is open, and its scores. What a trial has shown is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.remembered import Parts
from cfcam_torch._explaining import Reading
from cfcam_torch._inputs import Feeds, Sizes, as_floats, rows, samples, whole_numbers
from cfcam_torch._learned import learned, structure
from cfcam_torch._models import find_module
from cfcam_torch._outputs import no_classifier, numpy_of, shown
from cfcam_torch._running import Action, run, undisturbed
from cfcam_torch._signature import inputs_of
from cfcam_torch._trial import Facts, try_out

T = TypeVar("T")


class Classifier:
    """One opened model: its inputs, what a trial has shown of it, and its scores.

    Parameters
    ----------
    model, output, look_through : optional
        See `cfcam_torch.open_model`.
    """

    def __init__(self, model: Any, *, output: Any, look_through: bool) -> None:
        if not (output is None or callable(output) or isinstance(output, str | int)):
            raise InvalidInputError(
                f"output={output!r} is a {type(output).__name__}; wanted a key, an attribute, an "
                "index, or a function that makes (N, K) of the model's output"
            )
        self.module: nn.Module = find_module(model)
        self.inputs = inputs_of(self.module)
        self._output, self._look_through = output, look_through
        self._lock = Lock()
        self._found: tuple[Parts, Facts, Feeds] | None = None

    @property
    def found(self) -> tuple[Facts, Feeds] | None:
        """What a trial has shown, and the sample that it was made on; None before the first."""
        return None if self._found is None else self._found[1:]

    def read(self, inputs: Any) -> Feeds:
        """Return copies of what a user feeds, as the model takes it.

        What cannot be told is tried out once: whether whole numbers may stay what they are, and
        whether an array with an axis less than the first layer takes is a single sample.
        """
        feeds = self.inputs.read(inputs, self.module)
        axes = None if self._found is None else self._found[1].axes
        batch = self.inputs.batched(feeds, axes)
        if batch is not feeds and (axes is not None or self._is_taken(batch)):
            feeds = batch
        elif batch is not feeds and whole_numbers(batch):
            floats = as_floats(batch, self.module)
            feeds = floats if self._is_taken(floats) else feeds
        if whole_numbers(feeds) and not self.inputs.has_indices and not self._is_taken(feeds):
            return as_floats(feeds, self.module)
        return feeds

    def shape(self) -> Sizes | None:
        """Return the shape of the first input; a size is filled in if it seems the only one."""
        told = self.inputs.shape
        if told is None or None not in told[1:] or self.inputs.example:
            return told
        only: Sizes | None = learned(self.module, "only size", self._only_size)
        return told if only is None else (told[0], *only)

    def known(self) -> Facts:
        """Return what a trial has shown, on a guessed input where nothing was run yet.

        Raises
        ------
        InvalidInputError
            The model runs on none of the guesses.
        """
        if self._found is not None:
            return self.facts(self._found[2])
        failure: Exception | None = None
        for guess in self.inputs.guesses():
            try:
                return self.facts(self.read(guess))
            except InvalidInputError as error:
                failure = failure or error
        raise InvalidInputError(
            "the layers are found by running the model once, and no input could be guessed on "
            "which it runs; open it with open_model(model, example=inputs)"
        ) from failure

    def facts(self, feeds: Feeds) -> Facts:
        """Return what a trial has shown, made on these inputs if there was none."""
        found = self._found
        if found is not None and found[0].fits(structure(self.module)):
            return found[1]
        with self._lock:
            if self._found is not None:
                if self._found[0].fits(structure(self.module)):
                    return self._found[1]
                feeds = self._found[2]  # a module was exchanged: tried again as before
            facts = self._learned(feeds)
            sample = {
                name: value.clone() if isinstance(value, Tensor) else value
                for name, value in rows(feeds, 1).items()
            }
            self._found = (structure(self.module), facts, sample)
            return facts

    def with_facts(self, feeds: Feeds, use: Callable[[Facts], T]) -> T:
        """Return what is made of the facts; a model may go other ways on these inputs."""
        facts = self.facts(feeds)
        try:
            return use(facts)
        except LayerNotFoundError:
            return use(self._tried(feeds))

    def reading(self, facts: Facts) -> Reading:
        """Return how the output of a run is read."""
        return Reading(self._output, bool(facts.behind))

    def scores(
        self,
        feeds: Feeds,
        facts: Facts,
        actions: Sequence[tuple[nn.Module, Action]] = (),
        *,
        count: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits (N, K), some modules' outputs changed on the way.

        N is `count` where an action makes more samples of those that are fed.

        Raises
        ------
        InvalidInputError
            The model fails, or is no classifier.
        """
        with undisturbed(self.module):
            output = self.reading(facts).of(self.module, feeds, actions, record=False, count=count)
            if output.logits is None:
                raise no_classifier(shown(output.raw), samples(feeds))
            return np.array(numpy_of(output.logits))

    def _is_taken(self, feeds: Feeds) -> bool:
        """Return whether the model runs on such inputs, tried once."""
        kinds = tuple((name, *_kind(value)) for name, value in feeds.items())
        return bool(learned(self.module, ("taken", kinds), lambda: self._runs_on(feeds)))

    def _only_size(self) -> Sizes | None:
        """Return the sizes of the one guess on which the model runs.

        None if it runs on the likeliest, on several or on none: a model whose last layer takes a
        map of one size runs on one.
        """
        guesses = self.inputs.guesses()
        if not guesses or self._runs_on(self.inputs.read(guesses[0], self.module)):
            return None
        taken = [one for one in guesses[1:] if self._runs_on(self.inputs.read(one, self.module))]
        return tuple(taken[0].shape[1:]) if len(taken) == 1 else None

    def _runs_on(self, feeds: Feeds) -> bool:
        try:
            with undisturbed(self.module):
                run(self.module, rows(feeds, 1))
        except InvalidInputError:
            return False
        return True

    def _learned(self, feeds: Feeds) -> Facts:
        """Return what a trial on inputs of these sizes shows."""
        if callable(self._output):  # which may know the model, and would keep it alive
            return self._tried(feeds)
        kinds = tuple((name, *_kind(value)) for name, value in feeds.items())
        key = ("facts", kinds, self._look_through, self._output)
        facts: Facts = learned(self.module, key, lambda: self._tried(feeds))
        return facts

    def _tried(self, feeds: Feeds) -> Facts:
        how = {"output": self._output, "look_through": self._look_through}
        if samples(feeds) > 1:
            with suppress(InvalidInputError):
                return try_out(self.module, rows(feeds, 1), **how)
        return try_out(self.module, feeds, **how)  # some models take a fixed number of samples


def _kind(value: Any) -> tuple[Any, ...]:
    """Return the sizes of a sample and its dtype."""
    return (tuple(value.shape[1:]), value.dtype) if isinstance(value, Tensor) else ()

"""What is known of a model once it is open: its inputs, its layers, what a trial has shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any, TypeVar

from cfcam_core.backend import Layer
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_tensorflow._batch import Batch
from cfcam_tensorflow._engines import find_engine
from cfcam_tensorflow._inputs import Feeds, Inputs
from cfcam_tensorflow._learned import Learn, kind_of, learning, not_learning, structure
from cfcam_tensorflow._naming import Names
from cfcam_tensorflow._probing import Ending
from cfcam_tensorflow._running import Runner
from cfcam_tensorflow._trial import Trial

T = TypeVar("T")


class Classifier:
    """One opened model. What a trial shows is found out once, and again of a model that changes.

    Parameters
    ----------
    model, roots, output, look_through : optional
        See `KerasBackend`.
    """

    def __init__(
        self, model: Any, roots: Sequence[Any], *, output: Any, look_through: bool
    ) -> None:
        self._model, self._roots, self._engine = model, roots, find_engine()
        self.inputs = Inputs.of(model)
        self._ending = Ending(output, list(getattr(roots[0], "output_names", None) or []))
        self._look_through = look_through
        self._lock = RLock()
        self._sample: Feeds | None = None
        self._found: Trial | None = None
        self._renew()

    def on(self, inputs: Any, use: Callable[[Batch], T]) -> T:
        """Return what is made of a batch; a model may go other ways on it than in the trial."""
        with self._lock:
            feeds = self.read(inputs)
            batch = self._batch(self.trial(feeds), feeds)
        with suppress(LayerNotFoundError):
            return use(batch)
        with self._lock:
            batch = self._batch(self._tried(feeds, not_learning), feeds)
        return use(batch)

    def trial(self, feeds: Feeds | None = None) -> Trial:
        """Return what a trial has shown; the first to ask makes it, on what it has at hand.

        Of a model that is built of other layers since then it is made again.
        """
        with self._lock:
            if self._found is not None and self._is_changed():
                self._renew()
            if self._found is None:
                feeds = feeds or self._sample or self.inputs.guess()
                if feeds is None:
                    raise InvalidInputError(
                        "the model does not say what it takes; pass example= when it is opened, "
                        "or explain something first"
                    )
                feeds = feeds.first()
                self.runner.build(feeds)
                if self._is_changed():  # its first run has made layers
                    self._renew()
                self._found = self._tried(feeds, self._learning(feeds))
                self._sample = feeds
                if not self.inputs.inputs:
                    self.inputs = self.inputs.as_seen(feeds)
            return self._found

    def read(self, inputs: Any) -> Feeds:
        """Return checked inputs; whether whole numbers may stay what they are is tried out once."""
        with self._lock:
            feeds = self.inputs.read(inputs)
            if self.inputs.are_open(feeds):
                learn = learning(self._model, self._parts, kind_of(feeds))
                is_taken = learn("taken", lambda: self.runner.can_run(feeds.first()))
                return feeds if is_taken else feeds.floats()
        return feeds

    def default(self, trial: Trial) -> str | None:
        """Return the path of the layer that is explained if none is named."""
        with self._lock:
            return trial.default

    def listed(self, trial: Trial) -> Sequence[Layer]:
        """Return the maps that all paths run through."""
        with self._lock:
            return trial.listed

    # ------------------------------------------------------------------------------- within

    def _batch(self, trial: Trial, feeds: Feeds) -> Batch:
        return Batch(trial, feeds, [one.name for one in self.inputs.inputs])

    def _tried(self, feeds: Feeds, learn: Learn) -> Trial:
        return Trial(
            self.runner,
            feeds.first(),
            self._ending,
            look_through=self._look_through,
            is_size_free=self.inputs.is_size_free,
            learn=learn,
        )

    def _learning(self, feeds: Feeds) -> Learn:
        """Return what remembers the trial."""
        output, free = self._ending.output, self.inputs.is_size_free
        if not isinstance(output, str | int | None):
            return not_learning
        given = (kind_of(feeds), type(output), output, self._look_through, free)
        return learning(self._model, self._parts, given)

    def _renew(self) -> None:
        """Begin anew with the layers that the model has now."""
        names = Names(self._roots)
        self.runner = Runner(self._model, self._roots, names, self._engine)
        self._parts = structure(self._roots, names)
        self._found = None

    def _is_changed(self) -> bool:
        return not self._parts.fits(structure(self._roots, Names(self._roots)))

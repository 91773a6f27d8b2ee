"""One batch on its way through an opened model: runs with taps, and arrays turned both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.layout import Layout, Size
from cfcam_tensorflow._engines import Recording, Tap
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._intercepting import Around
from cfcam_tensorflow._outputs import as_scores, described
from cfcam_tensorflow._probing import merged
from cfcam_tensorflow._running import Runner
from cfcam_tensorflow._trial import Facts, Trial

INPUT = "input"
"""What the model's own (first) picture is called as a layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Checked inputs of an opened model."""

    trial: Trial
    feeds: Feeds
    input_names: Sequence[str]

    @property
    def runner(self) -> Runner:
        """The model that it was made of."""
        return self.trial.runner

    @property
    def facts(self) -> Facts:
        """What the trial has shown."""
        return self.trial.facts

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.feeds.samples

    def layout(self, name: str) -> Layout:
        """Return how what is called so becomes maps; its name is the layer's path.

        Raises
        ------
        LayerNotFoundError
            There is no such layer, or it makes no maps.
        """
        if name == INPUT or name in self.input_names:
            place = self._place(name)
            layout = None if place is None else self.facts.input_layout(place, name)
            if place is None or layout is None or self.feeds.arrays[place].dtype.kind != "f":
                raise LayerNotFoundError(
                    f"{name!r} is no picture or signal of floats, so it has no gradient to map; "
                    "choose a layer"
                )
            return layout
        path = self.runner.names.find(name)
        seen = self.facts.seen.get(path)
        if seen is None:
            raise _unseen(path)
        if seen.layout is None:
            raise LayerNotFoundError(
                f"layer {path!r} makes an array of shape {seen.shape} of one sample; wanted one "
                "with channels and one to three spatial axes"
            )
        return seen.layout

    def record(self, layouts: Sequence[Layout], target: Any) -> Recording:
        """Run the model so that gradients at some layers can be had.

        Parameters
        ----------
        layouts : sequence of Layout
        target : optional
            Only asked for if the output is no scores.
        """
        if self.facts.classes is None and not callable(target):
            raise InvalidInputError(
                f"the model returns no scores (N, K) but {self.facts.returned}; open it with "
                "output=, or pass a callable target that makes a scalar, or one a sample, of what "
                "it returns"
            )
        return self.runner.engine.record(lambda tap: self._run(layouts, tap, target=target))

    def captured(
        self,
        layout: Layout,
        activations: Any,
        gradients: NDArray[Any] | None,
        scores: NDArray[Any] | None,
        targets: NDArray[np.intp],
    ) -> Capture:
        """Return a layer's activations and gradients as the core has them: channels first."""
        if activations is None:
            raise _unseen(layout.name)
        if gradients is None:
            raise LayerNotFoundError(
                f"the explained scores do not depend on layer {layout.name!r}; choose an earlier "
                "one"
            )
        array, size = self.runner.engine.array(activations), self._size(layout)
        if len(array) != self.samples:
            raise LayerNotFoundError(
                f"layer {layout.name!r} makes {len(array)} maps of {self.samples} samples: it "
                "works on pieces of them; choose another"
            )
        maps = layout.maps(array, size)
        shown = size if size and len(size) == maps.ndim - 2 else None
        return Capture(maps, layout.maps(gradients, size), scores, targets, layout.name, shown)

    def scores(
        self, layout: Layout | None = None, maps: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Return the logits, where asked for with the maps of a layer replaced."""
        if self.facts.classes is None:
            raise InvalidInputError(
                f"the model returns no scores (N, K) but {self.facts.returned}; open it with "
                "output="
            )
        feeds, arounds = self.feeds, {}
        if layout is not None and maps is not None:
            array, calls = self._unfolded(layout, maps)
            place = self._place(layout.name)
            if place is not None:
                feeds = Feeds(
                    [*feeds.arrays[:place], array, *feeds.arrays[place + 1 :]], feeds.hold
                )
            else:
                value = self.runner.engine.tensor(array)
                arounds[self._operation(layout.name)] = self.runner.replacing(
                    calls - 1, lambda x: keras.ops.cast(value, x.dtype)
                )
        made, _ = self.runner.engine.forward(lambda _: self._end(self._raw(feeds.arrays, arounds)))
        return self.runner.engine.array(made)

    # ------------------------------------------------------------------------------- within

    def _place(self, name: str) -> int | None:
        """Return the number of the input that is called so as a layer."""
        if name in self.input_names and len(self.input_names) > 1:
            return self.input_names.index(name)
        return self.facts.picture if name == INPUT or name in self.input_names else None

    def _size(self, layout: Layout) -> Size | None:
        """Return the spatial size of the input that a layer's maps belong to."""
        place = self._place(layout.name)
        place = self.facts.picture if place is None else place
        where = None if place is None else self.facts.input_layout(place, INPUT)
        if place is None or where is None:
            return None
        return tuple(np.delete(self.feeds.arrays[place].shape, [0, where.channels]).tolist())

    def _unfolded(self, layout: Layout, maps: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Return maps as a layer has them, and how often it is called on these inputs.

        What is on no grid is the layer's own.
        """
        calls: Counter[str] = Counter()

        def run(tap: Tap) -> Any:
            def counted(name: str, x: Any) -> Any:
                calls[name] += 1
                return tap(name, x)

            return self._run([layout], counted)

        place = self._place(layout.name)
        if place is not None:
            own = self.feeds.arrays[place]
        else:
            _, taken = self.runner.engine.forward(run)
            if layout.name not in taken:
                raise _unseen(layout.name)
            own = self.runner.engine.array(taken[layout.name])
        wanted = layout.maps(own, self._size(layout)).shape
        if maps.shape != wanted:
            raise InvalidInputError(
                f"activations have shape {maps.shape}; on these inputs layer {layout.name!r} makes "
                f"{wanted}"
            )
        return layout.array(maps, own), calls[layout.name]

    def _run(
        self, layouts: Sequence[Layout], tap: Tap, *, target: Callable[[Any], Any] | Any = None
    ) -> Any:
        """Run the model and return the logits, or what a callable makes of the raw output."""
        tensors: list[Any] = list(self.feeds.arrays)
        arounds: dict[Any, Around] = {}
        for name in dict.fromkeys(layout.name for layout in layouts):
            place = self._place(name)
            if place is not None:
                tensors[place] = tap(name, self.runner.engine.tensor(tensors[place]))
            else:
                arounds[self._operation(name)] = self.runner.tapping(name, tap)
        raw = self._raw(tensors, arounds)
        if self.facts.classes is None:
            return _one_a_sample(target(raw), self.samples)
        return self._end(raw)

    def _raw(self, inputs: Sequence[Any], arounds: dict[Any, Around]) -> Any:
        tensors = [self.runner.engine.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
        reached: list[str] = []
        ending = self.facts.ending.arounds(self.runner.names.operations, reached.append)
        raw = self.runner.run(self.feeds.hold(tensors), merged(ending, arounds))
        if ending and not reached:
            raise LayerNotFoundError(
                "on these inputs the model does not end with the layer that was looked through "
                "on the first; open it with example=, or with look_through=False"
            )
        return raw

    def _operation(self, path: str) -> Any:
        return self.runner.names.operations[path]

    def _end(self, raw: Any) -> Any:
        scores = as_scores(self.facts.ending.of(raw), self.samples)
        if scores is None:
            raise InvalidInputError(
                f"the output is no scores of {self.samples} samples: "
                f"{described(raw, self.facts.ending.names)}"
            )
        return scores


def _unseen(name: str) -> LayerNotFoundError:
    return LayerNotFoundError(
        f"layer {name!r} was not called where it can be seen, or returns no floats: it runs inside "
        "a tf.function, or not at all"
    )


def _one_a_sample(explained: Any, samples: int) -> Any:
    shape = tuple(getattr(explained, "shape", (None,)))
    if not keras.ops.is_tensor(explained) or shape not in {(), (samples,)}:
        raise InvalidInputError(
            f"the target made {type(explained).__name__} of shape {shape} of the model's output; "
            f"wanted a tensor of shape () or ({samples},)"
        )
    return explained

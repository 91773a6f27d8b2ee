"""The sessions of one model: which program is run for what, made on first use and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx

from cfcam_core.errors import UnsupportedOpError
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._kept import Kept
from cfcam_onnx._programs import forward_program, gradient_program, problems_from, tail_program
from cfcam_onnx._reading import blaming
from cfcam_onnx._session import Session

KEPT_SESSIONS = 8
"""Sessions that are kept, the last used ones; what onnxruntime makes of the weights is in each."""


class Sessions:
    """Sessions by kind and layers; all share the model's weights. For many threads.

    The kinds are ``forward``, up to the logits; ``layer``, up to one layer; ``tail``, from one
    layer on; and ``gradient``, for one layer or several.
    """

    def __init__(
        self, model: Classifier, *, providers: Sequence[Any] | None, threads: int | None
    ) -> None:
        self._model, self._providers, self._threads = model, providers, threads
        self._kept: Kept[tuple[str, ...], Session] = Kept(self._made, KEPT_SESSIONS)

    def __call__(self, kind: str, *layers: str) -> Session:
        """Return a session, made once; see `program` for errors."""
        return self._kept((kind, *layers))

    def program(self, kind: str, *layers: str) -> onnx.ModelProto:
        """Return what a session runs.

        Raises
        ------
        UnsupportedOpError
            There is no gradient at one of the layers; said is the first, with one that has.
        """
        graph, logits = self._model.graph, self._model.logits
        programs: dict[str, Callable[[], onnx.ModelProto]] = {
            "forward": lambda: forward_program(graph, logits),
            "layer": lambda: forward_program(graph, *layers),
            "tail": lambda: tail_program(graph, logits, *layers),
            "gradient": lambda: self._gradient_program(layers),
        }
        with self.advising(*layers):
            return programs[kind]()

    @contextmanager
    def advising(self, *layers: str) -> Iterator[None]:
        """Say of the first layer that has no gradient which one has."""
        try:
            with blaming(self._model.source):
                yield
        except UnsupportedOpError as error:
            for layer in layers if len(layers) > 1 else ():
                self.program("gradient", layer)
            layer = layers[0]
            raise UnsupportedOpError(f"layer {layer!r} {error}. {self._advice(layer)}") from None

    def _made(self, key: tuple[str, ...]) -> Session:
        return Session(
            self.program(*key),
            self._model.graph.weights,
            providers=self._providers,
            threads=self._threads,
            bounds=self._model.bounds,
        )

    def _gradient_program(self, layers: Sequence[str]) -> onnx.ModelProto:
        """Return the program of these layers: the one on the disk, if it was made before."""
        model, what = self._model, ("gradient", self._model.explained, *layers)
        found = model.entries.read(*what)
        if found is not None:
            return onnx.ModelProto.FromString(found)
        program = gradient_program(model.graph, model.logits, layers)
        model.entries.write(program.SerializeToString(), *what)
        return program

    def _advice(self, name: str) -> str:
        """Return which later layer can be explained."""
        model = self._model
        with blaming(model.source):
            stops = problems_from(model.graph, model.logits, [name]).outputs
        later = model.layers.later_site(stops)
        if later is None:
            return "No later layer works; export the model with standard operators"
        return f"The nearest later layer that works is {later.name!r}"

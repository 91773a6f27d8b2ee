"""A raw model that is explained again and again is tried once; a model that changes, again."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cfcam_tensorflow
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import CLASSES, KINDS, SHAPE, batch, built, close, functional, subclassed

import cfcam_core as cfcam
from cfcam_core import LayerNotFoundError, explain, remembered

L = keras.layers


class Counted(L.Layer):
    """Counts its calls."""

    runs = 0

    def call(self, x: Any) -> Any:
        self.runs += 1
        return x


def counted(head: str | None = None) -> tuple[keras.Model, Counted]:
    counter = Counted(name="counter")
    parts = [counter, L.Conv2D(6, 3, name="stem"), L.Conv2D(7, 3, activation="tanh", name="last")]
    ends = [L.GlobalAveragePooling2D(), L.Dense(CLASSES, activation=head, name="head")]
    model = keras.Sequential([keras.Input((None, None, 3)), *parts, *ends])
    counter.runs = 0
    return model, counter


def test_a_raw_model_is_tried_once() -> None:
    (model, counter), x = counted("softmax"), batch()
    explain(model, x)
    first = counter.runs
    explain(model, x)
    assert counter.runs == first + 1, "one forward pass an explanation"
    explain(model, batch(5))
    explain(model, x, layer=["stem", "last"])
    explain(model, x, layer=0)  # which lists them all, once
    before = counter.runs
    explain(model, x, layer=1)
    assert counter.runs == before + 1


def test_other_kinds_of_inputs_and_options_are_others() -> None:
    (model, counter), x = counted("softmax"), batch()
    for options in ({}, {"look_through": False}, {"output": 0}, {"output": -1}):
        for example in (None, batch(1, (20, 20, 3))):
            opened = cfcam.open_model(model, example=example, **options)
            found = opened.capture(x)
            known = counter.runs
            again = cfcam.open_model(model, example=example, **options).capture(x)
            assert counter.runs == known + 1
            close(again.gradients, found.gradients, 0)
            assert np.allclose(found.scores.sum(1), 1) == ("look_through" in options)
    before = counter.runs
    explain(model, batch(2, (9, 8, 3)))
    assert counter.runs > before + 1


def test_what_a_function_makes_is_not_remembered() -> None:
    (model, counter), x = counted("softmax"), batch()
    for columns in (2, 3):
        found = cfcam.open_model(model, output=lambda y, k=columns: y[:, :k]).capture(x)
        assert found.scores.shape == (3, columns)
    before = counter.runs
    explain(model, x)
    assert counter.runs > before + 1


def test_as_many_kinds_are_known_as_fit() -> None:
    (model, counter), x = counted(), batch()
    explain(model, x)
    for size in range(remembered.MOST):
        explain(model, batch(1, (8 + size, 9, 3)))
    before = counter.runs
    explain(model, x)
    assert counter.runs > before + 1


def same_as_new(model: keras.Model, backend: Any, x: Any) -> Any:
    """Return what is explained; known, opened before, or seen for the first time, it is one."""
    found = cfcam.open_model(model).capture(x)
    for other in (backend, cfcam.open_model(tf.function(model))):
        one = other.capture(x)
        assert one.layer == found.layer
        close(one.scores, found.scores, 1e-6)
        close(one.gradients, found.gradients, 1e-6)
    return found


def test_a_layer_is_swapped_in_between() -> None:
    model, x = subclassed("softmax"), batch()
    backend = cfcam.open_model(model)
    assert same_as_new(model, backend, x).layer == "features"
    for one in (model, model.features):
        one._tracker.unlock()  # as Keras does to put other layers in
    pools = L.AveragePooling2D(2, padding="same", name="last")  # of the same name, no default
    model.features.rest = {**model.features.rest, "last": pools}
    model.head = L.Dense(3, activation="sigmoid", name="head")
    model.head.build((None, 6))
    found = same_as_new(model, backend, x)
    assert found.layer != "features"
    assert found.scores.shape == (3, 3)
    wanted = model(x).numpy()
    close(1 / (1 + np.exp(-found.scores)), wanted)


def test_layers_go_and_come() -> None:
    (model, _), x = counted("softmax"), batch()
    backend = cfcam.open_model(model)
    same_as_new(model, backend, x)
    model.pop()
    assert same_as_new(model, backend, x).scores.shape == (3, 7)
    model.add(L.Dense(4, activation="sigmoid"))
    found = same_as_new(model, backend, x)
    close(1 / (1 + np.exp(-found.scores)), model(x).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_an_activation_is_set_in_between(kind: str) -> None:
    model, x = built(kind, "softmax"), batch()
    backend = cfcam.open_model(model)
    logits = backend.scores(x)
    for name in ("sigmoid", "linear", "tanh", "softmax"):
        model.layers[-1].activation = keras.activations.get(name)
        found = same_as_new(model, backend, x)
        close(found.scores, np.tanh(logits) if name == "tanh" else logits)


def test_what_is_trainable_does_not_matter() -> None:
    (model, counter), x = counted(), batch()
    explain(model, x)
    before = counter.runs
    model.trainable = False
    model.set_weights([2 * w for w in model.get_weights()])
    explain(model, x)
    assert counter.runs == before + 1


def test_weights_change_in_between() -> None:
    model, x = functional("softmax"), batch()
    before = cfcam.open_model(model).capture(x, target=0)
    model.layers[-1].set_weights([2 * w for w in model.layers[-1].get_weights()])
    after = cfcam.open_model(model).capture(x, target=0)
    close(after.gradients, 2 * before.gradients)


class Late(keras.Model):
    """Makes a layer in its first run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.stem, self.mean = L.Conv2D(5, 3, name="stem"), L.GlobalAveragePooling2D()

    def build(self, shape: Any) -> None:
        self.stem.build(shape)
        self.late = L.Conv2D(6, 3, activation="relu", name="late")
        self.late.build((None, None, None, 5))
        self.head = L.Dense(4, name="head")
        self.head.build((None, 6))
        self.built = True

    def call(self, x: Any) -> Any:
        self.runs += 1
        return self.head(self.mean(self.late(self.stem(x))))


def test_a_model_that_was_never_run() -> None:
    model, x = Late(), batch()
    assert cfcam.open_model(model).capture(x).layer == "late"
    before = model.runs
    assert cfcam.open_model(model).capture(x).layer == "late"
    assert model.runs == before + 1


def test_whole_numbers_are_tried_once() -> None:
    model, x = Late(), np.random.default_rng(0).integers(0, 9, (2, *SHAPE), np.uint8)
    for _ in range(3):
        before = model.runs
        explain(model, x)
    assert model.runs == before + 1


class Forks(keras.Model):
    """Goes another way for bright pictures, to an end of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dark, self.bright = functional("softmax"), functional("softmax")

    def call(self, x: Any) -> Any:
        return (self.dark if keras.ops.mean(x) < 0 else self.bright)(x)


@pytest.mark.parametrize("way", ["explain", "backend"])
def test_paths_that_depend_on_the_values(way: str) -> None:
    model, x = Forks(), np.abs(batch())
    backend: Any = cfcam.open_model(model)

    def opened() -> Any:
        return backend if way == "backend" else cfcam.open_model(model)

    for each, part in ((x, model.bright), (-x, model.dark), (x, model.bright)):
        wanted = cfcam.open_model(part).capture(each)
        found = opened().capture(each)
        close(found.scores, wanted.scores)
        close(found.gradients, wanted.gradients)
        close(opened().scores(each), wanted.scores)
    stem = cfcam.open_model(model.dark).capture(-x, layer="stem")
    names = [n for n in backend._model.runner.names.operations if n.endswith("stem")]
    close(opened().capture(-x, layer=names[0]).gradients, stem.gradients)
    with pytest.raises(LayerNotFoundError):
        opened().capture(x, layer=names[0])


def test_eight_threads_on_a_raw_model() -> None:
    (model, counter), x = counted("softmax"), batch()
    wanted = cfcam.open_model(functional()).capture(x).scores.shape
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: cfcam.open_model(model).capture(x, target=n % 5), range(32))
        )
    for n, one in enumerate(found):
        assert one.scores.shape == wanted
        close(one.gradients, found[n % 5].gradients, 1e-6)
    before = counter.runs
    explain(model, x)
    assert counter.runs == before + 1


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "with a function": lambda: {"output": lambda y: y[:, :2]},
    "as it is": lambda: {"look_through": False},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_let_go(kind: str, options: str) -> None:
    keras.backend.clear_session()
    model, x = built(kind, "softmax"), batch()
    known = len(remembered._known)
    for layer in (None, 0):
        cfcam.open_model(model, **OPTIONS[options]()).capture(x, layer=layer)
    watched = [weakref.ref(one) for one in (model, model.layers[-1])]
    del model
    gc.collect()
    assert [one() for one in watched] == [None, None]
    assert len(remembered._known) <= known


def test_tensors_and_inputs_are_let_go() -> None:
    model, x = functional("softmax"), batch()

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(one), tf.Tensor | np.ndarray) for one in gc.get_objects())

    before = alive()
    explain(model, x)
    explain(model, x, layer=0)
    assert alive() <= before + 2  # TensorFlow itself keeps one a gradient through many layers
    before = alive()
    explain(model, x)
    explain(model, x, layer=0)
    assert alive() <= before


def test_the_first_batch_is_let_go() -> None:
    """What an opened model keeps is one sample, not the batch that it is part of."""
    model = functional("softmax")
    explain(model, batch(1))
    gc.collect()
    tracemalloc.start()
    try:
        x = batch(400)
        size = x.nbytes
        backend = cfcam_tensorflow.open_model(model)
        backend.scores(x)
        del x
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < size / 2
    assert backend.layers()


def test_no_cycle_holds_what_a_trial_has_seen() -> None:
    """It goes at once, not when the collector comes by."""
    model, x = functional("softmax"), batch()
    explain(model, x)  # whatever Keras makes at first
    gc.collect()
    gc.disable()
    try:
        before = sum(type(one).__name__ == "Call" for one in gc.get_objects())
        cfcam_tensorflow.open_model(model, output=lambda y: y).capture(x)
        assert sum(type(one).__name__ == "Call" for one in gc.get_objects()) == before
    finally:
        gc.enable()

"""A model is after a call what it was before, whatever happens; and many threads may share it."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cfcam_tensorflow import _intercepting
from keras_models import KINDS, PATHS, SHAPE, batch, built, close, functional

import cfcam_core as cfcam

L = keras.layers


def state(model: Any) -> dict[str, Any]:
    """Return everything that the layers hold, by the identity of what is held."""
    held = {}
    for one in model._flatten_layers():
        for key, value in vars(one).items():
            copied = list(value) if isinstance(value, list | set | dict) else value
            held[f"{id(one)}.{key}"] = copied
    return held


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert list(before) == list(after)
    for key, value in before.items():
        assert value is after[key] or value == after[key], key


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left(kind: str) -> None:
    model, x = built(kind, "softmax"), batch()
    model.compile("adam", "categorical_crossentropy")
    model.fit(x, np.eye(5, dtype=np.float32)[:3], verbose=0)
    model(x)
    model.layers[-1].trainable = False
    weights, images = [w.numpy() for w in model.weights], x.copy()
    slots = [v.numpy() for v in model.optimizer.variables]
    train, before = model.train_function, state(model)
    backend = cfcam.open_model(model)
    backend.layers()
    found = backend.captures(x, layers=[None, PATHS[kind] + "branch", "input"])
    backend.scores_from(found[0].activations, x)
    same(before, state(model))
    assert model.train_function is train
    close(x, images, 0)
    for wanted, now in zip(weights, model.weights, strict=True):
        close(now.numpy(), wanted, 0)
    for wanted, slot in zip(slots, model.optimizer.variables, strict=True):
        close(slot.numpy(), wanted, 0)
    assert not _intercepting._SWITCHES


def test_what_layers_do_to_themselves_in_a_call_is_undone() -> None:
    class Counting(L.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.noise = keras.random.SeedGenerator(3)

        def call(self, x: Any) -> Any:
            self.calls.assign(self.calls + 1)
            self.add_loss(keras.ops.sum(x))
            return x + 0 * keras.random.normal((1,), seed=self.noise)

    x = keras.Input(SHAPE)
    counting = Counting()
    y = L.Conv2D(3, 3, activity_regularizer="l2")(counting(x))
    model = keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(y)))
    model(batch())
    losses = [float(one) for one in model.losses]
    calls, seed = int(counting.calls.numpy()), counting.noise.state.numpy()
    cfcam.explain(model, batch())
    assert int(counting.calls.numpy()) == calls
    close(counting.noise.state.numpy(), seed, 0)
    assert [float(one) for one in model.losses] == losses


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_after_an_exception(kind: str) -> None:
    model, x = built(kind), batch()
    backend = cfcam.open_model(model, example=x)
    model(x)
    before = state(model)

    def fails(_: Any) -> int:
        raise RuntimeError("mine")

    with pytest.raises(cfcam.InvalidInputError, match="RuntimeError: mine"):
        backend.capture(x, target=fails)
    with pytest.raises(cfcam.InvalidInputError, match="out of range"):
        backend.capture(x, target=99)
    same(before, state(model))
    assert not _intercepting._SWITCHES


def test_a_layer_that_fails_leaves_nothing() -> None:
    class Moody(L.Layer):
        bad = False

        def call(self, x: Any) -> Any:
            if self.bad:
                raise ValueError("a bad day")
            return x

    moody = Moody()
    model = keras.Sequential(
        [keras.Input(SHAPE), L.Conv2D(4, 3), moody, L.GlobalMaxPooling2D(), L.Dense(2)]
    )
    backend, x = cfcam.open_model(model), batch()
    backend.capture(x)
    Moody.bad = True
    model_state = state(model)
    with pytest.raises(cfcam.InvalidInputError, match=r"cannot be run .*ValueError: a bad day"):
        backend.capture(x)
    same(model_state, state(model))
    assert not _intercepting._SWITCHES


def test_always_in_inference() -> None:
    model, x = functional(), batch()
    wanted = model(x, training=False).numpy()
    backend = cfcam.open_model(model)
    for one in model.layers:
        one.trainable = True
    close(backend.scores(x), wanted, 1e-6)
    with tf.GradientTape():  # a tape of the user's own around it changes nothing
        close(backend.capture(x).scores, wanted, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_its_samples_give(kind: str) -> None:
    backend, x = cfcam.open_model(built(kind)), batch(4)
    whole = backend.capture(x)
    for n in range(4):
        one = backend.capture(x[n : n + 1])
        close(one.gradients[0], whole.gradients[n], 1e-5)
        close(one.activations[0], whole.activations[n], 1e-5)
        assert one.targets[0] == whole.targets[n]


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_give_the_serial_results(kind: str) -> None:
    model = built(kind, "softmax")
    work = [
        (batch(2) * (1 + n / 7), layer, n % 5)
        for n in range(8)
        for layer in (None, PATHS[kind] + "stem", PATHS[kind] + "branch", "input")
    ]
    alone = cfcam.open_model(model, example=batch(1))
    wanted = [alone.capture(x, layer=layer, target=t) for x, layer, t in work]
    probabilities = model(batch(2)).numpy()
    shared = cfcam.open_model(model)  # its trial, too, is raced for
    start = threading.Barrier(8)

    def explain(job: tuple[int, Any]) -> Any:
        n, (x, layer, target) = job
        if n < 8:
            start.wait()
        if n % 3 == 0:
            close(model(batch(2)).numpy(), probabilities, 1e-6)
        return shared.capture(x, layer=layer, target=target)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(explain, enumerate(work)))
    for one, other in zip(found, wanted, strict=True):
        close(one.gradients, other.gradients, 1e-6)
        close(one.activations, other.activations, 1e-6)
        close(one.scores, other.scores, 1e-6)
    assert not _intercepting._SWITCHES


def test_a_hundred_calls_keep_nothing() -> None:
    backend, x = cfcam.open_model(functional("softmax")), batch(2)
    backend.layers()

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(one), tf.Tensor | np.ndarray) for one in gc.get_objects())

    backend.capture(x)
    before = alive()
    for _ in range(100):
        backend.capture(x)
        backend.capture(x, layer="branch", target=lambda s: s.argmin(axis=1))
    assert alive() <= before + 2


def test_another_backend_on_the_same_model() -> None:
    model, x = functional("softmax"), batch()
    one, other = cfcam.open_model(model), cfcam.open_model(model)
    inner: list[Any] = []

    def nested(_: Any) -> int:
        inner.append(other.capture(x, layer="stem", target=1))
        return 2

    outer = one.capture(x, layer="stem", target=nested)
    close(inner[0].gradients, one.capture(x, layer="stem", target=1).gradients, 1e-6)
    close(outer.gradients, one.capture(x, layer="stem", target=2).gradients, 1e-6)

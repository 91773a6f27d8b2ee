"""SavedModels against the gradients of the Keras models that they were exported from."""

from __future__ import annotations

import gc
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cfcam_tensorflow._saved_model import open_saved_model
from keras_tape import batch, close, first, reference

from cfcam_core import InvalidInputError

L = keras.layers
SHAPE = (12, 16, 3)


def residual(closing: str | None = None) -> keras.Model:
    """Build a net with a branch, a norm with statistics, and a unit with a gradient of its own."""
    x = start = keras.Input(SHAPE)
    x = L.Conv2D(8, 3, padding="same", name="stem")(x)
    x = norm = L.BatchNormalization(name="norm")(x)
    branch = L.Conv2D(8, 3, padding="same", activation="silu", name="branch")(x)
    x = L.Add(name="block")([x, branch])
    x = L.MaxPooling2D(name="pool")(x)
    x = L.Conv2D(6, 3, padding="same", activation="tanh", name="last")(x)
    x = L.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(start, L.Dense(5, activation=closing, name="head")(x))
    rng = np.random.default_rng(0)
    layer = norm._keras_history.operation
    layer.set_weights([rng.uniform(0.5, 1.5, 8) for _ in range(4)])
    return model


@pytest.mark.parametrize("layer", ["stem", "norm", "branch", "block", "pool", "last"])
def test_layers_are_known_by_their_names(saved: Any, layer: str) -> None:
    model, x = residual("softmax"), batch(3, *SHAPE)
    backend = open_saved_model(saved(model))
    capture = backend.capture(x, layer=layer, target=[1, 2, 0])
    activations, gradients, logits = reference(model, layer, x, [1, 2, 0])
    close(capture.activations, first(activations))
    close(capture.gradients, first(gradients))
    close(capture.scores, logits)
    assert capture.targets.tolist() == [1, 2, 0]
    assert capture.input_size == (12, 16)
    close(backend.scores_from(capture.activations, x, layer=layer), logits)
    assert np.abs(backend.scores_from(0 * capture.activations, x, layer=layer) - logits).max() > 0.1


def test_what_is_known_of_it(saved: Any) -> None:
    backend = open_saved_model(saved(residual("softmax")))
    assert backend.input_shape == (None, *SHAPE)
    assert backend.input_layout == "channels_last"
    assert backend.input_dtype == np.float32
    assert len(backend.input_names) == 1
    assert backend.classes == 5
    assert backend.logits_behind == ("Softmax",)
    layers = backend.layers()
    (default,) = [one for one in layers if one.is_default]
    assert (default.module, default.kind, default.shape) == ("last", "Tanh", (None, 6, 8, 6))
    modules = list(dict.fromkeys(one.module for one in layers))
    assert modules == ["stem", "norm", "block", "pool", "last"]  # not the branch
    assert len({one.name for one in layers}) == len(layers)
    x = batch(2, *SHAPE)
    for i, one in enumerate(layers):
        by_name = backend.capture(x, layer=one.name)
        assert by_name.layer == one.name
        for same in (i, one, i - len(layers)):
            np.testing.assert_array_equal(
                backend.capture(x, layer=same).gradients, by_name.gradients
            )
    assert backend.capture(x).layer == default.name


@pytest.mark.parametrize("closing", [None, "sigmoid", "softmax", "log_softmax"])
def test_what_closes_the_model_is_looked_through(saved: Any, closing: str | None) -> None:
    model, x = residual(closing), batch(2, *SHAPE)
    path = saved(model)
    *_, logits = reference(model, "last", x, [0, 0])
    close(open_saved_model(path).scores(x), logits)
    plain = open_saved_model(path, look_through=False)
    assert plain.logits_behind == ()
    close(plain.scores(x), model.predict_on_batch(x))


def test_targets_in_every_form(saved: Any) -> None:
    model, x = residual(), batch(3, *SHAPE)
    backend = open_saved_model(saved(model))
    best = backend.scores(x).argmax(axis=1)
    expected = backend.capture(x, target=best.tolist())
    for target in (None, lambda scores: scores.argmax(axis=1), np.eye(5)[best]):
        given = target if target is None or callable(target) else lambda _, t=target: t
        capture = backend.capture(x, target=given)
        close(capture.gradients, expected.gradients)
        if not isinstance(target, np.ndarray):
            assert capture.targets.tolist() == best.tolist()
    one = backend.capture(x, target=2)
    assert one.targets.tolist() == [2, 2, 2]
    with pytest.raises(InvalidInputError, match="5 classes"):
        backend.capture(x, target=5)


def test_batch_is_its_samples_one_by_one_and_several_layers_cost_one_call(saved: Any) -> None:
    backend, x = open_saved_model(saved(residual("softmax"))), batch(3, *SHAPE)
    captures = backend.captures(x, layers=["stem", "block", "last", "stem", "input"])
    assert [one.activations.shape[1] for one in captures] == [8, 8, 6, 8, 3]
    for i in range(3):
        singles = backend.captures(x[i], layers=["stem", "block", "last", "stem", "input"])
        for single, whole in zip(singles, captures, strict=True):
            close(single.gradients[0], whole.gradients[i])
            close(single.activations[0], whole.activations[i])
    close(captures[-1].activations, first(x))
    assert backend.captures(x, layers=[]) == []


def test_input_is_a_layer(saved: Any) -> None:
    model, x = residual("softmax"), batch(2, *SHAPE)
    capture = open_saved_model(saved(model)).capture(x, layer="input", target=[3, 1])
    model.layers[-1].activation = keras.activations.linear
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        logits = model(tensor, training=False)
        chosen = logits[0, 3] + logits[1, 1]
    close(capture.gradients, first(tape.gradient(chosen, tensor).numpy()))


def test_eight_threads_give_what_one_gives(saved: Any) -> None:
    path, x = saved(residual("softmax")), batch(4, *SHAPE)
    jobs = [(i % 4, layer) for i in range(16) for layer in ("stem", "norm", "block", "last")]
    serial = open_saved_model(path)
    wanted = [serial.capture(x[i], layer=layer) for i, layer in jobs]
    shared = open_saved_model(path)  # nothing is made yet
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: shared.capture(x[job[0]], layer=job[1]), jobs))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.gradients, other.gradients)
        np.testing.assert_array_equal(one.activations, other.activations)


def test_calls_leave_no_trace_and_take_no_memory(saved: Any) -> None:
    loaded = tf.saved_model.load(saved(residual("softmax")))
    before = [one.numpy() for one in loaded.variables]
    backend, x = open_saved_model(loaded), batch(2, *SHAPE)
    x.flags.writeable = False
    for _ in range(20):
        backend.capture(x)
    gc.collect()
    objects, memory = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        backend.capture(x)
    gc.collect()
    assert len(gc.get_objects()) - objects < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # kilobytes
    for one, other in zip(loaded.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)

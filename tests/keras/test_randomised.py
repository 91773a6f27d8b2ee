"""Copies of a model with its weights in random order, and the model beside them as it was."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import batch, built, functional, subclassed

import cfcam_core as cfcam
from cfcam_core.evaluation import parameter_randomisation


def values(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("kind", ["functional", "nested", "nested_sequential"])
def test_kernels_are_mixed_and_the_model_is_left_as_it_is(kind: str) -> None:
    model, x = built(kind), batch()
    opened, before = cfcam.open_model(model), values(model)
    scores, names = opened.scores(x), opened.weight_names()
    mixed = opened.randomised(0)
    kernels = 0
    for own, after in zip(before, values(mixed._called), strict=True):
        np.testing.assert_array_equal(np.sort(own, axis=None), np.sort(after, axis=None))
        kernels += own.ndim > 1
        assert np.array_equal(own, after) == (own.ndim == 1)
    assert len(names) == kernels > 1
    assert np.abs(mixed.scores(x) - scores).max() > 1e-3
    assert [one.name for one in mixed.layers()] == [one.name for one in opened.layers()]
    for own, after in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(own, after)
    np.testing.assert_array_equal(opened.scores(x), scores)


def test_what_norms_have_gathered_stays() -> None:
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(pooled))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 2, weight.shape))
    opened = cfcam.open_model(model)
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3))
    mixed = opened.randomised(0, last=1)
    layer = opened.layers()[-1].name
    for name in (layer, "input"):
        one, other = (each.capture(x, layer=name) for each in (opened, mixed))
        np.testing.assert_array_equal(one.activations, other.activations)


def test_two_layers_of_one_name_are_two() -> None:
    def inner(name: str, channels: int) -> keras.Model:
        inside = keras.Input((8, 8, channels))
        maps = keras.layers.Conv2D(4, 3, padding="same", name="c")(inside)
        return keras.Model(inside, maps, name=name)

    inputs = keras.Input((8, 8, 3))
    x = inner("b", 4)(inner("a", 3)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    opened = cfcam.open_model(keras.Model(inputs, keras.layers.Dense(3)(x)))
    assert len(opened.weight_names()) == 3


def calls(model: keras.Model) -> Any:
    def called(x: Any) -> Any:
        return model(x)

    return called


@pytest.mark.parametrize("made", [subclassed, lambda: tf.function(calls(functional()))])
def test_what_cannot_be_copied_is_refused(made: Any) -> None:
    model = made()
    with pytest.raises(cfcam.InvalidInputError, match="randomised="):
        parameter_randomisation(model, batch())


def test_a_subclassed_model_is_compared_with_one_of_your_own() -> None:
    found = parameter_randomisation(
        subclassed(), batch(), method="hires-cam", randomised=[subclassed()]
    )
    assert found.similarities.shape == (1, 3)

"""Sequential, functional, nested and subclassed models against a tape on a model cut in two."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import (
    CLASSES,
    KINDS,
    PATHS,
    SHAPE,
    batch,
    built,
    close,
    functional,
    one_hot,
    tape,
)

import cfcam_core as cfcam
from cfcam_core.errors import LayerNotFoundError

L = keras.layers


@pytest.mark.parametrize("layer", ["stem", "norm", "branch", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_tapes(kind: str, layer: str) -> None:
    model, x, targets = built(kind), batch(), [3, 0, 4]
    found = cfcam.open_model(model).capture(x, layer=PATHS[kind] + layer, target=targets)
    activations, gradients, scores = tape(functional(), x, layer, one_hot(targets))
    close(found.activations, activations)
    close(found.gradients, gradients)
    close(found.scores, scores)
    assert found.targets.tolist() == targets
    assert found.input_size == SHAPE[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_default_and_list(kind: str) -> None:
    layers = cfcam.open_model(built(kind)).layers()
    (default,) = [one for one in layers if one.is_default]
    assert default == layers[-1]
    name = {"functional": "last", "subclassed": "features"}.get(kind, "base")
    sizes = (None, None) if kind == "subclassed" else (6, 5)  # it may be called with others
    assert (default.name, default.kind, default.shape) == (name, "Conv2D", (None, *sizes, 8))
    names = [one.name.rpartition("/")[2] for one in layers]
    assert names[:2] == ["stem", "norm"]
    assert "branch" not in names
    assert ("block" in names) == (kind != "subclassed")  # there it is no layer


@pytest.mark.parametrize("kind", KINDS)
def test_scores_from_its_own_maps_are_the_scores(kind: str) -> None:
    backend, x = cfcam.open_model(built(kind)), batch()
    for layer in (None, "branch", "input"):
        own = backend.capture(x, layer=layer)
        close(backend.scores_from(own.activations, x, layer=layer), own.scores, 1e-6)
        changed = backend.scores_from(own.activations * 1.5, x, layer=layer)
        assert np.abs(changed - own.scores).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_as_a_layer(kind: str) -> None:
    model, x = built(kind), tf.constant(batch())
    with tf.GradientTape() as recorded:
        recorded.watch(x)
        scores = model(x, training=False)
        explained = tf.reduce_sum(scores[:, 2])
    wanted = np.moveaxis(recorded.gradient(explained, x).numpy(), -1, 1)
    found = cfcam.open_model(model).capture(x, layer="input", target=2)
    close(found.gradients, wanted)
    close(found.activations, np.moveaxis(x.numpy(), -1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_several_layers_in_one_run(kind: str) -> None:
    backend, x = cfcam.open_model(built(kind)), batch()
    wanted = [PATHS[kind] + "stem", None, "input", PATHS[kind] + "stem", 1]
    for layer, found in zip(wanted, backend.captures(x, layers=wanted, target=1), strict=True):
        alone = backend.capture(x, layer=layer, target=1)
        close(found.gradients, alone.gradients, 1e-6)
        close(found.activations, alone.activations, 1e-6)
        assert found.layer == alone.layer


def test_an_inner_and_an_outer_layer_that_return_the_same_tensor() -> None:
    backend, x = cfcam.open_model(built("nested")), batch()
    inner, outer = backend.captures(x, layers=["base/last", "base"], target=1)
    close(inner.gradients, outer.gradients, 0)
    assert (inner.layer, outer.layer) == ("base/last", "base")


def test_sequential_without_an_input_shape() -> None:
    model = keras.Sequential([L.Conv2D(4, 3, name="a"), L.GlobalMaxPooling2D(), L.Dense(3)])
    x = batch()
    found = cfcam.explain(model, x, target=0)
    assert found.layer == "a"
    close(cfcam.open_model(model).scores(x), model(x).numpy())


def test_unbuilt_subclass_needs_inputs_to_list_layers() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = L.Conv2D(4, 3), L.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(tf.reduce_mean(self.conv(x), [1, 2]))

    backend = cfcam.open_model(Net())
    with pytest.raises(cfcam.InvalidInputError, match="pass example="):
        backend.layers()
    assert backend.capture(batch()).layer == backend.layers()[-1].name
    assert len(cfcam.open_model(Net(), example=batch()).layers()) == 1


def test_last_of_several_calls_counts() -> None:
    class Twice(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = L.Conv2D(3, 3, padding="same", activation="tanh", name="conv")
            self.head = L.Dense(4)

        def call(self, x: Any) -> Any:
            return self.head(tf.reduce_mean(self.conv(self.conv(x)), [1, 2]))

    model, x = Twice(), batch()
    backend = cfcam.open_model(model, example=x)
    found = backend.capture(x, layer="conv", target=1)
    twice = model.conv(model.conv(x))
    close(found.activations, np.moveaxis(twice.numpy(), -1, 1))
    close(
        backend.scores_from(found.activations * 2, x, layer="conv"),
        model.head(tf.reduce_mean(2 * twice, [1, 2])).numpy(),
    )
    assert [one.name for one in backend.layers()] == ["conv"]


def test_shared_layer_in_a_functional_model() -> None:
    conv = L.Conv2D(3, 3, padding="same", activation="tanh", name="conv")
    x = keras.Input(SHAPE)
    model = keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(conv(conv(x)))))
    found = cfcam.open_model(model).capture(batch(), layer=conv)
    close(found.activations, np.moveaxis(conv(conv(batch())).numpy(), -1, 1))


def test_layers_by_every_name() -> None:
    model, x = built("subclassed"), batch(1)
    backend = cfcam.open_model(model)
    wanted = backend.capture(x, layer="features/branch").gradients
    names = ["branch", "subclassed/features/branch", "features.rest.branch"]
    for layer in [*names, model.features.rest["branch"]]:
        found = backend.capture(x, layer=layer)
        close(found.gradients, wanted, 0)
        assert found.layer == "features/branch"
    assert backend.layers()[0].module == "features.first.0"
    for layer in (0, -1, backend.layers()[0], None, np.int64(1)):
        assert backend.capture(x, layer=layer).layer


def test_layers_that_are_not_there() -> None:
    backend, x = cfcam.open_model(functional()), batch(1)
    with pytest.raises(LayerNotFoundError, match=r"closest names are .*branch"):
        backend.capture(x, layer="brunch")
    with pytest.raises(LayerNotFoundError, match="Conv2D 'other' is not in this model"):
        backend.capture(x, layer=L.Conv2D(3, 3, name="other"))
    with pytest.raises(LayerNotFoundError, match="out of range"):
        backend.capture(x, layer=99)
    with pytest.raises(LayerNotFoundError, match=r"array of shape \(1, 8\) of one sample"):
        backend.capture(x, layer="mean")
    with pytest.raises(LayerNotFoundError, match="is a float"):
        backend.capture(x, layer=0.5)


def test_ambiguous_names() -> None:
    first, second = functional(), functional()
    first.name, second.name = "one", "two"
    x = keras.Input(SHAPE)
    backend = cfcam.open_model(keras.Model(x, L.Add()([first(x), second(x)])))
    with pytest.raises(LayerNotFoundError, match="2 layers 'stem'; name one as one/stem, two/stem"):
        backend.capture(batch(1), layer="stem")
    assert backend.capture(batch(1), layer="two/stem").layer == "two/stem"


def test_layer_that_the_scores_do_not_depend_on() -> None:
    x = keras.Input(SHAPE)
    y = L.Conv2D(3, 3, name="other")(x)
    scores = L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(3, 3, name="main")(x)))
    model = keras.Model(x, [scores, y])
    backend = cfcam.open_model(model)
    with pytest.raises(LayerNotFoundError, match="do not depend on layer 'other'"):
        backend.capture(batch(1), layer="other")
    assert [one.name for one in backend.layers()] == ["main"]


def test_operations_between_layers_of_a_functional_model() -> None:
    x = keras.Input(SHAPE)
    y = keras.ops.tanh(L.Conv2D(4, 3, name="conv")(x)) * 2.0
    y = keras.ops.mean(y[:, 1:], axis=(1, 2))
    backend = cfcam.open_model(keras.Model(x, L.Dense(3)(y)))
    kinds = [one.kind for one in backend.layers()]
    assert kinds == ["Conv2D", "Tanh", "Multiply", "GetItem"]
    assert backend.capture(batch(2)).activations.shape == (2, 4, 11, 9)


@pytest.mark.parametrize("how", ["around", "method", "lambda"])
def test_tf_functions_around_a_model(how: str) -> None:
    model, x = functional(), batch()
    made = {
        "around": lambda: tf.function(model),
        "method": lambda: tf.function(model.call, jit_compile=True),
        "lambda": lambda: tf.function(lambda x: 2 * model(x)),
    }[how]()
    found = cfcam.open_model(made).capture(x, layer="branch", target=1)
    wanted = cfcam.open_model(model).capture(x, layer="branch", target=1)
    close(found.gradients, wanted.gradients * (2 if how == "lambda" else 1))


def test_compiled_calls_are_seen_through_and_stay_compiled() -> None:
    traced: list[int] = []

    class Inner(L.Layer):
        def __init__(self) -> None:
            super().__init__(name="inner")
            self.conv = L.Conv2D(4, 3, name="conv")

        @tf.function
        def call(self, x: Any) -> Any:
            traced.append(1)
            return tf.tanh(self.conv(x))

    x = keras.Input(SHAPE)
    inner = Inner()
    model = keras.Model(x, L.Dense(CLASSES)(L.GlobalAveragePooling2D()(inner(x))))
    model.call = tf.function(model.call)
    images = tf.constant(batch())
    before, compiled = model(images).numpy(), model.call
    backend = cfcam.open_model(model)
    found = backend.capture(images, layer="inner/conv", target=2)
    close(found.activations, np.moveaxis(inner.conv(images).numpy(), -1, 1))
    assert np.abs(found.gradients).max() > 0
    assert model.call is compiled
    assert "call" not in vars(inner)
    traces = len(traced)
    close(model(images).numpy(), before, 0)
    assert len(traced) == traces  # what was compiled before is still in use
    assert not tf.config.functions_run_eagerly()


@pytest.mark.parametrize("traced", [True, False])
def test_what_runs_inside_a_hidden_tf_function_is_refused(*, traced: bool) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = L.Conv2D(4, 3, name="hidden")
            self.seen = L.Conv2D(4, 3, name="seen")
            self.fast = tf.function(self.go)
            self.head = L.Dense(3)

        def go(self, x: Any) -> Any:
            return self.hidden(x)

        def call(self, x: Any) -> Any:
            return self.head(tf.reduce_mean(self.seen(self.fast(x)), [1, 2]))

    model = Net()
    if traced:
        model(batch())
    backend = cfcam.open_model(model)
    with pytest.raises(LayerNotFoundError, match=r"'hidden' was not called where it can be seen"):
        backend.capture(batch(), layer="hidden")
    assert backend.capture(batch()).layer == "seen"
    close(backend.scores(batch()), model(batch()).numpy(), 1e-6)


class Often(keras.Model):
    """A layer is called once a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = L.Conv2D(3, 3, padding="same", name="maps"), L.Dense(4)

    def call(self, x: Any) -> Any:
        for _ in range(len(x)):
            x = self.maps(x)
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def test_as_often_as_the_inputs_say() -> None:
    model, x = Often(), batch(3)
    backend = cfcam.open_model(model, example=x)
    found = backend.capture(x, layer="maps")
    doubled = np.moveaxis(2 * found.activations, 1, -1)
    wanted = model.head(doubled.mean((1, 2))).numpy()
    close(backend.scores_from(2 * found.activations, x, layer="maps"), wanted)


class OwnCall(Often):
    def __call__(self, x: Any) -> Any:
        return self.call(2 * x)


def test_what_is_called_in_a_way_of_its_own() -> None:
    model, x = OwnCall(), batch(1)
    found = cfcam.open_model(model).capture(x, layer="maps")
    close(found.activations, np.moveaxis(model.maps(2 * x).numpy(), -1, 1))
    close(found.scores, model(x).numpy())

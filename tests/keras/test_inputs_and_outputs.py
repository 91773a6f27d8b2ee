"""What goes in, in every form, and which of several outputs is explained."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import SHAPE, batch, built, close, functional

import cfcam_core as cfcam
from cfcam_core.errors import InvalidInputError, LayerNotFoundError

L = keras.layers


def two_inputs(*, named: bool = False) -> keras.Model:
    """A picture and numbers, whose number of axes tells that they are none."""
    numbers, picture = keras.Input((4,), name="numbers"), keras.Input(SHAPE, name="picture")
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="tanh", name="last")(picture))
    inputs = {"picture": picture, "numbers": numbers} if named else [numbers, picture]
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([y, L.Dense(2)(numbers)])))


def test_several_inputs_as_a_list_or_a_dict() -> None:
    model = two_inputs()
    backend, x, numbers = cfcam.open_model(model), batch(), batch(3, (4,))
    assert backend.input_names == ("numbers", "picture")
    wanted = model([numbers, x]).numpy()
    for inputs in ([numbers, x], (numbers, x), {"picture": x, "numbers": numbers}):
        close(backend.scores(inputs), wanted, 1e-6)
    found = backend.capture([numbers, x])
    assert (found.layer, found.input_size) == ("last", SHAPE[:2])
    close(backend.capture([numbers, x], layer="input").activations, np.moveaxis(x, -1, 1), 0)
    close(backend.capture([numbers[0], x[0]]).scores[0], wanted[0], 1e-5)
    close(backend.capture([numbers, x], layer="picture").activations, np.moveaxis(x, -1, 1), 0)
    assert backend.capture([numbers, x], layer=model.inputs[1]._keras_history.operation).layer
    with pytest.raises(LayerNotFoundError, match="'numbers' is no picture or signal"):
        backend.capture([numbers, x], layer="numbers")
    with pytest.raises(InvalidInputError, match="inputs numbers, picture; pass a dict"):
        backend.scores(x)
    with pytest.raises(InvalidInputError, match="named picture; the model's are numbers, picture"):
        backend.scores({"picture": x})
    with pytest.raises(InvalidInputError, match=r"hold \[2, 3\] samples"):
        backend.scores([numbers, x[:2]])


def test_two_pictures() -> None:
    """A layer that only one of two pictures runs through is listed, and explains that one."""
    left, right = keras.Input(SHAPE, name="left"), keras.Input(SHAPE, name="right")
    sides = [
        L.Conv2D(4, 3, activation="tanh", name=f"conv_{name}")(x)
        for name, x in (("left", left), ("right", right))
    ]
    means = [L.GlobalAveragePooling2D()(one) for one in sides]
    model = keras.Model([left, right], L.Dense(3)(L.Concatenate()(means)))
    backend, x, y = cfcam.open_model(model), batch(), batch()[::-1]
    assert {one.name for one in backend.layers()} == {"conv_left", "conv_right"}
    close(backend.capture([x, y], layer="right").activations, np.moveaxis(y, -1, 1), 0)
    found = backend.capture([x, y], layer="left")
    close(backend.scores_from(-found.activations, [x, y], layer="left"), model([-x, y]).numpy())


def test_inputs_that_the_model_holds_in_a_dict() -> None:
    model = two_inputs(named=True)
    backend, x, numbers = cfcam.open_model(model), batch(), batch(3, (4,))
    inputs = {"numbers": numbers, "picture": x}
    close(backend.scores(inputs), model(inputs).numpy(), 1e-6)
    assert backend.capture(inputs).layer == "last"


def test_several_arguments_of_a_subclassed_model() -> None:
    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = functional()

        def call(self, x: Any, gain: Any, training: Any = None) -> Any:
            return self.inner(x) * gain

    class Held(Two):
        def call(self, inputs: Any) -> Any:
            return self.inner(inputs["picture"]) * inputs["gain"]

    x, gain = batch(), np.float32([[1], [2], [-1]])
    wanted = functional()(x).numpy() * gain
    close(cfcam.open_model(Two()).scores([x, gain]), wanted, 1e-6)
    close(cfcam.open_model(Two()).scores({"gain": gain, "x": x}), wanted, 1e-6)
    close(cfcam.open_model(Held()).scores({"gain": gain, "picture": x}), wanted, 1e-6)


def test_arrays_tensors_and_lists_of_any_dtype() -> None:
    backend, x = cfcam.open_model(functional()), batch()
    wanted = backend.scores(x)
    for same in (x.astype(np.float64), tf.constant(x), tf.Variable(x), x.tolist(), list(x)):
        close(backend.scores(same), wanted, 1e-6)
    whole = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(1, *SHAPE)
    close(backend.scores(whole), backend.scores(whole.astype(np.float32)), 0)
    import torch

    close(backend.scores(torch.tensor(x, requires_grad=True)), wanted, 1e-6)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_one_sample_without_its_axis(kind: str) -> None:
    model, x = built(kind), batch()
    backend = cfcam.open_model(model, example=x)
    close(backend.capture(x[1], target=0).gradients, backend.capture(x[1:2], target=0).gradients, 0)


def test_what_does_not_fit_is_refused() -> None:
    backend, x = cfcam.open_model(functional()), batch()
    with pytest.raises(InvalidInputError, match=r"axes \(0, 2, 3, 1\)"):
        backend.scores(x.transpose(0, 3, 1, 2))
    with pytest.raises(InvalidInputError, match=r"takes \(N, 14, 11, 3\)"):
        backend.scores(x[:, :9])
    with pytest.raises(InvalidInputError, match="1 values that are NaN or infinite"):
        backend.scores(np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x))
    with pytest.raises(InvalidInputError, match="wanted real numbers"):
        backend.scores(np.full(x.shape, "a"))
    with pytest.raises(InvalidInputError, match="activations have shape"):
        backend.scores_from(np.ones((3, 8, 2, 2)), x)


def test_what_a_subclassed_model_cannot_run_on() -> None:
    model = built("subclassed")
    with pytest.raises(
        InvalidInputError, match=r"cannot be run on inputs of shape \(1, 14, 11, 2\)"
    ):
        cfcam.open_model(model).scores(batch(3, (14, 11, 2)))


def several_outputs() -> keras.Model:
    x = keras.Input(SHAPE)
    y = L.Conv2D(6, 3, activation="tanh", name="last")(x)
    means = L.GlobalAveragePooling2D()(y)
    return keras.Model(
        x,
        {
            "mask": L.Conv2D(2, 1, name="mask")(y),
            "kind": L.Dense(4, activation="softmax")(means),
            "size": L.Dense(1)(means),
        },
    )


def test_which_output_is_explained() -> None:
    model, x = several_outputs(), batch()
    made = {name: one.numpy() for name, one in model(x).items()}
    assert cfcam.open_model(model).classes == 4
    assert cfcam.open_model(model).logits_behind == ("softmax",)
    close(cfcam.open_model(model, output="size").scores(x), made["size"], 1e-6)
    mean = cfcam.open_model(model, output=lambda raw: keras.ops.mean(raw["mask"], axis=(1, 2)))
    close(mean.scores(x), made["mask"].mean((1, 2)), 1e-5)
    assert mean.capture(x, target=1).activations.shape == (3, 6, 12, 9)
    with pytest.raises(InvalidInputError, match=r"output='kinds' is no part .*kind: \(1, 4\)"):
        cfcam.open_model(model, output="kinds").layers()


def test_list_of_outputs_by_name_and_number() -> None:
    x = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, name="last")(x))
    model = keras.Model(x, [L.Dense(3, name="first")(y), L.Dense(2, name="second")(y)])
    first, second = (one.numpy() for one in model(batch()))
    for output, wanted in ((None, first), ("second", second), (1, second), (-2, first)):
        close(cfcam.open_model(model, output=output).scores(batch()), wanted, 1e-6)


def test_outputs_that_are_no_scores_need_a_callable() -> None:
    x = keras.Input(SHAPE)
    y = L.Conv2D(6, 3, activation="tanh", name="last")(x)
    model = keras.Model(x, L.Conv2D(2, 1, activation="softmax", name="mask")(y))
    backend, images = cfcam.open_model(model), batch()
    with pytest.raises(InvalidInputError, match=r"no scores \(N, K\) but \(1, 12, 9, 2\); open"):
        backend.capture(images)
    with pytest.raises(InvalidInputError, match=r"no scores .*open it with output="):
        backend.scores(images)
    split = keras.Model(x, [model.get_layer("last").output, model.output])
    with tf.GradientTape() as tape:
        last, mask = split(images)
        explained = tf.reduce_sum(mask[:, 2, 3, 1])
    wanted = np.moveaxis(tape.gradient(explained, last).numpy(), -1, 1)
    for target in (
        lambda raw: raw[:, 2, 3, 1],
        lambda raw: tf.reduce_sum(raw[:, 2, 3, 1]),
    ):
        found = backend.capture(images, layer="last", target=target)
        close(found.gradients, wanted)
        assert found.scores is None
        assert found.targets.tolist() == [-1, -1, -1]
    assert [one.name for one in backend.layers()] == ["last", "mask"]
    with pytest.raises(InvalidInputError, match=r"of shape \(3, 12, 9, 2\) .*wanted a tensor"):
        backend.capture(images, target=lambda raw: raw)


def test_targets() -> None:
    backend, x = cfcam.open_model(functional()), batch()
    scores = backend.scores(x)
    assert backend.capture(x).targets.tolist() == scores.argmax(1).tolist()
    worst = backend.capture(x, target=lambda s: s.argmin(axis=1))
    assert worst.targets.tolist() == scores.argmin(1).tolist()
    parts = [backend.capture(x, target=k).gradients for k in (1, 3)]
    weights = np.zeros((3, 5), np.float32)
    weights[:, 1], weights[:, 3] = 2, -1
    both = backend.capture(x, target=lambda _: weights)
    close(both.gradients, 2 * parts[0] - parts[1])
    assert both.targets.tolist() == [-1, -1, -1]


def test_facts() -> None:
    backend = cfcam.open_model(functional("softmax"))
    assert backend.input_shape == (None, *SHAPE)
    assert (backend.input_layout, backend.input_dtype) == ("channels_last", np.float32)
    assert backend.classes == 5


def test_maps_from_front_to_back() -> None:
    e = cfcam.explain(built("nested", "softmax"), batch())
    assert e.heatmaps.shape == (3, *SHAPE[:2])
    fused = cfcam.explain(built("nested"), batch(), layer=["stem", None])
    assert fused.layer == "base/stem + base"


class Own(keras.Model):
    """Says nothing of what it takes."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self.first, self.head = first, L.Dense(4)

    def call(self, x: Any) -> Any:
        y = self.first(x)
        return self.head(keras.ops.mean(y, axis=tuple(range(1, len(y.shape) - 1))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool])
def test_whole_numbers_into_a_model_that_does_not_say_what_it_takes(dtype: Any) -> None:
    whole = np.random.default_rng(0).integers(0, 100, (2, *SHAPE)).astype(dtype)
    model = Own(L.Conv2D(5, 3, name="maps"))
    backend = cfcam.open_model(model, example=whole)  # whose weights this makes
    found = backend.capture(whole, layer="maps")
    floats = whole.astype(np.float32)
    close(found.activations, np.moveaxis(model.first(floats).numpy(), -1, 1))
    close(found.scores, model(floats).numpy())
    close(backend.capture(floats, layer="maps").gradients, found.gradients)


def test_whole_numbers_that_must_stay_what_they_are() -> None:
    class Table(L.Layer):
        def build(self, _: Any) -> None:
            self.table = self.add_weight((300, 4), name="table")

        def call(self, x: Any) -> Any:
            return tf.gather(self.table, x)

    words = np.random.default_rng(0).integers(0, 300, (2, 9))
    model = Own(Table(name="table"))
    found = cfcam.open_model(model, example=words).capture(words, layer="table")
    close(found.scores, model(words).numpy())


def test_a_model_that_does_not_run() -> None:
    model = Own(L.Conv2D(5, 3))
    backend = cfcam.open_model(model)
    for inputs in (np.ones((2, 2)), np.ones((2, 2), np.uint8)):
        with pytest.raises(InvalidInputError, match="the model cannot be run on inputs of shape"):
            backend.scores(inputs)
    close(backend.scores((batch(),)), model(batch()).numpy())


def test_what_is_no_array_is_named() -> None:
    backend, x = cfcam.open_model(functional()), batch()
    for inputs, kind in (
        (tf.data.Dataset.from_tensor_slices(x), "Dataset"),
        (tf.ragged.constant([[1.0, 2.0], [3.0]]), "RaggedTensor"),
        (tf.sparse.from_dense(x), "SparseTensor"),
        (None, "NoneType"),
    ):
        with pytest.raises(InvalidInputError, match=f"dtype object in a .*{kind}; wanted real"):
            backend.scores(inputs)
    with pytest.raises(InvalidInputError, match="masked array"):
        backend.scores(np.ma.masked_array(x, x > 0))
    with pytest.raises(InvalidInputError, match="3 channels on axis 3, not 1"):
        backend.scores(x[..., :1])

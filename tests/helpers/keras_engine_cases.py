"""What an engine of Keras must do, whichever it is; `test_other_engines.py` runs this file.

The oracle is the framework's own gradient of the layers behind the map, called one by one.
"""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import cfcam_tensorflow
import keras
import numpy as np
import pytest
from keras_engine_parts import ENGINE, SHAPE, Net, Subclassed, batch, close, first, gradient, value

from cfcam_core import InvalidInputError, LayerNotFoundError

L, ops = keras.layers, keras.ops

pytestmark = pytest.mark.filterwarnings(  # Keras asks PyTorch and JAX so, for their weights
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("closing", ["softmax", "sigmoid", None])
def test_nested_models(closing: str | None) -> None:
    net, x = Net(closing), batch(3, *SHAPE)
    backend = cfcam_tensorflow.open_model(net.model)
    assert backend.logits_behind == ((closing,) if closing else ())
    deep = backend.capture(x, layer="base/last", target=[1, 0, 4])
    early = backend.capture(x, layer="stem", target=[1, 0, 4])
    close(deep.scores, value(net.head(net.maps(x))))
    close(deep.activations, first(net.maps(x)))
    close(deep.gradients, first(gradient(net.head, net.maps(x), [1, 0, 4])))
    close(early.gradients, first(gradient(net.tail, net.stem(x), [1, 0, 4])))
    for layer, capture in (("last", deep), ("stem", early)):
        close(backend.scores_from(capture.activations, x, layer=layer), deep.scores)
        other = backend.scores_from(capture.activations + 1, x, layer=layer)
        assert np.abs(other - deep.scores).max() > 1e-3
    together = backend.captures(x, layers=["last", "stem", "block", "input"], target=[1, 0, 4])
    for one, capture in zip(together, (deep, early), strict=False):
        close(one.gradients, capture.gradients)
    whole = gradient(lambda x: net.head(net.maps(x)), x, [1, 0, 4])
    close(together[-1].gradients, first(whole))
    assert backend.capture(x).layer == next(o.name for o in backend.layers() if o.is_default)


def test_subclassed_models() -> None:
    model, x = Subclassed(), batch(2, *SHAPE)
    backend = cfcam_tensorflow.open_model(model, example=x)
    one, two = model.blocks
    before = two(model.twice(one(x)))

    def head(maps: Any) -> Any:
        pooled = ops.mean(maps, axis=(1, 2))
        return ops.matmul(pooled, model.head.kernel) + model.head.bias

    captures = backend.captures(x, layers=["twice", "block_1"], target=[3, 0])
    close(captures[0].activations, first(model.twice(before)))  # the last call counts
    close(captures[0].gradients, first(gradient(head, model.twice(before), [3, 0])))
    close(captures[1].gradients, first(gradient(lambda x: head(model.twice(x)), before, [3, 0])))
    assert backend.logits_behind == ("softmax",)
    close(backend.scores_from(captures[0].activations, x, layer="twice"), captures[0].scores)


def state(model: keras.Model) -> dict[str, Any]:
    layers = list(model._flatten_layers())
    found: dict[str, Any] = {f"{i} {one.name}": dict(vars(one)) for i, one in enumerate(layers)}
    for i, one in enumerate(layers):
        found[f"{i} tracked"] = [len(one.variables), one.trainable, list(one.losses)]
    return found


class Failing(L.Layer):
    """Passes on what it gets, or fails."""

    fails = False

    def call(self, x: Any) -> Any:
        if self.fails:
            raise ZeroDivisionError
        return x


def test_calls_leave_no_trace() -> None:
    net, failing = Net(), Failing()
    start = keras.Input(SHAPE)
    model = keras.Model(start, failing(net.model(start)))
    x = batch(2, *SHAPE)
    x.flags.writeable = False
    expected = value(model(x))
    before, weights, own = state(model), model.get_weights(), x.copy()
    backend = cfcam_tensorflow.open_model(model)
    backend.layers()
    backend.captures(x, layers=["stem", "last", "input"])
    backend.scores_from(backend.capture(x, layer="last").activations, x, layer="last")
    Failing.fails = True
    try:
        with pytest.raises(InvalidInputError, match="ZeroDivisionError"):
            backend.capture(x, layer="last")
    finally:
        Failing.fails = False
    for name, one in state(model).items():
        assert one == before[name], name
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(x, own)
    np.testing.assert_array_equal(value(model(x)), expected)
    if ENGINE == "torch":
        import torch

        assert torch.is_grad_enabled()
        for one in model.parameters():
            assert one.grad is None
            assert one.requires_grad == one.is_floating_point()  # seeds are no floats
        for module in model.modules():
            assert not module._forward_hooks
    else:
        import jax

        with jax.checking_leaks():
            backend.captures(x, layers=["stem", "last", "input"])


def test_eight_threads_give_what_one_gives() -> None:
    net, x = Net(), batch(4, *SHAPE)
    jobs = [(i % 4, layer) for i in range(8) for layer in ("stem", "block", "last")]
    serial = cfcam_tensorflow.open_model(net.model)
    wanted = [serial.capture(x[i], layer=layer) for i, layer in jobs]
    shared = cfcam_tensorflow.open_model(net.model)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: shared.capture(x[job[0]], layer=job[1]), jobs))
    for one, other in zip(found, wanted, strict=True):
        close(one.gradients, other.gradients)
        close(one.activations, other.activations)
        assert one.layer == other.layer
    assert "call" not in vars(net.stem)


def test_a_hundred_calls_take_no_memory() -> None:
    net, x = Net(), batch(2, *SHAPE)
    backend = cfcam_tensorflow.open_model(net.model)
    counts = []
    for _ in range(3):
        for _ in range(50):
            backend.capture(x, layer="stem")
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[2] - counts[1] < 100, counts


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy: str) -> None:
    whole = Net()
    keras.config.set_dtype_policy(policy)
    try:
        half = Net()
    finally:
        keras.config.set_dtype_policy("float32")
    half.model.set_weights(whole.model.get_weights())
    x = batch(2, *SHAPE)
    capture = cfcam_tensorflow.open_model(half.model).capture(x, layer="stem", target=1)
    wanted = cfcam_tensorflow.open_model(whole.model).capture(x, layer="stem", target=1)
    assert capture.gradients.dtype == np.float32
    assert np.unique(capture.activations.view(np.uint32) & 0xFFF).tolist() == [0]  # of half
    for kind in ("activations", "gradients", "scores"):
        found, exact = getattr(capture, kind), getattr(wanted, kind)
        assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max(), kind


def aside() -> tuple[keras.Model, L.Layer]:
    """Return a model with a layer that only a stopped gradient comes from, and one that is dead."""
    start = keras.Input(SHAPE)
    lost = L.Conv2D(4, 3, name="lost")(start)
    dead = L.Conv2D(4, 3, name="dead", bias_initializer=keras.initializers.Constant(-1e6))
    x = L.Activation("relu", name="after")(dead(start))
    stopped = L.Lambda(ops.stop_gradient, name="stopped")(lost)
    pooled = L.GlobalAveragePooling2D()(L.Concatenate()([x, stopped]))
    return keras.Model(start, L.Dense(3)(pooled)), dead


def test_no_way_is_told_from_a_gradient_of_zero() -> None:
    model, _ = aside()
    backend, x = cfcam_tensorflow.open_model(model), batch(2, *SHAPE)
    capture = backend.capture(x, layer="dead")
    assert not capture.gradients.any()
    with pytest.raises(LayerNotFoundError, match="do not depend"):
        backend.capture(x, layer="lost")
    with pytest.raises(LayerNotFoundError, match="do not depend"):
        backend.captures(x, layers=["dead", "lost", "after"])


def test_recurrent_layers() -> None:
    start = keras.Input((20, 3))
    maps = L.Conv1D(6, 3, activation="tanh", name="maps")(start)
    rows = L.LSTM(5, return_sequences=True, name="rows")
    dense = L.Dense(3, name="dense")
    model = keras.Model(start, dense(rows(maps)[:, -1]))
    backend, x = cfcam_tensorflow.open_model(model), batch(2, 20, 3)
    conv = model.get_layer("maps")
    capture = backend.capture(x, layer="maps", target=[2, 0])
    close(capture.gradients, first(gradient(lambda x: dense(rows(x)[:, -1]), conv(x), [2, 0])))
    if ENGINE == "jax":  # the cell is called in a loop that JAX traces once
        with pytest.raises(LayerNotFoundError):
            backend.capture(x, layer=rows.cell.name)


class Keeping(L.Layer):
    """Keeps what it has seen, as some do to have it drawn."""

    def call(self, x: Any) -> Any:
        self.kept = x
        return x


def test_what_a_layer_keeps_for_itself_stays_usable() -> None:
    net, keeping = Net(), Keeping()
    start = keras.Input(SHAPE)
    model, x = keras.Model(start, keeping(net.model(start))), batch(2, *SHAPE)
    expected = value(model(x))
    backend = cfcam_tensorflow.open_model(model)
    backend.capture(x[:1], layer="last")
    np.testing.assert_array_equal(value(keeping.kept), expected)
    del keeping.kept
    backend.capture(x, layer="last")
    assert not hasattr(keeping, "kept")


def modes_of_the_caller_and_of_the_model() -> None:
    import torch

    class Frozen(L.Layer):
        """Its base is run without autograd, and what comes out is changed in place."""

        def __init__(self) -> None:
            super().__init__(name="frozen")
            self.base = L.Conv2D(6, 3, activation="tanh", name="inside")

        def call(self, x: Any) -> Any:
            with torch.no_grad():
                x = self.base(x)
            return x.mul_(2)

    frozen, dense, start = Frozen(), L.Dense(3), keras.Input(SHAPE)
    model = keras.Model(start, dense(L.GlobalAveragePooling2D()(frozen(start))))
    backend, x = cfcam_tensorflow.open_model(model), batch(2, *SHAPE)
    maps = frozen.base(x)
    wanted = gradient(lambda x: dense((2 * x).mean((1, 2))), maps, [1, 1])
    for mode in (nullcontext(), torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            capture = backend.capture(torch.tensor(x), layer="inside", target=1)
            assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        close(capture.activations, first(maps))
        close(capture.gradients, first(wanted))


if ENGINE == "torch":
    test_modes = modes_of_the_caller_and_of_the_model


def test_targets_on_raw_outputs() -> None:
    start = keras.Input(SHAPE)
    body, classes = L.Conv2D(6, 3, activation="tanh", name="body"), L.Conv2D(4, 1, name="classes")
    model, x = keras.Model(start, classes(body(start))), batch(2, *SHAPE)
    backend = cfcam_tensorflow.open_model(model)
    wanted = gradient(lambda x: ops.sum(classes(x), axis=(1, 2)), body(x), [2, 2])
    for target in (
        lambda raw: ops.sum(raw[..., 2]),
        lambda raw: ops.sum(raw[..., 2], axis=(1, 2)),
    ):
        capture = backend.capture(x, layer="body", target=target)
        close(capture.gradients, first(wanted))
        assert capture.scores is None


def test_masks_stay_on_what_is_tapped() -> None:
    start = keras.Input((12, 3))
    y = L.LSTM(4, return_sequences=True)(L.Masking(name="masked")(start))
    model, x = keras.Model(start, L.Dense(3)(L.LSTM(5)(y))), batch(2, 12, 3)
    x[0, 8:] = 0
    backend = cfcam_tensorflow.open_model(model, example=x)
    capture = backend.capture(x, layer="masked", target=1)
    close(capture.scores, value(model(x)))
    assert not capture.gradients[0, :, 8:].any()
    assert capture.gradients[1, :, 8:].any()
    close(backend.scores_from(capture.activations, x, layer="masked"), capture.scores)


def test_whole_numbers_into_a_model_that_does_not_say_what_it_takes() -> None:
    model, x = Subclassed(), np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(1, *SHAPE)
    backend = cfcam_tensorflow.open_model(model, example=x)
    floats = backend.capture(x.astype(np.float32), layer="twice")
    close(backend.capture(x, layer="twice").activations, floats.activations)


def test_an_activation_within_a_layer() -> None:
    start = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, name="maps")(start))
    plain = keras.Model(start, L.Dense(3)(y))
    model = keras.Model(start, L.Lambda(keras.activations.softmax)(plain.outputs[0]))
    backend, x = cfcam_tensorflow.open_model(model), batch(2, *SHAPE)
    looked_through = ENGINE != "jax"  # where Keras' note of the logits is lost
    assert backend.logits_behind == (("softmax",) if looked_through else ())
    close(backend.capture(x).scores, value((plain if looked_through else model)(x)))


def test_a_raw_model_is_tried_once_and_let_go() -> None:
    net, x = Net(), batch(2, *SHAPE)
    runs: list[int] = []

    class Counted(L.Layer):
        def call(self, x: Any) -> Any:
            runs.append(1)
            return x

    start = keras.Input(SHAPE)
    model = keras.Model(start, net.model(Counted()(start)))
    counts, found = [], []
    for _ in range(3):
        runs.clear()
        found.append(cfcam_tensorflow.open_model(model).capture(x))
        counts.append(len(runs))
    assert counts[0] > counts[1] == counts[2]
    close(found[2].gradients, found[0].gradients)
    closing = net.model.layers[-1]
    closing.activation = keras.activations.sigmoid  # is looked through, as the softmax was
    runs.clear()
    close(cfcam_tensorflow.open_model(model).capture(x).scores, found[0].scores)
    assert len(runs) > counts[2]
    watched = [weakref.ref(one) for one in (model, net.model, net.stem)]
    del model, net, closing, start
    keras.backend.clear_session()
    gc.collect()
    assert [one() for one in watched] == [None, None, None]

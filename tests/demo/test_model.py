import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cfcam_core.demo.shipped import MODEL, load_scenes

EXAMPLE = Path(__file__).parents[2] / "examples" / "digit_scenes"
MODULES = ("scenes", "network", "train")


@pytest.fixture
def example(monkeypatch):
    """Import a script of the example, and forget it afterwards."""
    monkeypatch.syspath_prepend(EXAMPLE)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__
    for name in MODULES:
        sys.modules.pop(name, None)


def session(path_or_bytes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path_or_bytes, options, providers=["CPUExecutionProvider"])


def test_the_file_is_small_valid_and_says_how_it_was_made():
    assert MODEL.stat().st_size < 1_000_000
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 17)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, given.name) == ("image", "logits")
    batch, *rest = taken.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [dim.dim_value for dim in rest] == [1, 64, 64]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["classes"] == "0,1,2,3,4,5,6,7,8,9"
    assert said["training"] == "python examples/digit_scenes/train.py"
    assert said["seed"] == "0"
    assert (EXAMPLE / "train.py").is_file()


def test_it_is_right_about_fresh_scenes_of_held_out_digits(example):
    scenes = example("scenes")
    fresh = scenes.make_scenes(500, scenes.split_digits()[1], seed=99)
    (logits,) = session(MODEL).run(None, {"image": np.float32(fresh.images[:, None]) / 255})
    right = (logits > 0) == (scenes.multi_hot(fresh.labels) > 0)
    assert right.mean() > 0.985
    assert right.all(axis=1).mean() > 0.9


def test_it_tells_the_same_about_a_scene_alone_and_in_a_batch():
    images = np.float32(load_scenes().images[:, None]) / 255
    run = session(MODEL).run
    alone = np.concatenate([run(None, {"image": image[None]})[0] for image in images])
    np.testing.assert_allclose(run(None, {"image": images})[0], alone, atol=1e-4)


def test_training_is_repeatable_and_learns(example, request):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    train, scenes = example("train"), example("scenes")
    few = scenes.make_scenes(64, scenes.split_digits()[0], seed=0)
    plan = train.Plan(scenes=64, epochs=8, batch=32, rate=2e-3)
    models = [train.to_onnx(train.train(few, plan), {}) for _ in range(2)]
    assert models[0].SerializeToString() == models[1].SerializeToString()
    assert train.largest_difference(*models) == 0
    shipped = onnx.load(MODEL)
    assert train.largest_difference(models[0], shipped) > 0
    blind = train.to_onnx(train.train(few, train.Plan(scenes=64, epochs=1, batch=64)), {})
    assert _loss(models[0], few, scenes) < _loss(blind, few, scenes)


def _loss(model, drawn, scenes):
    images = np.float32(drawn.images[:, None]) / 255
    (logits,) = session(model.SerializeToString()).run(None, {"image": images})
    signs = 1 - 2 * scenes.multi_hot(drawn.labels)
    return np.logaddexp(0, signs * logits).mean()


def test_the_onnx_file_computes_what_the_module_computes(example):
    network = example("network")
    torch.manual_seed(0)
    module = network.Network()
    images = torch.rand(8, 1, 64, 64)
    module(images)  # in training mode, so that the normalisation has something to fold
    module.eval()
    exported = network.to_onnx(module, {"a": "b"})
    with torch.no_grad():
        wanted = module(images).numpy()
    got = session(exported.SerializeToString()).run(None, {"image": images.numpy()})[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5)

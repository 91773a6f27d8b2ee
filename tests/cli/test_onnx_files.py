"""The command line on real ``.onnx`` files: one made here, and a pretrained one on photographs."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cfcam_core


@pytest.fixture
def onnx_file(tmp_path):
    """Make a colour classifier: convolution, ReLU, pooling, a last step; class k likes band k."""
    return partial(make_colours, tmp_path / "colours.onnx")


def make_colours(path, last_step, kind=TensorProto.FLOAT):
    kernel = np.zeros((6, 3, 3, 3), np.float32)
    for k in range(6):
        kernel[k, k % 3, 1, 1] = 1
    head = np.tile(np.eye(3, dtype=np.float32), (2, 1))
    cast = [helper.make_node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT)]
    pixels = "x" if kind == TensorProto.FLOAT else "pixels"
    nodes = [
        *(cast if pixels == "pixels" else []),
        helper.make_node("Conv", [pixels, "kernel"], ["conv"], pads=[1, 1, 1, 1], strides=[4, 4]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"]),
        helper.make_node(last_step, ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", kind, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(head, "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def test_layers_and_maps_of_an_onnx_file(cfcam, onnx_file, photo, tmp_path):
    model = onnx_file("Softmax")
    listed = cfcam("layers", model)
    assert [line.split()[1] for line in listed.stdout.splitlines()][1:] == ["conv", "features"]
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    done = cfcam(
        *("explain", photo(), "--model", model, "--labels", "names.txt"),
        *("--target", "red", "--preprocess", "unit", "--method", "grad-cam"),
    )
    assert done.returncode == 0, done.stderr
    assert "  0 red  " in done.stdout
    explanation = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    row, column = np.unravel_index(explanation.heatmaps[0].argmax(), (32, 32))
    assert 4 <= row < 13  # the photo's red square: rows 5 to 15 of 40, columns 40 to 55 of 60
    assert 21 <= column < 30
    logits = explanation.scores[0]
    share = np.exp(logits)[0] / np.exp(logits).sum()
    assert f"{share:.1%}" in done.stdout


def test_another_output_and_several_layers(cfcam, onnx_file, photo, tmp_path):
    model = onnx_file("Softmax")
    several = ("--layer", "0", "--layer", "features", "--layer", "input")
    done = cfcam("explain", photo(), "--model", model, "--output", "flat", *several)
    assert done.returncode == 0, done.stderr
    assert "input 3 x 32 x 32, output flat, preprocess imagenet" in done.stderr
    explanation = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    assert explanation.layer == "conv + features + x"
    assert explanation.scores.shape == (1, 6)
    assert cfcam("layers", model, "--output", "flat").returncode == 0
    done = cfcam("layers", model, "--output", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the model has no output 'nope'; it has probabilities" in done.stderr


def test_tokens_are_laid_over_the_picture(cfcam, photo, tmp_path):
    """Patches of 4 x 4 behind a class token; the class is how red they are on the whole."""
    rng = np.random.default_rng(0)
    patches = np.zeros((3, 3, 4, 4), np.float32)
    patches[range(3), range(3)] = 1 / 16
    weights = {
        "patches": patches,
        "rows": np.array([0, 3, 64]),
        "token": rng.standard_normal((1, 1, 3)).astype(np.float32),
        "front": np.array([1]),
        "end": np.array([65]),
        "head": np.eye(3, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "patches"], ["map"], strides=[4, 4]),
        helper.make_node("Reshape", ["map", "rows"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["patch_tokens"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["token", "patch_tokens"], ["all"], axis=1),
        helper.make_node("Relu", ["all"], ["tokens"]),
        helper.make_node("MatMul", ["tokens", "head"], ["mixed"]),
        helper.make_node("Slice", ["mixed", "front", "end", "front"], ["last"]),
        helper.make_node("ReduceMean", ["last"], ["scores"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "tokens.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    done = cfcam(
        *("explain", photo(), "--model", path, "--target", "0", "--layer", "tokens"),
        *("--preprocess", "unit", "--method", "grad-cam"),
    )
    assert done.returncode == 0, done.stderr
    explanation = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz")
    assert explanation.maps.shape == (1, 8, 8)
    row, column = np.unravel_index(explanation.heatmaps[0].argmax(), (32, 32))
    assert 4 <= row < 13  # the photo's red square, as above
    assert 21 <= column < 30


def test_a_model_of_bytes_gets_the_pixels(cfcam, onnx_file, tmp_path):
    picture = np.random.default_rng(0).integers(0, 65536, (50, 70, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), picture)
    done = cfcam("explain", "deep.png", "--model", onnx_file("Softmax", TensorProto.UINT8))
    assert done.returncode == 0, done.stderr
    assert "preprocess raw" in done.stderr
    scores = cfcam_core.Explanation.load(tmp_path / "cfcam-out/deep.cfcam.npz").scores
    assert 90 < scores.mean() < 2 * 165


def test_a_sigmoid_head_shows_sigmoids(cfcam, onnx_file, photo, tmp_path):
    done = cfcam("explain", photo(), "--model", onnx_file("Sigmoid"), "--target", "1")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split()[3] == "sigmoid"
    logit = cfcam_core.Explanation.load(tmp_path / "cfcam-out/photo.cfcam.npz").scores[0, 1]
    assert f"  {logit:.3f}  " in row
    assert f"  {1 / (1 + np.exp(-logit)):.1%}  " in row


def test_a_broken_onnx_file_is_one_line(cfcam, onnx_file, photo):
    model = onnx_file("Softmax")
    model.write_bytes(model.read_bytes()[:50])
    done = cfcam("explain", photo(), "--model", model)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.real
def test_a_pretrained_model_on_photographs(cfcam, tmp_path, real_data):
    done = cfcam(
        *("explain", real_data / "images/elephant.jpg", real_data / "images/zebra.jpg"),
        *("--model", real_data / "models/squeezenet1_1_fp16.onnx", "--preprocess", "caffe"),
        *("--labels", real_data / "imagenet_classes.json"),
    )
    assert done.returncode == 0, done.stderr
    _, elephant, zebra = done.stdout.splitlines()
    assert "386 African elephant" in elephant
    assert "340 zebra" in zebra
    heatmap = cfcam_core.Explanation.load(tmp_path / "cfcam-out/elephant.cfcam.npz").heatmaps[0]
    on_the_animal = heatmap[40:185, 30:150].sum() / heatmap.sum()
    assert on_the_animal > 0.6

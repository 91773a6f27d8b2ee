"""Every gradient rule by itself: <J v, u> = <v, J' u>, J v being what onnxruntime itself computes.

For operators that are affine in the input, J v is f(x + v) - f(x), with no step to choose; for
the others it is a central difference, taken where no kink is near. A case runs with all sizes
fixed, with an open batch, and with all sizes but the channels open; in the oldest and the newest
operator set that take it, and in its own. The cases are in ``tests/helpers/rule_cases.py``.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np
import onnx
import pytest
from cfcam_onnx._graph import Graph
from cfcam_onnx._model import LEAST_OPSET, prepare
from cfcam_onnx._probe import is_incomplete, probe
from cfcam_onnx._programs import COTANGENT, EXPLAIN_TOP, GRADIENT, gradient_program
from cfcam_onnx._rules import INTEGER_ARITHMETIC, RULES, ZERO_GRADIENT, rule
from cfcam_onnx._session import Session
from onnx import TensorProto, helper, numpy_helper
from rule_cases import ALL, CASES, REFUSED, Case, affine, ints, smooth

from cfcam_core import InvalidInputError, UnsupportedOpError


def newest_opset() -> int:
    """Return the newest operator set that the installed onnxruntime runs."""
    kind = helper.make_tensor_value_info
    for opset in range(onnx.defs.onnx_opset_version(), OLDEST, -1):
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [kind("x", TensorProto.FLOAT, [1])],
            [kind("y", TensorProto.FLOAT, [1])],
        )
        opsets = [helper.make_opsetid("", opset)]
        try:
            Session(helper.make_model(graph, opset_imports=opsets, ir_version=10))
        except InvalidInputError:
            continue
        return opset
    raise AssertionError


OLDEST = 7
NEWEST = newest_opset()


def one_operator(case: Case, sizes: str, opset: int | None = None) -> onnx.ModelProto:
    """Return a model: input times one ("a"), then the operator, its outputs strung together."""
    constants = [
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(ints(1, -1), "row"),
    ]
    names, others = [], list(case.others)
    for i in range(len(others) + 1):
        if i == case.at:
            names.append("a")
            continue
        value = others.pop(0)
        names.append("" if value is None else f"other{i}")
        if value is not None:
            constants.append(numpy_helper.from_array(np.asarray(value), f"other{i}"))
    outputs = [f"y{i}" for i in range(case.outputs)]
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["a"]),
        helper.make_node(case.op, names, outputs, **case.attrs),
    ]
    for y in outputs:
        nodes.append(helper.make_node("Cast", [y], [f"{y}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Reshape", [f"{y}_float", "row"], [f"{y}_row"]))
    nodes.append(helper.make_node("Concat", [f"{y}_row" for y in outputs], ["z"], axis=1))
    dims: list[Any] = list(case.shape)
    if sizes == "batch":
        dims[0] = "N"
    elif sizes == "open":
        dims = [d if i == 1 else f"d{i}" for i, d in enumerate(dims)]
    graph = helper.make_graph(
        nodes,
        "one_operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, None])],
        constants,
    )
    opset = opset or case.opset
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(10, 8 + (opset > 18)))


def takes(case: Case, opset: int) -> bool:
    """Return whether the case is valid in an operator set."""
    try:
        onnx.checker.check_model(one_operator(case, "fixed", opset), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def opsets_of(case: Case) -> list[int]:
    """Return the oldest and the newest operator set that take the case.

    Its own as well, unless that is what the oldest is converted to.
    """
    starts = sorted({max(s.since_version, case.since) for s in SCHEMAS if s.name == case.op})
    ends = [*(v - 1 for v in starts[1:]), min(NEWEST, case.until)]
    before = takewhile(lambda v: takes(case, v), (v for v in starts[::-1] if v < case.opset))
    after = (v for v in ends if case.opset <= v <= min(NEWEST, case.until))
    oldest = min(before, default=case.opset)
    newest = max(takewhile(lambda v: takes(case, v), after), default=case.opset)
    return sorted({oldest, newest} | ({case.opset} if oldest >= LEAST_OPSET else set()))


SCHEMAS = [s for s in onnx.defs.get_all_schemas_with_history() if not s.domain]
EVERY = [(case, n) for case in CASES if case.opset <= NEWEST for n in opsets_of(case)]


def away_from_kinks(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Return values no two of which, and no sum of which with a kink, lie within the step."""
    count = int(np.prod(case.shape))
    return rng.permutation(np.linspace(*case.span, count)).reshape(case.shape)


@pytest.mark.parametrize(("case", "opset"), EVERY, ids=str)
@pytest.mark.parametrize("sizes", ALL)
def test_adjoint(case: Case, opset: int, sizes: str) -> None:
    if sizes not in case.sizes:
        with pytest.raises(NotImplementedError):
            gradient_program(Graph(prepare(one_operator(case, sizes, opset))), "z", ["a"])
        return
    rng = np.random.default_rng(3)
    graph = Graph(prepare(one_operator(case, sizes, opset)))
    if sizes == "fixed" and is_incomplete(graph):
        probe(graph, ["z"], threads=1)
    session = Session(gradient_program(graph, "z", ["a"]), threads=1)
    x = away_from_kinks(case, rng)

    def run(at: np.ndarray, cotangent: np.ndarray) -> list[np.ndarray]:
        seed = {graph.own(COTANGENT): cotangent, graph.own(EXPLAIN_TOP): np.array(False)}
        return [array.astype(np.float64) for array in session({"x": at.astype(np.float32), **seed})]

    forward = Session(one_operator(case, sizes, opset), threads=1)
    plain = forward({"x": x.astype(np.float32)})[0]
    for _ in range(2):  # by chance, an error can lie across one direction
        v = rng.uniform(-1, 1, case.shape)
        u = rng.standard_normal(plain.shape).astype(np.float32)
        z, a, gradient = run(x, u)
        np.testing.assert_allclose(z, plain, rtol=1e-6, atol=1e-6)  # the model is not changed
        assert gradient.shape == a.shape == case.shape
        if case.kind == "affine":
            change = run(x + v, u)[0] - z
            tolerance = 2e-5
        else:
            step = 2e-3
            change = (run(x + step * v, u)[0] - run(x - step * v, u)[0]) / (2 * step)
            tolerance = 1e-3
        forwards, backwards = (change * u).sum(), (gradient * v).sum()
        scale = np.abs(change * u).sum() / np.sqrt(u.size) + np.linalg.norm(gradient) + 1e-3
        assert abs(forwards - backwards) < tolerance * scale, (forwards, backwards)


def test_the_first_axis_can_be_resized_where_it_is_no_open_batch() -> None:
    case = affine("Resize", (2, 3, 4), None, None, ints(5, 3, 4), mode="linear")
    test_adjoint(case, 17, "fixed")


@pytest.mark.parametrize(("case", "reason"), REFUSED.items(), ids=str)
def test_refused(case: Case, reason: str) -> None:
    """What has no gradient here says so, instead of returning a wrong one."""
    with pytest.raises(UnsupportedOpError, match=f"{case.op} .*: .*{reason}"):
        gradient_program(Graph(prepare(one_operator(case, "fixed"))), "z", ["a"])


def gradient_at(case: Case, x: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of all that the operator returns."""
    session = Session(gradient_program(Graph(prepare(one_operator(case, "fixed"))), "z", ["a"]))
    rows = np.ones((1, Session(one_operator(case, "fixed"))({"x": x})[0].size), np.float32)
    return session({"x": x, COTANGENT: rows, EXPLAIN_TOP: np.array(False)})[2]


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("others", [1, 2])
def test_operands_that_tie_share(op: str, others: int) -> None:
    x = np.array([[1, 2, 3]], np.float32)
    case = smooth(op, (1, 3), *[x] * others)
    np.testing.assert_allclose(gradient_at(case, x), np.full_like(x, 1 / (1 + others)))


@pytest.mark.parametrize("op", ["LpNormalization", "ReduceL2"])
def test_a_vector_of_zeros_has_a_finite_gradient(op: str) -> None:
    x = np.array([[0, 0], [3, 4]], np.float32)
    how = {"axis": 1} if op == "LpNormalization" else {"axes": [1]}
    zero, other = gradient_at(smooth(op, (2, 2), **how), x)
    np.testing.assert_array_equal(zero, 0)
    wanted = [0.6, 0.8] if op == "ReduceL2" else [0.2 - 0.6 * 0.28, 0.2 - 0.8 * 0.28]
    np.testing.assert_allclose(other, wanted, rtol=1e-5)


def test_a_product_with_zeros_among_its_factors() -> None:
    x = np.array([[2, 3, 5], [2, 0, 5], [0, 3, 0]], np.float32)
    found = gradient_at(smooth("ReduceProd", (3, 3), axes=[1]), x)
    np.testing.assert_allclose(found, [[15, 10, 6], [0, 10, 0], [0, 0, 0]])


def test_a_power_whose_base_is_not_positive() -> None:
    """With respect to the exponent there is no slope there, or none that anybody could use."""
    base, exponent = np.array([2, 0, 0, 0, -2, -2], "f"), np.array([2, 2, 0, -1, 2, 1.5], "f")
    found = gradient_at(smooth("Pow", (6,), base, at=1), exponent)
    np.testing.assert_allclose(found, [4 * np.log(2), 0, 0, 0, 0, 0], rtol=1e-6)
    base = np.array([2, 0, 0, 0, -2, -2], "f")
    exponent = np.array([3, 2, 1, 0, 3, 0], "f")
    found = gradient_at(smooth("Pow", (6,), exponent), base)
    np.testing.assert_allclose(found, [12, 0, 1, 0, 12, 0], rtol=1e-6)


def test_an_output_without_a_name_is_refused() -> None:
    """Its size is not known; onnxruntime crashes on such a Split, so that it is not run here."""
    graph = Graph(prepare(one_operator(affine("Split", (2, 6), axis=1, outputs=2), "fixed")))
    split, reader = (next(n for n in graph.nodes if n.op_type == op) for op in ("Split", "Cast"))
    reader.input[0], split.output[0] = split.output[1], ""
    with pytest.raises(UnsupportedOpError, match=r"Split .*: an output without a name"):
        gradient_program(graph, "z", ["a"])


def test_every_rule_has_a_case() -> None:
    """Those of quantisation, which is not what its gradient says, are in ``test_quantized.py``."""
    assert set(RULES) - {"QuantizeLinear", "DequantizeLinear"} == {case.op for case in CASES} - {
        *("Attention", "CenterCropPad", "RotaryEmbedding"),  # written out
        *("Scatter", "Upsample"),  # under another name since operator set 10 or 11
    }


def test_rules_name_real_operators() -> None:
    assert all(onnx.defs.has(name) for name in {*RULES, *ZERO_GRADIENT, *INTEGER_ARITHMETIC})


def test_a_second_rule_for_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="Conv has a gradient rule already"):
        rule("Conv")(lambda *_: [])
    with pytest.raises(ValueError, match="Floor has a gradient rule already"):
        rule("Floor")(lambda *_: [])


def test_an_operator_set_that_cannot_add_up_is_refused() -> None:
    """Models that cannot be converted keep theirs; what does not overlap works all the same."""
    for stride, works in ((2, True), (1, False)):
        how = {"kernel_shape": [2, 2], "strides": [stride, stride]}
        model = one_operator(smooth("MaxPool", (1, 2, 4, 4), opset=13, **how), "fixed")
        graph = Graph(onnx.shape_inference.infer_shapes(model))
        if works:
            assert Session(gradient_program(graph, "z", ["a"]))
        else:
            with pytest.raises(NotImplementedError, match="adding up needs operator set 16"):
                gradient_program(graph, "z", ["a"])


def test_outputs_are_logits_activations_gradients() -> None:
    program = gradient_program(Graph(prepare(one_operator(CASES[0], "fixed"))), "z", ["a"])
    assert [output.name for output in program.graph.output] == ["z", "a", f"{GRADIENT}_0"]

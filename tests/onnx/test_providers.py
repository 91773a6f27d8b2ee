"""What runs a model: chosen, named, and said when it is not what was asked for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from cfcam_onnx._session import Session, default_providers
from whole_models import images, opened

from cfcam_core import InvalidInputError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def session(small: Any) -> Session:
    return Session(opened(small())._sessions.program("gradient", "stem", "last"), threads=1)


def feeds_of(x: np.ndarray) -> dict[str, np.ndarray]:
    cotangents = np.random.default_rng(1).standard_normal((len(x), 5)).astype(np.float32)
    return {"x": x, "cfcam/cotangent": cotangents, "cfcam/explain_top": np.array(False)}


def test_a_bound_run_gives_what_a_plain_run_gives(small: Any, session: Session) -> None:
    program = opened(small())._sessions.program("gradient", "stem", "last")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    plain = ort.InferenceSession(program.SerializeToString(), options, providers=[CPU])
    for samples in (1, 3, 2):
        feeds = feeds_of(images(samples, 3, 12, 10))
        bound = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        wanted = plain.run(None, feeds)
        for given in (feeds, bound, feeds | {"x": bound["x"]}):
            found = session(given)
            assert len(found) == len(wanted) == 5
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype


@pytest.mark.parametrize("place", [np.asarray, ort.OrtValue.ortvalue_from_numpy])
def test_results_outlive_the_next_run(session: Session, place: Any) -> None:
    first = session({name: place(a) for name, a in feeds_of(images(2, 3, 12, 10)).items()})
    kept = [array.copy() for array in first]
    for _ in range(3):
        session({name: place(a) for name, a in feeds_of(images(2, 3, 12, 10)).items()})
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_arrays_in_any_order_of_memory(session: Session) -> None:
    x = images(2, 3, 12, 10)
    wanted = session(feeds_of(x))
    bound = {"cfcam/explain_top": ort.OrtValue.ortvalue_from_numpy(np.array(False))}
    for turned in (np.asfortranarray(x), x[:, :, ::-1].copy()[:, :, ::-1]):
        for others in ({}, bound):
            found = session(feeds_of(x) | others | {"x": turned})
            np.testing.assert_array_equal(found[1], wanted[1])


def test_inputs_are_placed_once_for_both_runs(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[Any] = []
    fed: list[Any] = []
    place, call = Session.placed, Session.__call__

    def counted(self: Session, arrays: Any) -> Any:
        given = place(self, arrays)
        placed.append({n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in given.items()})
        return placed[-1]

    def recorded(self: Session, feeds: Any, **how: Any) -> Any:
        fed.append(feeds["x"])
        return call(self, feeds, **how)

    backend, x = opened(small()), images()
    wanted = backend.capture(x, target=lambda scores: scores.argmin(axis=1))
    monkeypatch.setattr(Session, "placed", counted)
    monkeypatch.setattr(Session, "__call__", recorded)
    capture = backend.capture(x, target=lambda scores: scores.argmin(axis=1))
    np.testing.assert_array_equal(capture.gradients, wanted.gradients)
    assert len(placed) == 1
    assert len(fed) == 2
    assert all(value is placed[0]["x"] for value in fed)


def test_a_gpus_memory_is_where_inputs_go(session: Session, monkeypatch: Any) -> None:
    """As a GPU would be used, told from a stand-in: none is needed."""
    made: list[tuple[str, int]] = []
    x = np.zeros(2)

    def stand_in(array: np.ndarray, where: str, number: int) -> str:
        made.append((where, number))
        return "placed"

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", stand_in)
    assert session.placed({"x": x})["x"] is x
    monkeypatch.setattr(Session, "providers", (CUDA, CPU))
    monkeypatch.setattr(
        session._session, "get_provider_options", lambda: {CUDA: {"device_id": "1"}, CPU: {}}
    )
    assert session.placed({"x": x}) == {"x": "placed"}
    assert made == [("cuda", 1)]


def test_wrong_feeds_are_refused(session: Session) -> None:
    feeds = feeds_of(images(2, 3, 12, 10))
    for wrong in (
        {"x": feeds["x"].astype(np.float64)},
        {"x": feeds["x"][:, :2]},
        {"cfcam/cotangent": feeds["cfcam/cotangent"][:, :3]},
    ):
        with pytest.raises(InvalidInputError, match="could not run the model on inputs of shape"):
            session(feeds | wrong)
    with pytest.raises(InvalidInputError, match="could not run the model"):
        session({"x": feeds["x"]})
    bound = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feeds["x"][:, :2]))
    with pytest.raises(InvalidInputError, match=r"\(2, 2, 12, 10\)"):
        session(feeds | {"x": bound})


def test_what_really_runs_is_said(small: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(small(), providers=[CPU]).providers == (CPU,)
        assert opened(small()).providers[-1] == CPU
        assert opened(small(), providers=[(CPU, {"arena_extend_strategy": "kSameAsRequested"})])


def test_a_provider_that_does_not_start_is_warned_of(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime falls back to the CPU without a word where CUDA's libraries are missing."""
    real = ort.InferenceSession

    def fallen_back(*arguments: Any, providers: Any, **how: Any) -> Any:
        return real(*arguments, providers=[CPU], **how)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", fallen_back)
    for asked in ([CUDA], [CUDA, CPU], [(CUDA, {"device_id": 0})]):
        backend = opened(small(), providers=asked)
        with pytest.warns(UserWarning, match=f"could not start {CUDA} and runs the model on {CPU}"):
            backend.scores(images())
        assert backend.providers == (CPU,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody asked for it
        assert opened(small()).capture(images()).scores is not None


def test_cuda_is_chosen_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["Other", CPU, CUDA])
    assert default_providers() == [CUDA, CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    assert default_providers() == [CPU]


@pytest.mark.parametrize("providers", ["CPUExecutionProvider", 5])
def test_providers_that_are_no_list(providers: Any, small: Any) -> None:
    with pytest.raises(InvalidInputError, match="pass a list of names, out of"):
        opened(small(), providers=providers)


@pytest.mark.parametrize("output", [1, ["z"]])
def test_an_output_that_is_no_name(output: Any, small: Any) -> None:
    with pytest.raises(InvalidInputError, match="pass a name, one of"):
        opened(small(), output=output)

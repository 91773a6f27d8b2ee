import csv
import importlib
import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.cam import Cam
from cfcam_core.evaluation import (
    PERTURBATIONS,
    Perturbation,
    bootstrap,
    chance_overlap,
    compare_ranks,
    plan_robustness,
    protocol,
    rank_biased_overlap,
    robustness,
    robustness_of_image,
)
from cfcam_core.evaluation.journal import dumps
from cfcam_core.evaluation.robustness import gather

table = importlib.import_module("cfcam_core.methods")  # cfcam_core.methods is its function

CLEAN = np.array([[0.9, 0.5], [0.3, 0.1]])
SWAPPED = np.array([[0.5, 0.9], [0.3, 0.1]])
TURNED = np.array([[0.1, 0.2], [0.3, 0.9]])
HEADS = np.array([[[[1, 1], [1, 1]]], [[[0, 0], [0, 8]]]])
"""Logits (1.8, .8) of CLEAN, (1.8, .8) of SWAPPED, (1.5, 7.2) of TURNED; Grad-CAM's map is x."""


def becomes(name, *pictures):
    """Return a perturbation that puts a fixed picture in place of any."""
    return Perturbation(
        name, lambda x, level, rng: pictures[level][..., None], (0, 1)[: len(pictures)]
    )


FIXED = becomes("fixed", SWAPPED, TURNED)


def measured(images=CLEAN[None, None], **choices):
    choices = {"methods": ("grad-cam",), "grid": 2, "p": 0.5, "severities": (1, 2)} | choices
    return robustness(Linear(HEADS), images, perturbations=(FIXED,), **choices)


@pytest.fixture
def register(monkeypatch):
    """Return what adds a method for one test."""

    def add(name, function, **kind):
        monkeypatch.setitem(table._TABLE, name, table.Method(function, "test", **kind))

    return add


def noisy_run(count=6, **choices):
    """Measure random linear models, where classes often change."""
    rng = np.random.default_rng(0)
    model = Linear(rng.normal(size=(5, 2, 8, 9)))
    images = rng.random((count, 2, 8, 9)).astype(np.float32)
    choices = {
        "methods": ("grad-cam", "hires-cam"),
        "perturbations": ("gaussian", "poisson"),
    } | choices
    return robustness(model, images, **choices)


def test_by_hand():
    """Orders (0 1 2 3) and (1 0 2 3): .5 at p = .5; and (3 2 1 0): 5/24."""
    found = measured()
    (score,) = found.scores
    assert score.consistency == pytest.approx(0.5)
    assert score.responsiveness == pytest.approx(19 / 24)
    assert score.robustness == pytest.approx(19 / 48)
    assert (score.same, score.changed, score.degenerate, score.few) == (1, 1, 0, True)
    assert list(found.pairs.rows()) == [
        ("grad-cam", 0, "fixed", 1, True, pytest.approx(0.5), False),
        ("grad-cam", 0, "fixed", 2, False, pytest.approx(5 / 24), False),
    ]
    assert found.segments == (4,)


def test_each_map_explains_its_own_prediction():
    """HiResCAM's map of TURNED for class 1 is a single pixel; for class 0 it would be x."""
    found = measured(methods=("hires-cam",), similarity="cosine")
    dot = np.array([0, 0, 0, 1])
    wanted = CLEAN.ravel() @ dot / np.linalg.norm(CLEAN)
    assert found.pairs.similarity[1] == pytest.approx(wanted, rel=1e-5)


def test_segments_are_averaged():
    """The rows' means are (.7, .2), (.7, .2) and (.15, .6), up to each map's peak."""
    found = measured(segments=np.array([[5, 5], [8, 8]]))
    assert found.segments == (2,)
    assert found.pairs.similarity.tolist() == [1, rank_biased_overlap("ab", "ba", p=0.5)]


def test_segments_of_each_picture():
    labels = np.array([[[0, 1], [2, 3]], [[0, 0], [1, 1]]])
    found = measured(np.stack([CLEAN, CLEAN])[:, None], segments=labels)
    assert found.segments == (4, 2)
    assert found.pairs.similarity.tolist() == pytest.approx([0.5, 5 / 24, 1, 0.5])
    with pytest.raises(cfcam.InvalidInputError, match="for 2 pictures, none for 2"):
        measured(np.stack([CLEAN] * 3)[:, None], segments=labels)


def test_a_constant_map_is_consistent_and_never_responds(register):
    register("constant", lambda A, G, s: Cam(np.ones(A.shape[1:]), np.zeros(len(A))))
    (score,) = noisy_run(60, methods=("constant",)).scores
    assert (score.consistency, score.responsiveness, score.robustness) == (1, 0, 0)
    assert score.degenerate == 1
    assert min(score.same, score.changed) > 10


def test_one_constant_map_of_two_is_no_match(register):
    register("top", lambda A, G, s: Cam((A[0] > 0.85) * A[0], np.zeros(len(A))))
    flat = becomes("flat", np.array([[0.8, 0.6], [0.3, 0.1]]))
    found = robustness_quiet(
        Linear(HEADS), CLEAN[None, None], methods=("top",), perturbations=(flat,)
    )
    assert found.pairs.similarity.tolist() == [0]
    assert found.scores[0].degenerate == 1


def test_a_random_map_is_at_the_level_of_chance():
    segments = np.arange(72).reshape(
        8, 9
    )  # of equal size: larger ones have means nearer the middle
    found = noisy_run(60, methods=("random",), segments=segments, severities=(1, 3, 5))
    (score,) = found.scores
    level = chance_overlap(72, p=0.9)
    assert found.chance == pytest.approx(level)
    assert score.consistency == pytest.approx(level, abs=0.02)
    assert score.responsiveness == pytest.approx(1 - level, abs=0.02)


def robustness_quiet(*args, **choices):
    choices = {"grid": 2, "severities": (1,)} | choices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cfcam.UndefinedMeasureWarning)
        return robustness(*args, **choices)


@pytest.mark.parametrize(
    ("picture", "what", "same", "changed"), [(SWAPPED, "changed", 1, 0), (TURNED, "kept", 0, 1)]
)
def test_without_pairs_there_is_no_number(picture, what, same, changed):
    kind = becomes("fixed", picture)
    with pytest.warns(cfcam.UndefinedMeasureWarning, match=f"no perturbation {what} a prediction"):
        found = robustness(
            Linear(HEADS), CLEAN[None, None], perturbations=kind, severities=(1,), grid=2
        )
    for score in found.scores:
        assert (score.same, score.changed) == (same, changed)
        assert np.isnan(score.consistency) == (same == 0)
        assert np.isnan(score.responsiveness) == (changed == 0)
        assert np.isnan(score.robustness)
        assert score.few
    interval = found.bootstrap(draws=20)[0].robustness
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.undefined == 1


def test_a_picture_of_one_segment_is_dropped_and_counted():
    labels = np.array([[[0, 0], [0, 0]], [[0, 1], [2, 3]]])
    found = measured(np.stack([SWAPPED, CLEAN])[:, None], segments=labels)
    assert (found.images, found.dropped, found.segments) == (2, (0,), (4,))
    assert found.pairs.image.tolist() == [1, 1]
    assert found.scores[0].consistency == pytest.approx(0.5)
    with pytest.warns(cfcam.UndefinedMeasureWarning):
        nothing = measured(grid=1)
    assert (len(nothing.pairs), nothing.dropped) == (0, (0,))
    assert np.isnan(nothing.scores[0].robustness)
    assert "1 dropped" in str(nothing)
    (interval,) = nothing.bootstrap()
    assert np.isnan([interval.robustness.low, interval.robustness.high]).all()
    assert interval.robustness.undefined == 1


def test_a_score_that_is_not_finite_is_an_error():
    heads = HEADS.astype(float)
    heads[1, 0, 0, 0] = np.nan
    with pytest.raises(cfcam.InvalidInputError, match="not finite"):
        robustness(Linear(heads), CLEAN[None, None], perturbations=FIXED, severities=(1,))


def test_a_single_logit_has_two_classes_and_maps_speak_for_the_predicted_one():
    """The logit is x0 - x3: .8 of CLEAN, -.8 of TURNED, whose map is that of ``-logit``."""
    model = Linear(np.array([[[[1.0, 0], [0, -1]]]]))
    fixed = becomes("fixed", SWAPPED, TURNED)
    choices = {"methods": ("hires-cam",), "grid": 2, "similarity": "cosine", "severities": (1, 2)}
    found = robustness(model, CLEAN[None, None], perturbations=fixed, **choices)
    assert found.pairs.same.tolist() == [True, False]
    assert found.pairs.similarity.tolist() == pytest.approx([1, 0], abs=1e-6)
    nearly = np.array([[[[0.40, 0.5], [0.5, 0.45]]]])  # an attack raises the logit -.05 by 2 eps
    attacked = robustness(model, nearly, perturbations="fgsm", grid=2)
    wanted = [2 * level < 0.05 for level in PERTURBATIONS["fgsm"].levels]
    assert attacked.pairs.same[:5].tolist() == wanted


def test_attacks_turn_the_class_of_a_linear_model_exactly_when_eps_is_enough():
    """Logits 1.9 and 1.8 fall by 5 eps and 2 eps, which the slopes of the first decide."""
    heads = np.array([[[[2, 1], [1, 1]]], [[[0, 0], [0, 2]]]])
    picture = np.array([[[[0.3, 0.2], [0.2, 0.9]]]])
    wanted = [3 * level < 0.1 for level in PERTURBATIONS["fgsm"].levels]
    assert wanted == [True, True, True, True, False]
    found = robustness(Linear(heads), picture, perturbations=("fgsm", "pgd"), grid=2)
    for kind in ("fgsm", "pgd"):
        chosen = found.pairs.where((found.pairs.kind == kind) & (found.pairs.method == "grad-cam"))
        assert chosen.same.tolist() == wanted
    with pytest.raises(cfcam.InvalidInputError, match=r"no.*through a function"):
        robustness(
            Linear(heads), picture[:, 0], preprocess=lambda x: x[:, None], perturbations="fgsm"
        )


def test_methods_that_ask_the_model_and_settings_of_ones_own(register):
    register(
        "asking",
        lambda A, G, s, probe: table.find_method("grad-cam").function(A, G, s),
        asks_model=True,
    )
    plain_cf = cfcam.Settings(filter="none")
    found = noisy_run(
        methods={
            "asking": ("asking", None),
            "plain": ("grad-cam", None),
            "default": ("cf-cam", None),
            "unfiltered": ("cf-cam", plain_cf),
        }
    )
    asked, plain, default, other = (
        found.pairs.where(found.pairs.method == name).similarity for name in found.plan.methods
    )
    np.testing.assert_allclose(asked, plain)
    named = noisy_run(methods=("cf-cam",), settings=plain_cf).pairs.similarity
    np.testing.assert_array_equal(other, named)
    assert (other != default).any()


def test_a_method_gets_the_same_numbers_whatever_else_is_measured(monkeypatch):
    both, one = noisy_run(), noisy_run(methods=("hires-cam",), perturbations=("poisson",))
    chosen = (both.pairs.method == "hires-cam") & (both.pairs.kind == "poisson")
    for name, column in both.pairs.where(chosen).columns().items():
        np.testing.assert_array_equal(column, one.pairs.columns()[name])
    few = noisy_run(3)
    np.testing.assert_array_equal(
        few.pairs.similarity, both.pairs.where(both.pairs.image < 3).similarity
    )
    monkeypatch.setattr(protocol, "BATCH", 3)
    np.testing.assert_array_equal(noisy_run().pairs.similarity, both.pairs.similarity)


def test_seeds_and_severities_matter():
    same = {noisy_run(2, seed=seed).pairs.similarity.tobytes() for seed in (0, 1)}
    assert len(same) == 2
    found = noisy_run(30, perturbations=("gaussian",)).pairs
    stays = [found.same[found.severity == severity].mean() for severity in range(1, 6)]
    assert stays[0] > stays[-1]


def test_records_survive_json_and_any_order():
    rng = np.random.default_rng(0)
    model, images = Linear(rng.normal(size=(5, 2, 8, 9))), rng.random((6, 2, 8, 9)).astype("f")
    plan = plan_robustness(methods=("grad-cam", "hires-cam"), perturbations=("gaussian", "poisson"))
    records = [robustness_of_image(model, images[i], plan, index=i) for i in (4, 0, 5, 2, 1, 3)]
    again = gather([json.loads(dumps(record)) for record in records], plan)
    wanted = noisy_run()
    for name, column in wanted.pairs.columns().items():
        np.testing.assert_array_equal(column, again.pairs.columns()[name])
        assert column.dtype == again.pairs.columns()[name].dtype
        assert not column.flags.writeable
    assert again.scores == wanted.scores
    with pytest.raises(cfcam.InvalidInputError, match="wanted one each"):
        gather([*records, records[0]], plan)
    with pytest.raises(cfcam.InvalidInputError, match="at least one"):
        gather([], plan)
    with pytest.raises(cfcam.InvalidInputError, match="it is of another run"):
        gather(records, replace(plan, severities=(1,)))


def test_what_follows_from_the_pairs():
    found = noisy_run(12)
    pairs = found.pairs
    for score in found.scores:
        of = pairs.where(pairs.method == score.method)
        assert score.consistency == pytest.approx(of.similarity[of.same].mean())
        assert score.responsiveness == pytest.approx(1 - of.similarity[~of.same].mean())
        assert (score.same, score.changed) == (of.same.sum(), (~of.same).sum())
        assert score.few == (min(score.same, score.changed) < 30)
    kinds = found.by_perturbation()
    assert list(kinds) == ["gaussian", "poisson"]
    for m, score in enumerate(found.scores):
        parts = [kinds[kind][m] for kind in kinds]
        assert sum(part.same for part in parts) == score.same
        total = sum(part.same * part.consistency for part in parts)
        assert total / score.same == pytest.approx(score.consistency)
    each = found.per_image()
    assert each.shape == (12, 2)
    first = pairs.where((pairs.image == 0) & (pairs.method == "hires-cam") & pairs.same)
    assert each[0, 1] == pytest.approx(first.similarity.mean())
    assert compare_ranks(each, tuple(found.plan.methods)).names == ("grad-cam", "hires-cam")
    product = found.per_image("consistency") * found.per_image("responsiveness")
    np.testing.assert_array_equal(found.per_image("robustness"), product)
    text = io.StringIO()
    csv.writer(text).writerows([pairs.columns(), *pairs.rows()])
    assert text.getvalue().startswith("method,image,kind,severity,same,similarity,degenerate")
    assert len(text.getvalue().splitlines()) == len(pairs) + 1


def test_intervals_are_over_pictures():
    """With one pair a picture the interval is that of the mean of these pairs."""
    rng = np.random.default_rng(3)
    plan = plan_robustness(methods=("grad-cam",), perturbations=("gaussian",), severities=(1, 2, 3))
    stays = rng.random(20)

    def record(image, similarities):
        return {
            "image": image,
            "segments": 4,
            "class": 0,
            "method": ["grad-cam"] * 3,
            "kind": ["gaussian"] * 3,
            "severity": [1, 2, 3],
            "predicted": [0, 0, 1],
            "similarity": similarities,
            "degenerate": [False] * 3,
        }

    found = gather([record(i, [s, s, 0.25]) for i, s in enumerate(stays)], plan)
    (got,) = found.bootstrap(draws=500, seed=2)
    wanted = bootstrap(stays, draws=500, seed=2)
    assert got.consistency.low == pytest.approx(wanted.low)
    assert got.consistency.high == pytest.approx(wanted.high)
    assert (got.responsiveness.low, got.responsiveness.high) == pytest.approx((0.75, 0.75))
    assert got.robustness.high == pytest.approx(0.75 * wanted.high)


def test_the_text_says_p_and_marks_few_pairs():
    text = str(measured())
    assert "rbo, p = 0.5" in text
    assert "0.396*" in text
    assert "* fewer than 30 pairs of a kind" in text
    assert "p = " not in str(measured(similarity="ssim"))
    assert np.isnan(measured(similarity="ssim").chance)


def test_progress_is_told():
    told = []
    measured(np.stack([CLEAN, SWAPPED])[:, None], progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("similarity", ["rbo", "ssim", "spearman", "kendall", "cosine", "pearson"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_pictures_and_volumes_by_every_similarity(axes, similarity):
    rng = np.random.default_rng(axes)
    size = (6, 5, 7)[:axes]
    model = Linear(rng.normal(size=(4, 2, *size)))
    images = rng.random((4, 2, *size)).astype(np.float32)
    before = images.copy()
    found = robustness(model, images, methods=("hires-cam",), similarity=similarity, grid=3)
    np.testing.assert_array_equal(images, before)
    assert found.segments == (3**axes,) * 4
    assert np.isfinite(found.pairs.similarity).all()
    assert found.pairs.similarity.max() <= 1 + 1e-12


def test_photographs_by_quickshift():
    rng = np.random.default_rng(0)
    photos = np.clip(rng.random((2, 4, 4, 3)).repeat(16, 1).repeat(16, 2), 0, 1)
    model = Linear(rng.normal(size=(3, 3, 64, 64)))
    choices = {"preprocess": "imagenet", "segments": "quickshift", "perturbations": "gaussian"}
    found = robustness_quiet(model, photos, **choices)
    assert min(found.segments) > 1
    again = robustness_quiet(model, np.uint8(np.rint(255 * photos)), **choices)
    assert again.segments == found.segments


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"methods": ("no-cam",)}, "no method 'no-cam'"),
        ({"methods": ()}, "0 methods"),
        ({"methods": {"mine": "cf-cam"}}, "wanted its name and its settings"),
        ({"perturbations": ()}, "one or more of each"),
        ({"perturbations": ("gaussian", "gaussian")}, "no perturbation twice"),
        ({"perturbations": ("fog",)}, "no perturbation 'fog'"),
        ({"severities": (0,)}, "whole numbers from 1 to 5"),
        ({"severities": ()}, "severities"),
        ({"severities": 7}, "whole numbers from 1 to 5"),
        ({"severities": (1, 1)}, "none twice"),
        ({"seed": -1}, "seed=-1; wanted a whole number, 0 or more"),
        ({"seed": 1.5}, r"seed=1\.5; wanted a whole number, 0 or more"),
        ({"p": 1.5}, "p=1.5"),
        ({"similarity": "iou"}, "no similarity 'iou'"),
        ({"segments": "slic"}, "allowed are 'grid', 'quickshift'"),
        ({"segments": np.zeros((3, 3), int)}, r"wanted integers of shape \(8, 9\)"),
        ({"grid": 0}, "a grid of 0 cells"),
    ],
)
def test_refused(choices, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        noisy_run(1, **choices)

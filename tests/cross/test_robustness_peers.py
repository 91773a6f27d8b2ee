"""Rankings, structural similarity, noise against other libraries, where the maths is the same."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
from rbo import RankingSimilarity
from skimage.metrics import structural_similarity
from skimage.util import random_noise

from cfcam_core.evaluation import PERTURBATIONS, perturb, rank_biased_overlap, ssim


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("m", [1, 2, 7, 49, 200])
def test_rank_biased_overlap(m: int, p: float) -> None:
    """Theirs is for prefixes of any length; of whole rankings both extrapolate alike."""
    rng = np.random.default_rng(m)
    a = rng.permutation(m).tolist()
    for b in (rng.permutation(m).tolist(), a[::-1], [*a[1:], a[0]], a):
        theirs = RankingSimilarity(a, b).rbo_ext(p=p)
        assert rank_biased_overlap(a, b, p=p) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("size", [(40,), (11,), (24, 31), (11, 12), (12, 13, 15)])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim(size: tuple[int, ...], data_range: float) -> None:
    a, b = data_range * np.random.default_rng(0).random((2, *size), np.float32)
    theirs = structural_similarity(
        a.astype(float),
        (a + b).astype(float) / 2,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(a, (a + b) / 2, data_range=data_range) == pytest.approx(theirs, abs=1e-6)
    assert theirs < 0.9


@pytest.mark.parametrize("kind", ["gaussian", "speckle"])
@pytest.mark.parametrize("severity", [1, 5])
def test_noise(kind: str, severity: int) -> None:
    """From the same generator, the very same noise."""
    picture = np.random.default_rng(0).random((9, 8, 3))
    rng = np.random.default_rng((7, 2, crc32(kind.encode()), severity))
    spread = PERTURBATIONS[kind].levels[severity - 1]
    theirs = random_noise(picture, kind, rng=rng, var=spread**2)
    ours = perturb(picture, kind, severity, seed=7, index=2)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

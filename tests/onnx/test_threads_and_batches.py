"""Samples one by one, in batches and from many threads: the same answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from whole_models import CLOSE, images, opened

from cfcam_core import InvalidInputError


def test_a_batch_gives_what_its_samples_give(small: Any) -> None:
    backend, x = opened(small()), images()
    batch = backend.capture(x)
    for i in range(len(x)):
        single = backend.capture(x[i])  # without the batch axis
        np.testing.assert_allclose(single.gradients[0], batch.gradients[i], **CLOSE)
        np.testing.assert_allclose(single.scores[0], batch.scores[i], **CLOSE)


@pytest.mark.parametrize("fixed", [1, 2, 4])
def test_a_fixed_batch_takes_any_number_of_samples(small: Any, fixed: int) -> None:
    backend, x = opened(small(fixed, 3, 12, 10)), images(5, 3, 12, 10)
    wanted = opened(small()).capture(x, target=[0, 1, 2, 3, 4])
    capture = backend.capture(x, target=[0, 1, 2, 3, 4])
    assert backend.input_shape[0] == fixed
    np.testing.assert_allclose(capture.gradients, wanted.gradients, **CLOSE)
    np.testing.assert_allclose(backend.scores(x), wanted.scores, rtol=1e-5, atol=1e-6)
    tail = backend.scores_from(capture.activations, x)
    np.testing.assert_allclose(tail, wanted.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", ["N", 2])
def test_several_rows_of_a_sample_are_refused(net: Any, batch: Any) -> None:
    """Four parts of each picture are scored by themselves; none of them may pass for the whole."""
    n = net(batch, 3, 8, 8)
    parts = n.add("Reshape", n.add("Tanh", n.conv(n.x, 3, 4)), np.array([-1, 4, 4, 4]))
    backend = opened(n.model(n.head(parts, 4)))
    for samples in (2, 4):
        with pytest.raises(InvalidInputError, match=r"makes 8 rows of 2|makes 16 rows of 4"):
            backend.scores(images(samples, 3, 8, 8))


def test_many_threads_at_once(small: Any) -> None:
    backend, x = opened(small()), images()
    jobs = [(layer, k) for k in range(5) for layer in (None, "stem", "block", 0)]
    alone = [opened(small()).capture(x, layer=layer, target=k) for layer, k in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: backend.capture(x, layer=job[0], target=job[1]), jobs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.gradients, b.gradients)

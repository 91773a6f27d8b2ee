"""What a comparison comes to, in sentences, for its page and the command line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cfcam_core.evaluation.comparison import Comparison
from cfcam_core.evaluation.metrics import METRICS

BLIND = 0.99
"""Mean correlation of the maps of two classes from which a method is called class-blind (ours)."""

SEEN = 5e-4
"""Difference from which three digits show it."""


def summary(found: Comparison) -> str:
    """Say what was compared on what."""
    given = found.settings
    missing = len(found.failures)
    left_out = [name for name in METRICS if name not in found.metrics]
    more = f" Not measured: {', '.join(left_out)}." if left_out else ""
    return (
        f"Layer {given.get('layer') or 'chosen by the model'}, preprocessing "
        f"{given.get('preprocess')}, seed {given.get('seed')}, cfcam {given.get('cfcam')}. "
        f"{counted(len(found.images), 'image')} compared, {missing} failed.{more}"
    )


def headline(found: Comparison) -> Iterator[str]:
    """Say what to know first: class sensitivity, clear winners, and how far tests can go."""
    yield from _class_sensitivity(found)
    if len(found.methods) > 1:
        yield from _winners(found)
        yield from _alike(found)
    yield from _gaps(found)


def _class_sensitivity(found: Comparison) -> Iterator[str]:
    if "class-sensitivity" not in found.metrics:
        return
    means = found.means[:, found.metrics.index("class-sensitivity")]
    known = [m for m in np.argsort(means, kind="stable").tolist() if np.isfinite(means[m])]
    if not known:
        return
    marks = found.marks("class-sensitivity")
    tied = [found.methods[m] for m in known if marks[m] and m != known[0]]
    more = f"; not told apart from it: {', '.join(tied)}" if tied else ""
    if tied and len(tied) == len(found.methods) - 1:
        more = "; no other is told apart from it"
    yield (
        "Class sensitivity, the correlation of the maps of two classes: most class-sensitive is "
        f"{found.methods[known[0]]} with {means[known[0]]:.3f}{more}."
    )
    blind = [m for m in known if means[m] >= BLIND]
    if blind:
        names = ", ".join(f"{found.methods[m]} ({means[m]:.3f})" for m in blind)
        yield f"Class-blind, the same map whatever class is asked for: {names}."


def _winners(found: Comparison) -> Iterator[str]:
    """Say which methods the tests tell from all others, or that there are too few images for it."""
    if not found.ranks:
        return
    best = {name: [m for m, s in enumerate(found.marks(name)) if s] for name in found.ranks}
    alone = [f"{found.methods[one[0]]} at {name}" for name, one in best.items() if len(one) == 1]
    if alone:
        rest = " At all others two or more are tied." if len(alone) < len(best) else ""
        yield f"Best, and told apart from all other methods: {', '.join(alone)}.{rest}"
    else:
        yield "At no measure do the tests tell one method from all others."
    few = {
        name: ranks.friedman.blocks
        for name, ranks in found.ranks.items()
        if ranks.friedman.blocks < found.least_images
    }
    if few:
        every = "all measures" if len(few) == len(best) else ", ".join(few)
        least, most = min(few.values()), max(few.values())
        yield (
            f"To tell any two of {len(found.methods)} methods apart, the tests need "
            f"{found.least_images} images or more that all methods have a value for: with "
            f"{least if least == most else f'{least} to {most}'} all are tied at {every}."
        )


def _alike(found: Comparison) -> Iterator[str]:
    """Name methods whose values all are the same, as Grad-CAM's kin where pooling comes last."""
    groups: list[list[int]] = []
    for m, own in enumerate(found.values):
        for group in groups:
            if np.allclose(own, found.values[group[0]], rtol=0, atol=SEEN, equal_nan=True):
                group.append(m)
                break
        else:
            groups.append([m])
    same = [", ".join(found.methods[m] for m in group) for group in groups if len(group) > 1]
    if same:
        yield f"The same to three digits on every image: {'; '.join(same)}."


def _gaps(found: Comparison) -> Iterator[str]:
    """Say where images have no value by any method, as those without a mask."""
    known = np.isfinite(found.values).any(axis=0).sum(axis=0).tolist()
    every = len(found.images)
    few = [f"{q} ({n} of {every})" for q, n in zip(found.metrics, known, strict=True) if n < every]
    if few:
        yield f"Measured on some images alone: {', '.join(few)}."


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, in the plural where that is right."""
    return f"{number} {thing}{'' if number == 1 else 's'}"

"""The page that `paper_claims.py` writes: every number in it comes from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.evaluation import holm, pair_tests
from cfcam_core.evaluation.bootstrap import bootstrap

TEMPLATE = Path(__file__).with_suffix(".md")
PUBLIC, PAPER, OURS = "public CF-CAM", "CF-CAM, paper's filter", "our default"
RIVALS = ("Grad-CAM", "Grad-CAM++", "Smooth Grad-CAM++", "Score-CAM")
OF_GRADIENTS = RIVALS[:3]
"""The rivals that noise on gradients reaches, which are those that the public code tries it on."""
SHORT = MappingProxyType(
    {"grad": "Grad-CAM", "plus": "Grad-CAM++", "score": "Score-CAM", "public": PUBLIC, "ours": OURS}
)
ALPHA = 0.05
TESTED = "0.5"
"""The level of noise at which methods are compared."""
SHOWN = ("0.05", "0.1", "0.2", "0.5", "2.0")

Kept = dict[str, dict[str, list[dict[str, Any] | None]]]
Values = dict[str, NDArray[np.float64]]
"""By method, one value a picture; NaN where there is none."""

MEASURES = MappingProxyType(
    {
        "drop": ("average drop, %", -1, 100),
        "increase": ("average increase, %", 1, 100),
        "deletion": ("deletion area", -1, 1),
        "insertion": ("insertion area, from blur", 1, 1),
        "insertion0": ("insertion area, from 0", 1, 1),
        "code_drop": ("the code's drop, %", -1, 100),
        "code_gain": ("the code's gain", 1, 1),
        f"levels {TESTED} ssim": (f"SSIM, noise {TESTED}", 1, 1),
        f"levels {TESTED} margin": (f"lead, noise {TESTED}", 1, 1),
    }
)
"""Key: name, 1 if large is good or -1, factor for people."""


def page(kept: Kept, *, steps: int, draws: int, keeps: float, absolute: Sequence[float]) -> str:
    """Return the whole page."""
    shown = {
        name: {method: found for method, found in methods.items() if method != PAPER}
        for name, methods in kept.items()
    }
    return TEMPLATE.read_text().format(
        steps=steps,
        draws=draws,
        keeps=keeps,
        tested=TESTED,
        sizes=", ".join(f"{name} {len(found[OURS])}" for name, found in kept.items()),
        dear=", ".join(f"{n} {sum(map(bool, f['Score-CAM']))}" for n, f in kept.items()),
        paper=f"{filters_apart(kept):.1g}",
        claims="\n".join(claim(kept, key) for key in MEASURES),
        faithfulness="\n".join(faithfulness(shown)),
        by_level="\n".join(by_level(shown)),
        lead_head=" | ".join(kept),
        lead="\n".join(leads(shown)),
        code="\n".join(code(shown, absolute)),
        spreads=", ".join(f"{n} {_mean(values(f, 'spread')[OURS]):.1g}" for n, f in kept.items()),
        **sentences(kept),
    )


def sentences(kept: Kept) -> dict[str, str]:
    """Return the numbers that the verdicts cite."""
    faithful = [tally(kept, key, PUBLIC, RIVALS) for key in MEASURES if "levels" not in key]
    alike, lead = f"levels {TESTED} ssim", f"levels {TESTED} margin"
    ours = tally(kept, alike, OURS, OF_GRADIENTS)
    least = min(_mean(values(found, "class_r")[PUBLIC]) for found in kept.values())
    largest = max(np.nanmax(np.abs(values(found, lead)[PUBLIC])) for found in kept.values())
    return {
        "most": str(max(better for better, _, _ in faithful)),
        "pairs": str(len(RIVALS) * len(kept)),
        "ours_worse": str(ours[1]),
        "ours_pairs": str(sum(ours)),
        "public_r": f"{least:.5f}",
        "public_lead": f"{largest:.1g}",
        **{f"ssim_{n}": f"{_over(kept, alike, m):.3f}" for n, m in SHORT.items()},
        **{f"lead_{n}": f"{_over(kept, lead, m):.2f}" for n, m in SHORT.items()},
        **{f"heat_{n}": f"{_over(kept, 'heat', m):.2f}" for n, m in SHORT.items()},
        "ssim_far": f"{_over(kept, 'levels 2.0 ssim', PUBLIC):.3f}",
    }


def filters_apart(kept: Kept) -> float:
    """Return the largest difference of public CF-CAM and the paper's filter in any mean."""
    return max(
        abs(_mean(given[PUBLIC]) - _mean(given[PAPER]))
        for found in kept.values()
        for given in (values(found, key) for key in MEASURES)
    )


def values(found: dict[str, list[dict[str, Any] | None]], key: str) -> Values:
    """Return one measure of one data set; the words of the key lead into the results."""

    def value(result: Any) -> float:
        for word in key.split(" "):
            if not isinstance(result, dict) or word not in result:
                return float("nan")
            result = result[word]
        return float(result)

    return {method: np.array([value(r) for r in results]) for method, results in found.items()}


def against(given: Values, pivot: str, rivals: Sequence[str], sign: int) -> dict[str, int]:
    """Return for each rival 1 where it is better than the pivot, -1 where worse, 0 undecided.

    Wilcoxon's signed-rank test over pictures, Holm's correction for the number of rivals.
    """
    tests = [
        pair_tests(np.stack([given[rival], given[pivot]], axis=1), (rival, pivot))[0]
        for rival in rivals
    ]
    adjusted = holm([test.p_value for test in tests])
    return {
        rival: int(np.sign(sign * test.effect)) if p < ALPHA else 0
        for rival, test, p in zip(rivals, tests, adjusted, strict=True)
    }


def tally(kept: Kept, key: str, pivot: str, rivals: Sequence[str]) -> tuple[int, int, int]:
    """Return in how many pairs of data set and rival the pivot is better, worse, undecided."""
    sign = MEASURES[key][1]
    all_ = [
        -outcome
        for found in kept.values()
        for outcome in against(values(found, key), pivot, rivals, sign).values()
    ]
    return all_.count(1), all_.count(-1), all_.count(0)


def verdict(better: int, worse: int, undecided: int) -> str:
    """Say what becomes of 'it outperforms the others'."""
    if worse == 0 and better > undecided:
        return "reproduced"
    enough = worse >= (better + worse + undecided) / 4
    return "refuted" if worse > better and enough else "not decidable here"


def claim(kept: Kept, key: str) -> str:
    """Return a line of the first table."""
    rivals = OF_GRADIENTS if key.startswith("levels") else RIVALS
    published = tally(kept, key, PUBLIC, rivals)
    shown = (published, tally(kept, key, OURS, rivals), tally(kept, key, OURS, (PUBLIC,)))
    first, *others = (" / ".join(map(str, counts)) for counts in shown)
    return f"| {MEASURES[key][0]} | {first} | **{verdict(*published)}** | {' | '.join(others)} |"


def faithfulness(kept: Kept) -> list[str]:
    """Return the lines of the table of faithfulness."""
    keys = [key for key in MEASURES if not key.startswith("levels")]
    lines = []
    for name, found in kept.items():
        columns = [cells(values(found, key), *MEASURES[key][1:]) for key in keys]
        for row, method in enumerate(found):
            shown = " | ".join(column[row] for column in columns)
            lines.append(f"| {'' if row else name} | {method} | {shown} |")
    return lines


def cells(given: Values, sign: int, factor: float) -> list[str]:
    """Return mean and interval of each method, and whether it differs from our default."""
    rivals = [method for method in given if method != OURS]
    marks = {0: "", 1: " +", -1: " -"}
    outcome = against(given, OURS, rivals, sign)
    return [interval(v, factor) + marks[outcome.get(m, 0)] for m, v in given.items()]


def interval(given: NDArray[np.float64], factor: float = 1) -> str:
    """Return the mean over pictures that have a value and its bootstrap interval."""
    valued = given[~np.isnan(given)]
    if not valued.size:
        return "none"
    found = bootstrap(valued)
    digits = 0 if factor == 100 else 2
    mean, low, high = (
        f"{factor * x:.{digits}f}".replace("-0.00", "0.00")
        for x in (valued.mean(), found.low, found.high)
    )
    return f"{mean} [{low}, {high}]"


def by_level(kept: Kept) -> list[str]:
    """Return the lines of the table by level of noise: means over data sets."""
    keys = [f"levels {level} ssim" for level in SHOWN]
    keys += [f"levels {level} margin" for level in ("0", *SHOWN[1:])]
    keys += [f"levels {level} kept" for level in ("0", TESTED, "2.0")]
    return [
        f"| {method} | " + " | ".join(f"{_over(kept, key, method):.3f}" for key in keys) + " |"
        for method in kept[next(iter(kept))]
    ]


def leads(kept: Kept) -> list[str]:
    """Return the lines of the table of class correlation and lead."""
    key = f"levels {TESTED} margin"
    columns = {name: cells(values(found, key), 1, 1) for name, found in kept.items()}
    return [
        f"| {method} | "
        + " | ".join(
            f"{_mean(values(found, 'class_r')[method]):.2f}; {columns[name][row]}"
            for name, found in kept.items()
        )
        + " |"
        for row, method in enumerate(kept[next(iter(kept))])
    ]


def code(kept: Kept, absolute: Sequence[float]) -> list[str]:
    """Return the lines of the table of the code's own noise."""
    lines = []
    for method in kept[next(iter(kept))]:
        if method != "Score-CAM":
            size = "input" if "CF-CAM" in method or method == OURS else "layer"
            numbers = [_over(kept, f"absolute {x:g} {size}", method) for x in absolute]
            lines.append(f"| {method} | {size} | " + " | ".join(f"{n:.3f}" for n in numbers) + " |")
    return lines


def _over(kept: Kept, key: str, method: str) -> float:
    """Return the mean over data sets of a method's mean over pictures."""
    return _mean(np.array([_mean(values(found, key)[method]) for found in kept.values()]))


def _mean(given: NDArray[np.float64]) -> float:
    valued = given[~np.isnan(given)]
    return float(valued.mean()) if valued.size else float("nan")

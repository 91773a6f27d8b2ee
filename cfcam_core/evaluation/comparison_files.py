"""Comparisons as CSV and JSON, and back."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.journal import dumps
from cfcam_core.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from cfcam_core.evaluation.comparison import Comparison

FORMAT = 1
"""Version of the JSON."""


def as_csv(found: Comparison) -> str:
    """Return what `Comparison.to_csv` writes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", "method", "status", *found.metrics])
    for i, image in enumerate(found.images):
        for m, method in enumerate(found.methods):
            row = found.values[m, i].tolist()
            numbers = [repr(value) if np.isfinite(value) else "" for value in row]
            start = [image, int(found.targets[i]), method, found.statuses[m][i]]
            writer.writerow([*start, *numbers])
    return text.getvalue()


def as_json(found: Comparison) -> str:
    """Return what `Comparison.to_json` writes."""
    content = {
        "cfcam comparison": FORMAT,
        "settings": found.settings,
        "methods": found.methods,
        "metrics": {
            name: {
                "better": found.better(name),
                "about": getattr(METRICS.get(name), "about", ""),
            }
            for name in found.metrics
        },
        "images": found.images,
        "targets": found.targets,
        "failures": found.failures,
        "summary": {name: _summary(found, q) for q, name in enumerate(found.metrics)},
        "values": {
            name: {m: found.values[k, :, q] for k, m in enumerate(found.methods)}
            for q, name in enumerate(found.metrics)
        },
        "statuses": dict(zip(found.methods, found.statuses, strict=True)),
        "curves": {name: {"x": each.x, "y": each.y} for name, each in found.curves.items()},
    }
    return dumps(content) + "\n"


def from_json(text: str) -> Comparison:
    """Return what `as_json` wrote."""
    from cfcam_core.evaluation.comparison import Comparison, Curves

    try:
        content = json.loads(text)
        if content["cfcam comparison"] != FORMAT:
            raise KeyError("cfcam comparison")  # noqa: TRY301 - one message for all of these
        methods, metrics = tuple(content["methods"]), tuple(content["metrics"])
        values = [[content["values"][q][m] for q in metrics] for m in methods]
        return Comparison(
            methods=methods,
            metrics=metrics,
            images=tuple(content["images"]),
            values=np.moveaxis(np.array(values, np.float64), 1, 2),
            targets=np.array(content["targets"], np.intp),
            statuses=tuple(tuple(content["statuses"][m]) for m in methods),
            curves={
                name: Curves(np.array(c["x"], np.float64), np.array(c["y"], np.float64))
                for name, c in content["curves"].items()
            },
            settings=content["settings"],
            failures=content["failures"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"this is not what Comparison.to_json writes: {type(error).__name__}: {error}"
        ) from error


def _summary(found: Comparison, q: int) -> dict[str, Any]:
    """Return the means of a metric, and how sure they are."""
    ranks = found.ranks.get(found.metrics[q])
    marks = found.marks(found.metrics[q])
    by_method = {
        name: {
            "mean": found.means[m, q],
            "interval": [found.intervals[m][q].low, found.intervals[m][q].high],
            "images": found.counts[m, q],
            "mark": marks[m],
            "mean_rank": None if ranks is None else ranks.mean_ranks[m],
        }
        for m, name in enumerate(found.methods)
    }
    tests = None
    if ranks is not None:
        tests = {
            "friedman": {
                "statistic": ranks.friedman.statistic,
                "p": ranks.friedman.p_value,
                "images": ranks.friedman.blocks,
                "reason": ranks.friedman.reason,
            },
            "pairs": [
                {
                    "first": t.first,
                    "second": t.second,
                    "p": t.p_value,
                    "p_holm": t.adjusted,
                    "effect": t.effect,
                    "differing": t.differing,
                }
                for t in ranks.pairs
            ],
        }
    return {"methods": by_method, "tests": tests}

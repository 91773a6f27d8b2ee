"""What ``cfcam compare`` and ``cfcam robustness`` do: run with a journal, write files, print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import cfcam_core as cfcam
from cfcam_core.cli.explaining import TRIAL, progress, say, tried
from cfcam_core.cli.inputs import Labels, find_class, find_images
from cfcam_core.cli.tables import show
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.choices import all_methods, all_metrics, columns_of, default_methods
from cfcam_core.evaluation.compare import compare as compare_all
from cfcam_core.evaluation.comparison import SIGNS, Comparison
from cfcam_core.evaluation.headlines import headline
from cfcam_core.evaluation.identity import digest_of
from cfcam_core.evaluation.noise_run import NoiseRun, robustness_on_files
from cfcam_core.evaluation.perturbations import NOISES
from cfcam_core.evaluation.protocol import SEVERITIES
from cfcam_core.evaluation.robustness_page import described
from cfcam_core.evaluation.robustness_page import headline as noise_headline
from cfcam_core.files import make_folder
from cfcam_core.images import ModelInput, default_preprocessing, prepare

JOURNAL, NOISE_JOURNAL = "journal.jsonl", "robustness.jsonl"
"""The file that remembers what is finished, and that of robustness beside a comparison."""

ACROSS = 4
"""Metrics side by side on a terminal; more take another table."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the user asked for, as far as both commands have it."""

    backend: cfcam.Backend
    model: Path
    images: Sequence[Path]
    options: Mapping[str, Any]
    out: Path
    methods: Sequence[str] | None
    layer: str | None
    preprocess: str | None
    size: tuple[int, int] | None
    seed: int
    restart: bool
    target: str | None = None
    labels: Labels | None = None


def run_compare(
    job: Job, metrics: Sequence[str] | None, masks: Path | None, *, robustness: bool
) -> Mapping[str, str]:
    """Compare, write the files and print the table; return what failed and why.

    Raises
    ------
    CfcamError
        Nothing can be compared.
    """
    chosen = all_metrics(masks=masks is not None) if "all" in (metrics or ()) else metrics
    target = None if job.target is None else find_class(job.target, job.labels)
    with _running(job, "comparing", target) as (given, missing):
        found = compare_all(metrics=chosen, masks=masks, target=target, **given)
    found.to_csv(job.out / "comparison.csv")
    found.to_json(job.out / "comparison.json")
    _show(found)
    for line in headline(found):
        say(line)
    failures = {**found.failures, **missing}
    run = None
    if robustness:
        with _running(job, "measuring robustness", None, NOISE_JOURNAL) as (given, _):
            run = robustness_on_files(**given)
        _written(job, run)
        failures |= run.failures
    found.to_html(job.out / "index.html", labels=job.labels, robustness=run)
    return _finished(job, "comparison", failures, len(found.images))


def run_robustness(
    job: Job,
    perturbations: Sequence[str] | None,
    severities: Sequence[int] | None,
    *,
    p: float,
    segments: str,
) -> Mapping[str, str]:
    """Measure, write four files and print the table; return what failed and why.

    Raises
    ------
    CfcamError
        Nothing can be measured.
    """
    with _running(job, "measuring", None) as (given, missing):
        run = robustness_on_files(
            perturbations=perturbations or NOISES,
            severities=severities or SEVERITIES,
            p=p,
            segments=segments,
            **given,
        )
    _written(job, run)
    run.to_html(job.out / "index.html")
    return _finished(job, "robustness", {**run.failures, **missing}, run.found.images)


def _written(job: Job, run: NoiseRun) -> None:
    """Write the numbers of a run with noise, and print its table."""
    run.to_csv(job.out / "robustness.csv")
    run.to_json(job.out / "robustness.json")
    say(described(run))
    _show_scores(run)
    for line in noise_headline(run):
        say(line)


@contextmanager
def _running(
    job: Job, word: str, target: int | None, journal: str = JOURNAL
) -> Iterator[tuple[dict[str, Any], Mapping[str, str]]]:
    """Yield the arguments that both runs share, and the paths that lead nowhere.

    What cannot be explained at all shows here, before anything is written.
    """
    wanted = ModelInput.of(job.backend, size=job.size)
    preprocess = job.preprocess or default_preprocessing(wanted)
    named = () if job.layer is None else (job.layer,)
    layers, _ = tried(job.backend, named, prepare(TRIAL, wanted, preprocess), target, job.labels)
    images, missing = find_images(job.images)
    if not images:
        raise InvalidInputError("; ".join(f"{path}: {why}" for path, why in missing.items()))
    methods = all_methods() if "all" in (job.methods or ()) else job.methods
    columns_of(methods or default_methods(), None)
    make_folder(job.out)
    usual = "" if job.preprocess else ", the usual; another with --preprocess"
    say(f"preprocess {preprocess}{usual}")
    with progress(len(images), word) as advance:
        given: dict[str, Any] = {
            "model": job.backend,
            "images": images,
            "methods": methods,
            "preprocess": preprocess,
            "layer": layers[0],
            "size": job.size,
            "seed": job.seed,
            "journal": job.out / journal,
            "overwrite": job.restart,
            "identity": {"model": digest_of(job.model), "options": dict(job.options)},
            "progress": _timed(advance),
        }
        try:
            yield given, {str(path): reason for path, reason in missing.items()}
        except KeyboardInterrupt:
            say("what is finished is kept; the same command goes on from there")
            raise


def _timed(advance: Callable[[], None]) -> Callable[[int, int], None]:
    """Return what moves the bar on, and says after the first image how long the rest will take."""
    start = perf_counter()
    told = False

    def step(done: int, total: int) -> None:
        nonlocal told, start
        took = perf_counter() - start
        start = perf_counter()
        if not told and took > 0.2:  # what the journal knows takes no time
            told = True
            left = total - done
            rest = f"; about {_duration(took * left)} for the {left} to come" if left else ""
            on = "; if stopped, the same command goes on from there" if left else ""
            say(f"{took:.1f} s an image{rest}{on}")
        advance()

    return step


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show(found: Comparison) -> None:
    """Print the means: on a terminal a few metrics a table, in pipes all in one."""
    width = ACROSS if sys.stdout.isatty() else len(found.metrics)
    marks = {name: found.marks(name) for name in found.metrics}
    for start in range(0, len(found.metrics), width):
        names = found.metrics[start : start + width]
        rows = [
            (
                method,
                *(
                    (_number(found.means[m, found.metrics.index(q)]) + SIGNS[marks[q][m]]).strip()
                    for q in names
                ),
            )
            for m, method in enumerate(found.methods)
        ]
        best = {
            (m, 1 + k) for k, q in enumerate(names) for m, s in enumerate(marks[q]) if s == "best"
        }
        show(("method", *(_head(found, q) for q in names)), rows, bold=best)
    say("* best mean; = not told apart from it by the tests; + more is better, - less is")


def _head(found: Comparison, metric: str) -> str:
    """Return a heading in plain letters: pipes may take no others."""
    return metric + {"higher": " +", "lower": " -", None: ""}[found.better(metric)]


def _show_scores(run: NoiseRun) -> None:
    scores = run.found.scores
    rows = [
        (
            s.method,
            _number(s.consistency),
            _number(s.responsiveness),
            _number(s.robustness),
            f"{s.degenerate:.0%}",
        )
        for s in scores
    ]
    known = [s.robustness if np.isfinite(s.robustness) else -1 for s in scores]
    best = {(m, 3) for m, value in enumerate(known) if value == max(known) >= 0}
    show(("method", "consistency", "responsiveness", "robustness", "flat"), rows, bold=best)


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _finished(job: Job, name: str, failures: Mapping[str, str], done: int) -> Mapping[str, str]:
    for image, reason in failures.items():
        say(f"failed: {image}: {reason}")
    files = f"{name}.csv, {name}.json, index.html"
    say(f"{done} measured, {len(failures)} failed; results are in {job.out}: {files}")
    return failures

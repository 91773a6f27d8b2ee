"""``cfcam explain``: image after image through the model, files written, one table at the end."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

import cfcam_core as cfcam
from cfcam_core import png
from cfcam_core.backend import SeveralLayers
from cfcam_core.capture import FloatArray
from cfcam_core.cli.inputs import (
    Labels,
    Place,
    at_layers,
    check_labels,
    find_class,
    find_images,
    output_stems,
)
from cfcam_core.cli.tables import show
from cfcam_core.errors import BlankMapWarning, InvalidInputError, LayerNotFoundError
from cfcam_core.files import make_folder, replacing
from cfcam_core.image_files import MARK
from cfcam_core.images import ModelInput, default_preprocessing, prepare, read_image
from cfcam_core.pictures import ends_in_sigmoid

TRIAL = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
"""A picture to try a model on; not of one gray, whose spread of 0 some models divide by."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the user asked for."""

    backend: cfcam.Backend
    out: Path
    layers: Sequence[str]
    output: str | None
    target: str | None
    labels: Labels | None
    method: str
    preset: str
    preprocess: str | None
    size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The same with everything settled that does not depend on the image."""

    job: Job
    wanted: ModelInput
    preprocess: str
    target: int | None
    layers: list[Place]


def run(job: Job, given: Sequence[Path]) -> dict[Path, str]:
    """Explain all images and print the table; return what failed and why.

    Raises
    ------
    CfcamError
        Nothing can be explained: the model, layer, class, labels or folder do not fit.
    """
    plan = _plan(job)
    say(_summary(plan))
    images, failures = find_images(given)
    make_folder(job.out)
    share = "sigmoid" if ends_in_sigmoid(job.backend) else "softmax"
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    with progress(len(images), "explaining") as advance:
        for image, stem in zip(images, output_stems(images), strict=True):
            try:
                explanation = _explain(plan, image, job.out / f"{stem}{MARK}")
            except (InvalidInputError, OSError, MemoryError) as error:
                failures[image] = str(error) or type(error).__name__
            else:
                rows.append(_row(image, explanation, job.labels, share))
                if stem != image.stem:
                    notes.append(f"note: {image} is written as {stem}{MARK}.*, its name was taken")
            advance()
    if rows:
        show(("image", "class", "logit", share, "layer", "status"), rows, brief=_brief(rows))
    for note in notes:
        say(note)
    for path, reason in failures.items():
        say(f"failed: {path}: {reason}")
    where = f"; results are in {job.out}" if rows else ""
    say(f"{len(rows)} explained, {len(failures)} failed{where}")
    return failures


def _plan(job: Job) -> Plan:
    """Settle what is the same for all images; a small picture as a trial shows what fits none."""
    wanted = ModelInput.of(job.backend, size=job.size)
    preprocess = job.preprocess or default_preprocessing(wanted)
    target = None if job.target is None else find_class(job.target, job.labels)
    trial = prepare(TRIAL, wanted, preprocess)
    layers, _ = tried(job.backend, job.layers, trial, target, job.labels)
    return Plan(job, wanted, preprocess, target, layers)


def tried(
    backend: cfcam.Backend,
    named: Sequence[str],
    trial: FloatArray,
    target: int | None,
    labels: Labels | None,
) -> tuple[list[Place], Sequence[cfcam.Capture]]:
    """Return the layers that were named, and what a trial picture gives there.

    Raises
    ------
    CfcamError
        The layers, the class or the labels do not fit the model.
    """
    layers, captures = at_layers(
        named, backend, lambda each: (each, _captures(backend, trial, each, target))
    )
    for one in captures:
        if one.activations.ndim != 4:
            raise LayerNotFoundError(
                f"layer {one.layer!r} has no grid of rows and columns to lay over a picture: its "
                f"activations are {one.activations.shape[1:]}; choose another with --layer, all "
                "are listed by: cfcam layers"
            )
    if labels is not None:
        known = captures[0].scores
        scores = backend.scores(trial) if known is None else known
        note = check_labels(labels, scores.shape[1])
        if note:
            say(note)
    return layers, captures


def _captures(
    backend: cfcam.Backend, batch: Any, layers: list[Place], target: int | None
) -> Sequence[cfcam.Capture]:
    """Run the model as `cfcam_core.explain` does for several layers."""
    if isinstance(backend, SeveralLayers):
        return backend.captures(batch, layers=layers, target=target)
    return [backend.capture(batch, layer=layer, target=target) for layer in layers]


def _summary(plan: Plan) -> str:
    wanted = plan.wanted
    height, width = wanted.size
    size = f"input {wanted.channels} x {height} x {width}"
    if wanted.is_size_free:
        hint = "; another with --size" if plan.job.size is None else ""
        size += f" (the model leaves the size open{hint})"
    output = f", output {plan.job.output}" if plan.job.output else ""
    preset = f", preset {plan.job.preset}" if plan.job.method == "cf-cam" else ""
    return f"{size}{output}, preprocess {plan.preprocess}, method {plan.job.method}{preset}"


def _explain(plan: Plan, image: Path, results: Path) -> cfcam.Explanation:
    """Explain one image and write its two files, ``<results>.png`` and ``<results>.npz``."""
    picture = read_image(image)
    batch = prepare(picture, plan.wanted, plan.preprocess)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlankMapWarning)  # the column *status* says it
        explanation = cfcam.explain(
            plan.job.backend,
            batch,
            layer=plan.layers,
            target=plan.target,
            method=plan.job.method,
            settings=cfcam.Settings.preset(plan.job.preset),
        )
    overlay = png.encode(explanation.overlay(picture))
    with replacing(results.with_name(results.name + ".png")) as file:
        file.write(overlay)
        file.flush()  # both files or none: a full disk must show before the archive is there
        explanation.save(results.with_name(results.name + ".npz"))
    return explanation


def _row(
    image: Path, explanation: cfcam.Explanation, labels: Labels | None, share: str
) -> tuple[str, ...]:
    index = int(explanation.targets[0])
    name = (labels or {}).get(index, "").split(",")[0]  # without synonyms
    logit = part = "-"
    known = index >= 0  # a model that has its gradients inside may not say of which class
    if known and explanation.scores is not None:
        scores = explanation.scores[0].astype(np.float64)
        logit = f"{scores[index]:.3f}"
        if share == "sigmoid":
            part = f"{np.exp(-np.logaddexp(0, -scores[index])):.1%}"
        elif len(scores) > 1:  # of a single logit the softmax is always 1: no news
            part = f"{np.exp(-np.logaddexp.reduce(scores - scores[index])):.1%}"
    status = explanation.status[0]
    called = f"{index} {name}".strip() if known else "not known"
    return (str(image), called, logit, part, explanation.layer, status)


def _brief(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the rows with file names for paths where they differ."""
    taken = Counter(Path(image).name for image, *_ in rows)
    return [
        (image if taken[Path(image).name] > 1 else Path(image).name, *rest) for image, *rest in rows
    ]


@contextmanager
def progress(total: int, word: str) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error, if that is a terminal; yield what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    hidden = not sys.stderr.isatty() or total < 2
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task(word, total=total)
        yield lambda: bar.advance(task)


def say(line: str) -> None:
    """Print what is not the result to standard error."""
    typer.echo(line, err=True)

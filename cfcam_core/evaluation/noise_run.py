"""Robustness to noise on files of pictures, with a journal: the run, and its result with names."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cfcam_core.errors import InvalidInputError, UndefinedMeasureWarning
from cfcam_core.evaluation.choices import MethodChoice, columns_of, default_methods
from cfcam_core.evaluation.identity import header_of
from cfcam_core.evaluation.journal import dumps, open_journal, work_through
from cfcam_core.evaluation.perturbations import NOISES
from cfcam_core.evaluation.protocol import (
    SEVERITIES,
    plan_robustness,
    robustness_of_image,
)
from cfcam_core.evaluation.robustness import Robustness, gather
from cfcam_core.evaluation.samples import first_answer, read_samples
from cfcam_core.evaluation.segments import CELLS
from cfcam_core.files import written
from cfcam_core.images import ModelInput, fit
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings

FORMAT = 1
"""Version of the JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseRun:
    """`Robustness` with the names of its pictures, and what else belongs to the run."""

    found: Robustness
    images: tuple[str, ...]
    """By the index that `Pairs.image` holds."""
    settings: Mapping[str, Any]
    """Everything that decides the numbers, as the journal's header has it."""
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return a row for each pair, and write them to a file if one is named."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.found.pairs.columns())
        for method, image, *rest in self.found.pairs.rows():
            writer.writerow([method, self.images[image], *rest])
        return written(text.getvalue(), path)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return settings, scores, intervals and counts as JSON; NaN is null."""
        found = self.found
        pairs = zip(found.scores, found.bootstrap(seed=found.plan.seed), strict=True)
        content = {
            "cfcam robustness": FORMAT,
            "settings": self.settings,
            "images": found.images,
            "dropped": [self.images[n] for n in found.dropped],
            "failures": self.failures,
            "p": found.plan.p if found.plan.similarity == "rbo" else None,
            "chance": found.chance,
            "scores": {
                one.method: {
                    **asdict(one),
                    "few": one.few,
                    "intervals": {
                        name: [getattr(ends, name).low, getattr(ends, name).high]
                        for name in ("consistency", "responsiveness", "robustness")
                    },
                }
                for one, ends in pairs
            },
            "by perturbation": {
                name: {one.method: asdict(one) for one in scores}
                for name, scores in found.by_perturbation().items()
            },
        }
        return written(dumps(content) + "\n", path)

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """Return a page that needs no other file, and write it to one if it is named."""
        from cfcam_core.evaluation.robustness_page import robustness_page

        return written(robustness_page(self), path)


def robustness_on_files(
    model: Any,
    images: Any,
    *,
    methods: Iterable[MethodChoice] | None = None,
    perturbations: Iterable[str] = NOISES,
    severities: Iterable[int] = SEVERITIES,
    preprocess: str | None = None,
    layer: Any = None,
    p: float = 0.9,
    similarity: str = "rbo",
    segments: str = "grid",
    grid: int = CELLS,
    settings: Settings | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    journal: str | PathLike[str] | None = None,
    overwrite: bool = False,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseRun:
    """Do what `cfcam_core.evaluation.robustness` does, on files and with a journal.

    Parameters
    ----------
    model, images, methods, preprocess, layer, settings, size : optional
        As for `cfcam_core.evaluation.compare`; `images` are files or a folder.
    perturbations, severities, p, similarity, segments, grid : optional
        As for `cfcam_core.evaluation.robustness`.
    seed, journal, overwrite, identity, progress : optional
        As for `cfcam_core.evaluation.compare`.

    Raises
    ------
    InvalidInputError
        A name is unknown, no image can be used, or the journal belongs to another run.
    CfcamError
        As for `cfcam_core.explain`.
    """
    backend = open_model(model)
    chosen = columns_of(default_methods() if methods is None else methods, settings)
    plan = plan_robustness(
        methods={c.label: (c.method, c.settings) for c in chosen},
        perturbations=perturbations,
        severities=severities,
        layer=layer,
        p=p,
        similarity=similarity,
        segments=segments,
        grid=grid,
        seed=seed,
    )
    samples = read_samples(backend, images, preprocess=preprocess, size=size)
    if not samples.preprocess:
        raise InvalidInputError(
            "noise is added to pictures: pass files, or a folder; for arrays there is "
            "cfcam_core.evaluation.robustness"
        )
    place, answer = first_answer(backend, samples.items, layer)
    wanted = ModelInput.of(backend, size=size)
    header = {
        **header_of(model, identity),
        "answer": answer,
        "layer": place,
        "methods": {c.label: c.described() for c in chosen},
        "perturbations": [each.name for each in plan.perturbations],
        "severities": plan.severities,
        "similarity": plan.similarity,
        "p": plan.p,
        "segments": segments,
        "grid": grid,
        "preprocess": samples.preprocess,
        "size": size,
        "seed": seed,
        "images": {  # the place decides the noise
            each.name: {"place": n, "content": each.content} for n, each in enumerate(samples.items)
        },
    }

    def work(index: int) -> dict[str, Any]:
        picture = samples.items[index].load().picture
        assert picture is not None  # noqa: S101 - files are pictures
        whole = 1.0 if picture.dtype.kind == "f" else float(np.iinfo(picture.dtype).max)
        shown = (fit(picture, wanted.size) / np.float32(whole)).clip(0, 1).astype(np.float32)
        return robustness_of_image(backend, shown, plan, index=index, preprocess=samples.preprocess)

    with open_journal(None if journal is None else Path(journal), header, overwrite=overwrite) as b:
        names = tuple(each.name for each in samples.items)
        records, failures = work_through(b, names, work, progress)
    with warnings.catch_warnings():  # the page and the command say it
        warnings.simplefilter("ignore", UndefinedMeasureWarning)
        found = gather(records.values(), plan)
    return NoiseRun(found, names, json.loads(dumps(header)), MappingProxyType(failures))

"""The commands that measure: ``cfcam compare`` and ``cfcam robustness``, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cfcam_core.cli.comparing import Job, run_compare, run_robustness
from cfcam_core.cli.inputs import check_images, open_file, read_labels, read_size
from cfcam_core.cli.options import (
    LAYER_HELP,
    ImagesArgument,
    LabelsOption,
    ModelOption,
    OutputOption,
    PreprocessOption,
    ProviderOption,
    SizeOption,
    TargetOption,
    chosen,
    each_of,
    listed,
    one_line_errors,
    one_of,
)
from cfcam_core.evaluation.metrics import METRICS
from cfcam_core.evaluation.perturbations import NOISES, PERTURBATIONS
from cfcam_core.methods import METHODS

MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help=f"May be repeated; {listed(METHODS)}; cf-cam:paper and cf-cam:reference for its "
        "presets; or all. Default: those that need no extra passes through the model.",
    ),
]
LayerOption = Annotated[str | None, typer.Option("--layer", "-l", help=LAYER_HELP)]
SeedOption = Annotated[
    int, typer.Option(min=0, help="The same seed gives the same numbers, bit for bit.")
]
RestartOption = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew, even if the folder has a journal of another run."),
]


def compare(
    *,
    images: ImagesArgument,
    model: ModelOption,
    method: MethodsOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            callback=each_of((*METRICS, "all")),
            help=f"May be repeated; {listed(METRICS)}; or all. Default: the quick ones.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks, one of the same name (but for the ending) as its image; the "
            "object is where a mask is not black."
        ),
    ] = None,
    with_robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Measure robustness to noise as well, as `cfcam robustness` does, for the same "
            "page.",
        ),
    ] = False,
    target: TargetOption = None,
    labels: LabelsOption = None,
    preprocess: PreprocessOption = None,
    size: SizeOption = None,
    layer: LayerOption = None,
    output: OutputOption = None,
    provider: ProviderOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; made if missing.")
    ] = Path("cfcam-compare"),
    restart: RestartOption = False,
) -> None:
    """Measure methods on images: a table, statistics, a page with all maps."""
    options = chosen(output=output, providers=provider)
    with one_line_errors():
        check_images(images)
        job = Job(
            backend=open_file(model, **options),
            model=model,
            images=images,
            options=options,
            out=out,
            methods=method,
            layer=layer,
            target=target,
            labels=None if labels is None else read_labels(labels),
            preprocess=preprocess,
            size=None if size is None else read_size(size),
            seed=seed,
            restart=restart,
        )
        failures = run_compare(job, metric, masks, robustness=with_robustness)
    if failures:
        raise typer.Exit(1)


def robustness(
    *,
    images: ImagesArgument,
    model: ModelOption,
    method: MethodsOption = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            callback=each_of(PERTURBATIONS),
            help=f"May be repeated; {listed(PERTURBATIONS)}. Default: {listed(NOISES)}.",
        ),
    ] = None,
    severity: Annotated[
        list[int] | None,
        typer.Option(help="1 to 5; may be repeated. Default: all."),
    ] = None,
    p: Annotated[
        float,
        typer.Option(
            "--p", help="How far down the ranking counts: the weight falls by p from rank to rank."
        ),
    ] = 0.9,
    segments: Annotated[
        str,
        typer.Option(
            callback=one_of(("grid", "quickshift")),
            help="What is ranked: cells of a grid, or quickshift (needs scikit-image).",
        ),
    ] = "grid",
    preprocess: PreprocessOption = None,
    size: SizeOption = None,
    layer: LayerOption = None,
    output: OutputOption = None,
    provider: ProviderOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; made if missing.")
    ] = Path("cfcam-robustness"),
    restart: RestartOption = False,
) -> None:
    """Measure how maps fare under noise.

    They should stay where the predicted class stays, and move where it changes.
    """
    options = chosen(output=output, providers=provider)
    with one_line_errors():
        check_images(images)
        job = Job(
            backend=open_file(model, **options),
            model=model,
            images=images,
            options=options,
            out=out,
            methods=method,
            layer=layer,
            preprocess=preprocess,
            size=None if size is None else read_size(size),
            seed=seed,
            restart=restart,
        )
        failures = run_robustness(job, perturbation, severity, p=p, segments=segments)
    if failures:
        raise typer.Exit(1)

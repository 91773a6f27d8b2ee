"""The commands and their options. What they do stands in the other modules of this package.

Exit codes: 0 all went well, 1 some images failed, 2 nothing could be done (usage, model, labels),
130 stopped by Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cfcam_core as cfcam
from cfcam_core.cli import exporting, listing, measuring
from cfcam_core.cli.explaining import Job, run
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
    listed,
    one_line_errors,
    one_of,
)
from cfcam_core.cli.tables import put, show
from cfcam_core.methods import METHODS
from cfcam_core.settings import PRESETS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors as plain lines, so that they stay whole in pipes and logs
    help="Where an image classifier looked: CF-CAM and other class activation maps.",
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - Typer calls it by position
    if value:
        typer.echo(f"cfcam {cfcam.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that come before a command."""


@app.command()
def explain(
    *,
    images: ImagesArgument,
    model: ModelOption,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help=f"{LAYER_HELP} May be repeated: the maps are fused."),
    ] = None,
    output: OutputOption = None,
    target: TargetOption = None,
    labels: LabelsOption = None,
    method: Annotated[
        str, typer.Option(callback=one_of(METHODS), help=f"One of: {listed(METHODS)}.")
    ] = "cf-cam",
    preset: Annotated[
        str | None,
        typer.Option(
            callback=one_of(PRESETS),
            help=f"Settings of cf-cam, one of: {listed(PRESETS)}. Default: default.",
        ),
    ] = None,
    preprocess: PreprocessOption = None,
    size: SizeOption = None,
    provider: ProviderOption = None,
    activations: Annotated[
        str | None,
        typer.Option(help="Output of a model that has its gradients inside: the layer."),
    ] = None,
    gradients: Annotated[str | None, typer.Option(help="Output: the gradients there.")] = None,
    scores: Annotated[str | None, typer.Option(help="Output: the logits.")] = None,
    class_index: Annotated[str | None, typer.Option(help="Input: the class.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; made if missing.")
    ] = Path("cfcam-out"),
) -> None:
    """Write a heatmap over each image (.cfcam.png) and everything behind it (.cfcam.npz)."""
    options = chosen(
        output=output,
        providers=provider,
        activations=activations,
        gradients=gradients,
        scores=scores,
        class_index=class_index,
    )
    with one_line_errors():
        check_images(images)
        if preset and method != "cf-cam":
            typer.echo(f"note: --preset {preset} is for cf-cam; {method} has none", err=True)
        job = Job(
            backend=open_file(model, **options),
            out=out,
            layers=layer or (),
            output=output,
            target=target,
            labels=None if labels is None else read_labels(labels),
            method=method,
            preset=preset or "default",
            preprocess=preprocess,
            size=None if size is None else read_size(size),
        )
        failures = run(job, images)
    if failures:
        raise typer.Exit(1)


app.command()(measuring.compare)
app.command()(measuring.robustness)


@app.command()
def layers(
    model: Annotated[Path, typer.Argument(help="Model file, such as model.onnx.")],
    *,
    output: OutputOption = None,
) -> None:
    """List the layers that can be explained, in the order of execution, the default marked."""
    with one_line_errors():
        show(*listing.table(open_file(model, **chosen(output=output))))


@app.command()
def export(
    *,
    model: Annotated[Path, typer.Argument(help="Model file, such as model.onnx.")],
    layer: Annotated[str | None, typer.Option("--layer", "-l", help=LAYER_HELP)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write. Default: model.explain.onnx, here."),
    ] = None,
    output: OutputOption = None,
    with_map: Annotated[
        bool, typer.Option("--with-map", help="Make the Grad-CAM map inside the file, too.")
    ] = False,
) -> None:
    """Write a model that any runtime explains with: logits, activations, gradients."""
    with one_line_errors():
        place = out or exporting.export_path(model)
        opened = open_file(model, **chosen(output=output))
        for line in exporting.export(opened, place, layer=layer, with_map=with_map):
            put(line)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the pictures; made if missing.")
    ] = Path("cfcam-demo"),
) -> None:
    """Explain pictures of two digits with a small model that comes along; no network needed."""
    from cfcam_core.demo import run_demo

    with one_line_errors():
        page = run_demo(out, put)
        put(f"page: {page}")

"""What several commands share: options, checks of their values, errors in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import cfcam_core as cfcam
from cfcam_core.cli import INTERRUPTED
from cfcam_core.images import PREPROCESSINGS

LAYER_HELP = (
    "Layer to look at: a name or number of `cfcam layers`, the path of a module (`features.18`), "
    "or `input`. Default: chosen."
)


def one_of(names: Collection[str]) -> Callable[[str | None], str | None]:
    """Return a check that an option's value is one of `names`."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value!r} is unknown; allowed are {', '.join(names)}")
        return value

    return check


def each_of(names: Collection[str]) -> Callable[[list[str] | None], list[str] | None]:
    """Return the same check for an option that may be repeated."""
    check = one_of(names)

    def check_all(values: list[str] | None) -> list[str] | None:
        for value in values or ():
            check(value)
        return values

    return check_all


def chosen(**options: Any) -> dict[str, Any]:
    """Return those of a backend's options that were given."""
    return {name: value for name, value in options.items() if value}


def listed(names: Collection[str]) -> str:
    """Return names as the help lists them."""
    return ", ".join(names)


ImagesArgument = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")
]
ModelOption = Annotated[Path, typer.Option("--model", "-m", help="Model file, such as model.onnx.")]
OutputOption = Annotated[
    str | None, typer.Option(help="Output of the model to explain. Default: chosen.")
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="Execution provider of onnxruntime, the preferred first; may be repeated.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="Class to explain: its index, or its name with --labels. Default: the best one.",
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(help="Class names: text with one a line, or JSON with a list or an object."),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        callback=one_of(PREPROCESSINGS),
        help=f"How pixels become numbers, one of: {listed(PREPROCESSINGS)}. "
        "Default: imagenet, unit for models with one channel, raw for those of integers.",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Height and width of the pictures that the model gets, or one number for both, "
        "where the model leaves them open. Default: 224.",
    ),
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print our errors, warnings and Ctrl-C as one line on standard error; exit with 2 or 130."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_more: typer.echo(
            f"warning: {message}", err=True
        )
        try:
            yield
        except (cfcam.CfcamError, MemoryError) as error:
            typer.echo(f"error: {str(error) or 'out of memory'}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("cfcam: stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None

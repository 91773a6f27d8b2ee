"""Tables on standard output: framed on a terminal, plain aligned columns in pipes and files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from unicodedata import combining, east_asian_width

import typer

Rows = Iterable[Sequence[str]]


def show(
    columns: Sequence[str],
    rows: Rows,
    *,
    brief: Rows | None = None,
    bold: Collection[tuple[int, int]] = (),
) -> None:
    """Print a table. Nothing is cut off: terminals fold long cells, pipes get one line a row.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequence of str
        Cells.
    brief : iterable of sequence of str, optional
        What terminals get in place of `rows`.
    bold : collection of (int, int), optional
        Cells, by row and column, that terminals show in bold.
    """
    framed = sys.stdout.isatty()
    wanted = brief if framed and brief is not None else rows
    body = [[_one_line(cell) for cell in row] for row in wanted]
    if framed:
        _framed(columns, body, bold)
    else:
        for line in plain(columns, body):
            put(line)


def put(line: str) -> None:
    """Print a line; if nobody reads on, as after ``| head``, drop it and all that follow."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns two spaces apart."""
    table = [columns, *rows]
    widths = [max(_width(row[i]) for row in table) for i in range(len(columns))]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _width(cell: str) -> int:
    """Return how many columns a text takes: two for each wide character, none for an accent."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in cell)


def _framed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], bold: Collection[tuple[int, int]]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(re.sub(r"(?<=\w)-(?=\w)", "-\n", column), overflow="fold")
    for r, row in enumerate(rows):  # Text: brackets in names are not markup
        table.add_row(*(Text(cell, "bold" * ((r, c) in bold)) for c, cell in enumerate(row)))
    Console().print(table)


def _one_line(cell: str) -> str:
    """Return text without line breaks and control characters, which names in files may hold."""
    return "".join(c if c.isprintable() else " " for c in cell)

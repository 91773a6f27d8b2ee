"""Tables on standard output: framed on a terminal, plain aligned columns in pipes and files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import typer


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Nothing is cut off: terminals fold long cells, pipes get one line a row."""
    body = [[_one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _framed(columns, body)
    else:
        for line in plain(columns, body):
            typer.echo(line)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns two spaces apart."""
    table = [columns, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _framed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in names are not markup
    Console().print(table)


def _one_line(cell: str) -> str:
    """Return text without line breaks and control characters, which names in files may hold."""
    return "".join(c if c.isprintable() else " " for c in cell)

"""HTML without a template engine: Explanations in notebooks, pages with their pictures inside.

Every function returns a string of HTML; text is escaped, so names and captions may hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core import png
from cfcam_core.explanation import Explanation
from cfcam_core.overlay import colours

SHOWN = 16
"""Samples that a notebook shows of one explanation."""

THUMBNAIL = 224
"""Longest side of a notebook's heatmap in pixels; larger ones are thinned out."""

BLANK = {
    "zero_gradient": "the score does not depend on this layer",
    "all_negative": "the map is nowhere positive",
    "flat": "the map is the same everywhere",
}
"""Each status but ``ok`` in words."""

STRIP = 24
"""Height in pixels at which the heatmap of a signal is shown."""

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}"
    ".row{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}img{display:block}"
    "figcaption{font-size:.85rem;max-width:16rem;overflow-wrap:anywhere;white-space:pre-line}"
    "table{border-collapse:collapse}"
    "th,td{padding:.25rem .75rem;border-bottom:1px solid #ccc;text-align:left}"
    "td.number{text-align:right;font-variant-numeric:tabular-nums}"
)

WIDE = "<style>body{max-width:88rem}p{max-width:70rem}.row{margin-top:1rem}</style>"
"""Room for many columns."""


def heatmaps_html(explanation: Explanation) -> str:
    """Return a row of small heatmaps with class and status below each, for ``_repr_html_``.

    Signals appear as a strip, volumes as the maximum along their first axis. At most `SHOWN`
    samples are drawn.
    """
    shown = explanation[:SHOWN]
    row = "".join(
        "<figure style='margin:0'>"
        f"<img alt='heatmap' src='{png.data_uri(colours(_picture(heatmap)))}' "
        "style='width:112px;min-height:16px;display:block'>"
        f"<figcaption style='font-size:12px;max-width:112px'>{_caption(int(target), status)}"
        "</figcaption></figure>"
        for heatmap, target, status in zip(shown.heatmaps, shown.targets, shown.status, strict=True)
    )
    rest = len(explanation) - len(shown)
    more = f"<div style='align-self:center'>and {rest} more</div>" if rest else ""
    title = f"{explanation.method} at {explanation.layer or 'given arrays'}"
    if explanation.heatmaps.ndim == 4:
        title += ", largest values along the first spatial axis"
    return (
        f"<div><div style='font-size:13px'>{escape(title)}</div>"
        f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{row}{more}</div></div>"
    )


def figures(pictures: Iterable[tuple[NDArray[np.uint8], str]], *, width: int | None = None) -> str:
    """Return pictures side by side, each with its caption below; line breaks in captions are kept.

    Parameters
    ----------
    pictures : iterable of (ndarray of uint8 of shape (H, W) or (H, W, 3), str)
        Picture and caption.
    width : int, optional
        Width in pixels at which each is shown. Default: its own.
    """
    size = "" if width is None else f" width='{width}'"
    items = "".join(
        f"<figure><img alt='{escape(caption)}' src='{png.data_uri(picture)}'{size}>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in pictures
    )
    return f"<div class='row'>{items}</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls where it is too wide; numbers are aligned to the right.

    Floats are shown with three decimals.
    """
    return table_of(columns, (map(_cell, row) for row in rows))


def table_of(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return the same of cells that are HTML already: ``<td>`` or ``<th>``."""
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    rows_html = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<div style='overflow-x:auto'><table>{rows_html}</table></div>"


def row(parts: Iterable[str]) -> str:
    """Return drawings or the like side by side, as many as fit."""
    return "<div class='row'>" + "".join(f"<div>{each}</div>" for each in parts) + "</div>"


def heading(text: str) -> str:
    """Return a heading below the page's title."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def page(title: str, *parts: str) -> str:
    """Return a whole page that needs no other file, made of what the other functions return.

    Examples
    --------
    >>> page("Two digits", paragraph("Which is which?"), table(["digit"], [[3]]))[:15]
    '<!doctype html>'
    """
    text = escape(title)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{text}</title><style>{STYLE}</style></head>"
        f"<body><h1>{text}</h1>{''.join(parts)}</body></html>\n"
    )


def _caption(target: int, status: str) -> str:
    """Say which class the map is of, if it is of one, and why it is blank, if it is."""
    words = [f"class {target}"] if target >= 0 else []
    if status != "ok":
        words.append(BLANK.get(status, status))
    return escape(": ".join(words))


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"<td class='number'>{value:.3f}</td>"
    if isinstance(value, int | np.integer):
        return f"<td class='number'>{value}</td>"
    return f"<td>{escape(str(value))}</td>"


def flat_picture(heatmap: NDArray[Any]) -> NDArray[Any]:
    """Return a heatmap of one to three axes as one of two: a strip, itself, or the maximum."""
    if heatmap.ndim == 1:
        return np.broadcast_to(heatmap, (STRIP, len(heatmap)))
    return heatmap.max(axis=0) if heatmap.ndim == 3 else heatmap


def _picture(heatmap: NDArray[Any]) -> NDArray[Any]:
    """Return a heatmap as a picture, at most `THUMBNAIL` on a side."""
    flat = flat_picture(heatmap)
    step = -(-max(flat.shape) // THUMBNAIL)
    return flat[::step, ::step]

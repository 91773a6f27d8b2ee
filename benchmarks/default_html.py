"""The page ``docs/default.html``: the same numbers as plots, and maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from contest import DEFAULT, FAMILY, FAST, heatmaps
from default_page import deciding
from default_tables import titled
from numpy.typing import NDArray
from quality import PLACES
from truth import REPORT, Block, clean_mosaic, noisy_mosaic, scene
from verdicts import (
    LOWER_IS_BETTER,
    MEASURES,
    Records,
    Values,
    Verdict,
    cell,
    complete,
    label,
    on_cell,
    pooled,
    robustness,
    with_measure,
)

from cfcam_core import png
from cfcam_core.evaluation import bootstrap, compare_ranks
from cfcam_core.evaluation.plots import critical_difference, intervals
from cfcam_core.evaluation.thumbnails import shrunk
from cfcam_core.overlay import colours
from cfcam_core.report import heading, page, paragraph, table

SIDE, MAP_SIDE = 112, 48
"""Of a picture and of a map, in pixels."""

SHOWN = (DEFAULT, "grad-cam", "hires-cam", "eigen-grad-cam", "layer-cam", f"{DEFAULT} reference")

SCENES = (("digits", scene, (0, 1, 2, 3, 4, 5)),)
MOSAICS = (
    ("MobileNetV2", clean_mosaic, (0, 1)),
    ("MobileNetV2", noisy_mosaic, (2,)),
    ("SqueezeNet", clean_mosaic, (3, 4)),
    ("SqueezeNet", noisy_mosaic, (5,)),
)
"""The first ones of the report half, not chosen by eye; of each the first target. Mosaics are made
of photographs, which are not ours to hand on: they are drawn where asked for."""

KINDS = {scene: "scene", clean_mosaic: "mosaic", noisy_mosaic: "noisy mosaic"}

STYLE = (
    "<style>.plots{display:flex;flex-wrap:wrap;gap:1rem 2rem}.maps{display:grid;gap:4px;"
    "grid-template-columns:repeat(8,minmax(56px,112px));font-size:.75rem;align-items:end}"
    ".maps div{aspect-ratio:1}.maps img{width:100%;height:100%;opacity:.5}.maps p{margin:0;"
    "align-self:center;overflow-wrap:anywhere}td,th{font-size:.85rem}.wide{overflow-x:auto}"
    ".wide td,.wide th{padding:.15rem .6rem}.wide td:first-child{white-space:nowrap}"
    ".behind{background:#fbe3d6}.first{background:#d9f0e3}svg{max-width:100%;height:auto}</style>"
)


def html_page(records: Records, *, photographs: bool) -> str:
    """Return the whole page, with mosaics of photographs or with digit scenes alone."""
    shown = (*SCENES, *MOSAICS) if photographs else SCENES
    decided = {(m, place): pooled(records, place, m) for m in MEASURES for place in PLACES}
    return page(
        "The default of CF-CAM against the CAM family",
        STYLE,
        "<p>How the settings that <code>Settings()</code> has stand against the other methods, on "
        "pictures that no choice has seen. In words, with all numbers: "
        "<a href='default.md'>default.md</a>.</p>",
        heading("Verdicts"),
        paragraph(
            "Means over three networks that count alike; first and behind by Wilcoxon's test with "
            "Holm's correction for all other methods, p < 0.05. Higher is better, but for the "
            "correlation of two classes."
        ),
        _verdicts([verdict for _, verdict in decided.values()]),
        heading("Maps side by side"),
        paragraph(
            "The first ones of the report half, not chosen by eye, and the first class of each. "
            "The frame is where that class is. The preset reference is what the public code "
            "computes."
        ),
        _examples(shown),
        heading("Means with 95 % bootstrap intervals over blocks"),
        *(_plots(measure, decided) for measure in MEASURES),
        heading("Which methods the tests tell apart"),
        paragraph(
            "Mean rank over all blocks, 1 is best; a bar joins methods not told apart. Here Holm's "
            "correction is for all pairs of methods, so more is tied than in the verdicts, which "
            "test the default alone."
        ),
        *(_ranks(measure, decided) for measure in MEASURES),
        heading("Data set by data set"),
        *(_cells(records, measure, place) for measure in MEASURES for place in PLACES),
        heading("Robustness to noise"),
        _robust(records),
    )


def _verdicts(verdicts: list[Verdict]) -> str:
    head = ("measure", "layer", "default", "best other", "verdict", "compared with", "blocks")
    rows = [
        (
            MEASURES[v.measure],
            v.place,
            f"{v.mine:.3f}",
            f"{v.best.theirs:.3f} ({v.best.other})",
            v.word,
            deciding(v),
            str(v.blocks),
        )
        for v in verdicts
    ]
    drawn = table(head, rows)
    for word in ("first", "behind"):
        drawn = drawn.replace(f"<td>{word}</td>", f"<td class='{word}'>{word}</td>")
    return drawn


def _plots(measure: str, decided: dict[tuple[str, str], tuple[dict[str, Values], Verdict]]) -> str:
    drawn = []
    for place in PLACES:
        values = decided[measure, place][0]
        names = [name for name in values if name in FAST]
        ends = [bootstrap(values[name]) for name in names]
        drawn.append(
            intervals(
                f"{titled(measure)}, {place} layer",
                [_said(name) for name in names],
                [float(np.nanmean(values[name])) for name in names],
                [(each.low, each.high) for each in ends],
                label="lower is better" if measure in LOWER_IS_BETTER else "higher is better",
            )
        )
    return _row(drawn)


def _ranks(measure: str, decided: dict[tuple[str, str], tuple[dict[str, Values], Verdict]]) -> str:
    sign = -1 if measure in LOWER_IS_BETTER else 1
    drawn = []
    for place in PLACES:
        names, blocks = complete(decided[measure, place][0])
        found = compare_ranks(sign * blocks, names)
        title = f"{titled(measure)}, {place} layer, n = {found.friedman.blocks}"
        said = [_said(name) for name in found.names]
        drawn.append(critical_difference(title, said, found.mean_ranks, found.groups))
    return _row(drawn)


def _cells(records: Records, measure: str, place: str) -> str:
    """Return a table of methods by data set, the best of the fast ones in bold."""
    sign = -1 if measure in LOWER_IS_BETTER else 1
    sets = with_measure(measure)
    values = [cell(records, each, place, measure) for each in sets]
    verdicts = [on_cell(records, each, place, measure) for each in sets]
    best = [
        max((n for n in FAST if n in v), key=lambda n, v=v: sign * np.nanmean(v[n]), default="")
        for v in values
    ]
    rows = [
        f"<tr><td>{escape(_said(name))}</td>"
        + "".join(_number(v.get(name), bold=name == b) for v, b in zip(values, best, strict=True))
        + "</tr>"
        for name in FAMILY
    ]
    words = "".join(
        f"<td class='number {word}'>{word}</td>"
        for v in verdicts
        for word in [v.word.replace(" for first", "") if v else ""]
    )
    heads = "".join(f"<th>{escape(label(each))}</th>" for each in sets)
    return (
        f"<h3>{escape(titled(measure))}, {place} layer</h3><div class='wide'><table>"
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}"
        f"<tr><td><b>verdict on the default</b></td>{words}</tr></tbody></table></div>"
    )


def _number(column: Values | None, *, bold: bool) -> str:
    known = np.zeros(0) if column is None else column[np.isfinite(column)]
    if not known.size:
        return "<td></td>"
    few = f" ({known.size})" if known.size < 0.8 * len(column) else ""
    text = f"{known.mean():.3f}{few}"
    return f"<td class='number'>{f'<b>{text}</b>' if bold else text}</td>"


def _robust(records: Records) -> str:
    drawn = []
    for place in PLACES:
        for net in ("digits", "MobileNetV2", "SqueezeNet"):
            found = robustness(records, net, place)
            if found is None:
                continue
            chosen = [
                (score, ends.robustness)
                for score, ends in zip(found.scores, found.bootstrap(), strict=True)
                if score.method in FAST
            ]
            drawn.append(
                intervals(
                    f"RM, {net}, {place} layer",
                    [_said(score.method) for score, _ in chosen],
                    [score.robustness for score, _ in chosen],
                    [(ends.low, ends.high) for _, ends in chosen],
                    label="higher is better",
                )
            )
    return _row(drawn)


def _row(drawn: list[str]) -> str:
    return f"<div class='plots'>{''.join(drawn)}</div>"


def _examples(shown: Sequence[Any]) -> str:
    """Return a grid of pictures for each layer: one row an example, one column a method.

    A picture is held once, as a background; the maps above it are small, so the page stays light.
    """
    blocks = [
        (f"{net}, {KINDS[make]} {n}", make(net, REPORT, n)) for net, make, ns in shown for n in ns
    ]
    pictures = "".join(
        f".p{k}{{background:url({png.data_uri(_framed(block))}) center/cover}}"
        for k, (_, block) in enumerate(blocks)
    )
    grids = []
    for place in PLACES:
        cells = [
            f"<p>{text}</p>" for text in (f"<b>{place} layer</b>", "picture", *map(_said, SHOWN))
        ]
        for k, (title, block) in enumerate(blocks):
            cells.append(f"<p>{escape(title)}</p><div class='p{k}'></div>")
            cells += [
                f"<div class='p{k}'><img alt='{escape(name)}' src='{png.data_uri(heat)}'></div>"
                for name, each in zip(SHOWN, _maps(block, place), strict=True)
                for heat in [colours(each)]
            ]
        grids.append(f"<div class='maps'>{''.join(cells)}</div><br>")
    return f"<style>{pictures}</style>{''.join(grids)}"


def _said(name: str) -> str:
    return f"{name} default" if name == DEFAULT else name


def _maps(block: Block, place: str) -> list[NDArray[np.float32]]:
    """Return each shown method's map of the first target."""
    layer = block.network.layers[place]
    capture = block.network.backend.capture(block.inputs, layer=layer, target=block.targets)
    return [heatmaps(capture, FAMILY[name], (MAP_SIDE, MAP_SIDE))[0] for name in SHOWN]


def _framed(block: Block) -> NDArray[np.uint8]:
    """Return the picture of the first target with the edge of its mask in white."""
    assert block.masks is not None
    pixels = block.pixels[0]
    colour = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=-1)
    picture = np.rint(shrunk(colour, SIDE)).astype(np.uint8)
    places = np.arange(len(picture)) * len(block.masks[0]) // len(picture)
    mask = block.masks[0][places][:, places]
    inner = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(mask, step, axis=axis)
    picture[mask & ~inner] = 255
    return picture

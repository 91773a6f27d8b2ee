"""The page that `verification.py` writes: every number in it comes from what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("onnx", "onnxruntime", "torch", "transformers", "tensorflow", "keras", "tf2onnx")


@dataclass(frozen=True, slots=True)
class Row:
    """One layer of one exported file."""

    exporter: str
    label: str
    """``last`` or ``early``."""
    module: str
    is_default: bool
    """Whether cfcam takes this layer when none is named."""
    shape: tuple[int, ...]
    """Without the samples, channels first."""
    error: dict[str, float]
    """Of the gradients against the framework's in float32."""
    against_exact: dict[str, float]
    """Of the gradients against the framework's in float64; in float32 in a half file."""
    own: dict[str, float]
    """Of the framework's float32 against its float64; of float16 against float32 in a half file."""
    seconds: float
    """From the file to its first gradients."""
    ratios: list[float]
    """Forward and gradient against forward alone: one image, and eight where measured."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was found about one architecture."""

    name: str
    origin: str
    side: int
    parameters: int
    smooth: bool
    rows: list[Row]

    @staticmethod
    def of(kept: dict[str, Any]) -> Result:
        """Return what was written to a file of results."""
        return Result(**{**kept, "rows": [Row(**row) for row in kept["rows"]]})


TEMPLATE = Path(__file__).with_suffix(".md")


def page(results: list[Result], *, rounds: int) -> str:
    """Return the whole page."""
    plain = [(result, row) for result in results for row in result.rows if row.ratios]
    half = [(result, row) for result in results for row in result.rows if not row.ratios]
    others = sorted({r.name for r, row in plain if row.label == "last" and not row.is_default})
    return TEMPLATE.read_text().format(
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        side=results[0].side,
        rounds=rounds,
        summary=summary(results, plain),
        architectures="\n".join(map(architecture, results)),
        exceptions=f"; not so in {', '.join(others)}" if others else "",
        rows="\n".join(line(*pair) for pair in plain),
        half="\n".join(half_line(*pair) for pair in half),
        flips=flips(plain),
    )


def summary(results: list[Result], rows: list[tuple[Result, Row]]) -> str:
    """Say how far the worst rows are off."""
    files = {(result.name, row.exporter) for result, row in rows}
    smooth = [row.error["largest"] for result, row in rows if result.smooth]
    last = [row.error["largest"] for _, row in rows if row.label == "last"]
    kinks = [row for result, row in rows if row.label == "early" and not result.smooth]
    costs = [row.ratios[0] for _, row in rows if row.label == "last"]
    early = [row.ratios[0] for _, row in rows if row.label == "early"]
    return (
        f"{len(results)} architectures, {len(files)} files.\n"
        f"Largest difference (max) at nets without kinks, any layer: {max(smooth):.1e}; "
        f"at the last layer of any net: {max(last):.1e}.\n"
        f"At early layers of nets with kinks: L2 at most {max(r.error['l2'] for r in kinks):.1e}, "
        f"cosine at least {min(r.error['cosine'] for r in kinks):.4f}; "
        f"the frameworks' own L2 at most {max(r.own['l2'] for r in kinks):.1e}.\n"
        f"Cost at the last layer {min(costs):.2f} to {max(costs):.2f}, "
        f"at the early one {min(early):.2f} to {max(early):.2f}, for one image."
    )


def flips(rows: Iterable[tuple[Result, Row]]) -> str:
    """Say whose float32 is nearer to float64 at early layers of nets with kinks."""
    pairs = [
        (row.against_exact["l2"], row.own["l2"])
        for result, row in rows
        if row.label == "early" and not result.smooth
    ]
    nearer = sum(ours < theirs for ours, theirs in pairs)
    return (
        f"against the framework's float64, cfcam is nearer than the framework's own float32 in "
        f"{nearer} of {len(pairs)} such files, and farther in {len(pairs) - nearer}."
    )


def architecture(result: Result) -> str:
    """Return one line of the first table."""
    modules = {row.label: row.module for row in result.rows}
    return (
        f"| {result.name} | {result.origin} | {result.parameters / 1e6:.1f} M | "
        f"{'no' if result.smooth else 'yes'} | `{modules['last']}` | `{modules['early']}` |"
    )


def line(result: Result, row: Row) -> str:
    """Return one line of the float32 table."""
    numbers = [
        *(row.error["largest"], row.error["l2"], 1 - row.error["cosine"]),
        *(row.own["largest"], row.own["l2"]),
    ]
    return (
        f"| {result.name} | {row.exporter} | {row.label} | {' x '.join(map(str, row.shape))} | "
        f"{' | '.join(map(scientific, numbers))} | "
        f"{' / '.join(f'{ratio:.2f}' for ratio in row.ratios)} | {row.seconds:.1f} |"
    )


def half_line(result: Result, row: Row) -> str:
    """Return one line of the float16 table."""
    numbers = [
        *(row.error["l2"], 1 - row.error["cosine"]),
        *(row.own["l2"], 1 - row.own["cosine"]),
    ]
    return f"| {result.name} | {row.label} | {' | '.join(map(scientific, numbers))} |"


def scientific(number: float) -> str:
    """Return a number with one digit; what is below float64's rounding of a sum is 0."""
    return f"{number:.0e}" if abs(number) > 1e-15 else "0"

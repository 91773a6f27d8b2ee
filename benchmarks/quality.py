"""Which settings CF-CAM has by default, and how it stands against the CAM family.

Run: ``CFCAM_TEST_DATA=... make quality``, or ``python benchmarks/quality.py``, with the folder of
pretrained models and photographs; it writes ``docs/default.md`` and ``docs/default.html``, and the
latter once more with photographs to ``.quality``. What was measured is kept there, a line a piece
of work, and not measured again: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from multiprocessing import get_context
from time import monotonic
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np
from contest import BASELINE, FAMILY, FAST, SHARE, SLOW, SWEEP, measure, robust
from networks import network
from truth import CHOICE, DATASETS, REPORT, ROOT, DataSet, whole

from cfcam_core.evaluation.journal import open_journal

KEPT = ROOT / ".quality"
PLACES = ("last", "inner")
NOISY = {"digits": 40, "MobileNetV2": 11, "SqueezeNet": 11}
"""Pictures of each network that robustness is measured on."""
SWEPT_MOSAICS = 20
"""Clean mosaics of each network that settings are chosen on."""
SLOW_MOSAICS = 3
"""Clean mosaics of each network that the methods that ask the model are run on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work: one block, or one picture."""

    part: str
    """``report``, ``slow``, ``robust`` or ``sweep``."""
    kind: str
    """Name of the data set; for ``robust`` the layer."""
    network: str
    index: int

    @property
    def key(self) -> str:
        """Its name in the journal."""
        return f"{self.part}/{self.kind}/{self.network}/{self.index}"


def pieces() -> list[Piece]:
    """Return all there is to do, what matters most first."""

    def of(part: str, each: DataSet, count: int) -> list[Piece]:
        return [Piece(part, each.name, each.network, n) for n in range(count)]

    chosen_on = [each for each in DATASETS if not each.secondary and "noisy" not in each.name]
    few = {
        part: {each: most if "mosaics" in each.name else each.count for each in chosen_on}
        for part, most in (("sweep", SWEPT_MOSAICS), ("slow", SLOW_MOSAICS))
    }
    return [
        *(piece for each in DATASETS for piece in of("report", each, each.count)),
        *(
            Piece("robust", place, net, n)
            for net, count in NOISY.items()
            for place in PLACES
            for n in range(count)
        ),
        *(
            piece
            for part, counts in few.items()
            for each, count in sorted(counts.items(), key=cheap_first)
            for piece in of(part, each, count)
        ),
    ]


def cheap_first(item: tuple[DataSet, int]) -> tuple[bool, bool]:
    """Sort what the slow methods take longest for to the end."""
    each, _ = item
    return "mosaics" in each.name, each.network == "MobileNetV2"


def work(piece: Piece) -> tuple[Piece, dict[str, Any], float]:
    """Do one piece, and return it with what was found and the seconds it took."""
    start = monotonic()
    if piece.part == "robust":
        net = network(piece.network)
        found = robust(net, whole(piece.network, REPORT, piece.index), piece.index, piece.kind)
        return piece, found, monotonic() - start
    each = next(d for d in DATASETS if (d.name, d.network) == (piece.kind, piece.network))
    block = each.make(each.network, CHOICE if piece.part == "sweep" else REPORT, piece.index)
    contestants = {"report": FAST, "sweep": SWEEP, "slow": SLOW}[piece.part]
    if piece.part != "report":
        contestants = {**contestants, "random": FAMILY["random"]}
    if piece.part == "slow" and each.name == "photographs":
        block = block.first()
    found = measure(block, contestants, each.measures, PLACES)
    return piece, found, monotonic() - start


def header() -> dict[str, Any]:
    """Return what decides the numbers."""
    return {
        "settings": {name: settings.to_json() for name, (_, settings) in (FAMILY | SWEEP).items()},
        "data": [[each.name, each.network, each.measures] for each in DATASETS],
        "keep minus delete": [SHARE, BASELINE],
    }


def main() -> None:
    """Measure what is not there yet, and write the two pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pages-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    with open_journal(KEPT / "journal.jsonl", header()) as journal:
        records = dict(journal.done)
        left = [piece for piece in pieces() if piece.key not in records]
        if left and not arguments.pages_only:
            with get_context("spawn").Pool(arguments.processes) as pool:
                for done, (piece, found, seconds) in enumerate(pool.imap_unordered(work, left), 1):
                    record = {"found": rounded(found), "seconds": round(seconds, 2)}
                    journal.add(piece.key, record)
                    records[piece.key] = record
                    print(f"{done}/{len(left)} {piece.key} {seconds:.1f} s", flush=True)
    from default_html import html_page
    from default_page import page

    (ROOT / "docs" / "default.md").write_text(page(records))
    for place, photographs in ((ROOT / "docs", False), (KEPT, True)):
        (place / "default.html").write_text(html_page(records, photographs=photographs))
    print(f"docs/default.md, docs/default.html; with photographs: {KEPT / 'default.html'}")


def rounded(found: Any) -> Any:
    """Return the same with floats of six digits."""
    if isinstance(found, dict):
        return {name: rounded(each) for name, each in found.items()}
    if isinstance(found, np.ndarray | list):
        return [rounded(each) for each in found]
    if isinstance(found, float | np.floating):
        return float(f"{found:.6g}")
    return found


if __name__ == "__main__":
    main()

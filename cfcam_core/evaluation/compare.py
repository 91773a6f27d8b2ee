"""Methods x images x metrics: the run. One image with all methods and metrics is a piece of work.

What comes out is a `Comparison`; what was finished before stands in a `Journal`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias
from zlib import compress

from cfcam_core.backend import Backend
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.choices import (
    Column,
    MethodChoice,
    columns_of,
    default_methods,
    default_metrics,
    metrics_of,
)
from cfcam_core.evaluation.comparison import Comparison, gather
from cfcam_core.evaluation.identity import header_of
from cfcam_core.evaluation.journal import open_journal, work_through
from cfcam_core.evaluation.metrics import Case, Metric, Reading
from cfcam_core.evaluation.object_masks import at_size
from cfcam_core.evaluation.samples import Loaded, Sample, first_answer, read_samples
from cfcam_core.evaluation.thumbnails import SHOWN, small_map
from cfcam_core.explainer import finish
from cfcam_core.explanation import Explanation
from cfcam_core.methods import find_method
from cfcam_core.pictures import Pictures
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings
from cfcam_core.shuffling import checked_seed

Progress: TypeAlias = Callable[[int, int], None]
"""Called after every image with how many are done, and of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything that is the same for all images."""

    backend: Backend
    columns: tuple[Column, ...]
    metrics: Mapping[str, Metric]
    layer: Any
    seed: int


def compare(
    model: Any,
    images: Any,
    *,
    methods: Sequence[MethodChoice] | None = None,
    metrics: Sequence[str] | None = None,
    preprocess: str | None = None,
    layer: Any = None,
    target: Any = None,
    masks: Any = None,
    settings: Settings | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    journal: str | PathLike[str] | None = None,
    overwrite: bool = False,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Explain every image by every method and measure every map.

    Parameters
    ----------
    model : object, str or path
        As for `cfcam_core.explain`.
    images : path, sequence of paths, or array_like
        A folder, files, or a batch as the model takes it.
    methods : sequence, optional
        Names of `cfcam_core.methods`; with a preset, ``"cf-cam:reference"``; or a label, a name and
        settings, ``("mine", "cf-cam", Settings(filter="none"))``. Default: `default_methods`.
    metrics : sequence of str, optional
        Names of `METRICS`. Default: `default_metrics`.
    preprocess : str, optional
        For files, one of `cfcam_core.images.PREPROCESSINGS`. Default: as for ``cfcam explain``.
    layer : optional
        One layer, as for `cfcam_core.explain`.
    target : None, int, or sequence of int
        The class to explain: the best of each image, one for all, or one for each.
    masks : path, mapping, or array_like, optional
        Where the objects are: a folder with a file of the same stem for each image, masks by the
        image's name, or an array (N, *size). Not zero is the object.
    settings : Settings, optional
        For methods given by name alone.
    size : tuple of int, optional
        Height and width of pictures, where the model leaves them open.
    seed : int
        Of everything random. The same seed gives the same numbers.
    journal : path, optional
        File that remembers finished images. If the run is stopped, even by a kill, the next one
        with the same arguments goes on there.
    overwrite : bool
        Whether a journal of another run is begun anew.
    identity : mapping, optional
        What else decides the numbers, for the journal: of a model that you opened yourself, the
        digest of its file.
    progress : callable, optional
        Called with images done and in all.

    Returns
    -------
    Comparison
        Values, curves, small maps and statistics. What cannot be read is in its `failures`.

    Raises
    ------
    InvalidInputError
        A name is unknown, no image can be used, or the journal belongs to another run.
    CfcamError
        As for `cfcam_core.explain`.

    Notes
    -----
    Methods that do not ask the model share one `Capture` an image. Every number is what the
    measure's own function gives for that image alone.

    Examples
    --------
    >>> found = compare("model.onnx", "photos", journal="j.jsonl")  # doctest: +SKIP
    >>> found.to_html("index.html")  # doctest: +SKIP
    """
    columns = columns_of(default_methods() if methods is None else methods, settings)
    chosen = metrics_of(default_metrics(masks=masks is not None) if metrics is None else metrics)
    if isinstance(layer, list | tuple):
        raise InvalidInputError("layer is a list; a comparison looks at one layer")
    seed = checked_seed(seed)
    backend = open_model(model)
    if masks is None and any(metric.needs_mask for metric in chosen.values()):
        needing = ", ".join(name for name, metric in chosen.items() if metric.needs_mask)
        raise InvalidInputError(
            f"{needing}: masks are needed, which say where the objects are; pass masks, on the "
            "command line --masks"
        )
    samples = read_samples(
        backend, images, preprocess=preprocess, masks=masks, target=target, size=size
    )
    run = Run(backend, columns, chosen, layer, seed)
    place, answer = first_answer(backend, samples.items, layer)
    header = {
        **header_of(model, identity),
        "answer": answer,
        "layer": place,
        "methods": {c.label: c.described() for c in columns},
        "metrics": list(chosen),
        "preprocess": samples.preprocess or "none",
        "size": size,
        "seed": seed,
        "images": {each.name: each.content for each in samples.items},
    }
    with open_journal(
        None if journal is None else Path(journal), header, overwrite=overwrite
    ) as book:
        records, failures = work_through(
            book,
            [each.name for each in samples.items],
            lambda n: measure(run, samples.items[n], keep_maps=n < SHOWN),
            progress,
        )
    return gather(header, records, failures, _pictures(samples.items, records))


def measure(run: Run, sample: Sample, *, keep_maps: bool) -> dict[str, Any]:
    """Explain one image by all methods, and return what is to be remembered of it."""
    loaded = sample.load()
    explained = Explained(run, loaded, sample.target)
    parts = {
        column.label: _measure(run, loaded, explained, column, keep_maps=keep_maps)
        for column in run.columns
    }
    return {"target": explained.target, "methods": parts}


def _measure(
    run: Run, loaded: Loaded, explained: Explained, column: Column, *, keep_maps: bool
) -> dict[str, Any]:
    start = perf_counter()
    explanation = explained.by(column, explained.target)
    seconds = perf_counter() - start + explained.seconds
    mask = loaded.mask
    case = Case(
        backend=run.backend,
        inputs=loaded.inputs,
        scores=explained.scores,
        explanation=explanation,
        of_class=lambda other: explained.by(column, other),
        mask=None if mask is None else at_size(mask, explanation.heatmaps.shape[1:]),
        seed=run.seed,
    )
    values: dict[str, float] = {}
    curves: dict[str, Any] = {}
    for name, metric in run.metrics.items():
        found = metric.function(case)
        if isinstance(found, Reading):
            curves[name] = {"x": found.x, "y": found.y}
            found = found.value
        try:
            values[name] = float(found)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the metric {name!r} returned a {type(found).__name__}; wanted a float or a "
                "Reading"
            ) from error
    small = small_map(explanation.heatmaps[0])
    kept = {"map": b64encode(compress(small.tobytes(), 9)).decode(), "shape": small.shape}
    return {
        "status": explanation.status[0],
        "seconds": round(seconds, 6),
        "values": values,
        "curves": curves,
        **(kept if keep_maps else {}),
    }


class Explained:
    """One image and its captures: each class is captured once, whatever asks for it."""

    def __init__(self, run: Run, loaded: Loaded, target: int | None) -> None:
        self._run, self._inputs = run, loaded.inputs
        self._captures: dict[int, Capture] = {}
        self._pictures: dict[int, Pictures] = {}
        start = perf_counter()
        capture = run.backend.capture(loaded.inputs, layer=run.layer, target=target)
        self.seconds = perf_counter() - start
        """Time that the capture took, which each method would need for itself."""
        if capture.scores is None or capture.targets is None:
            raise InvalidInputError(
                "the model gives no logits (N, K), and the measures are about classes; name the "
                "output that holds the logits"
            )
        self.scores = capture.scores[0]
        self.target = int(capture.targets[0])
        self._captures[self.target] = capture

    def by(self, column: Column, target: int) -> Explanation:
        """Return the explanation of a class by a method."""
        if target not in self._captures:
            self._captures[target] = self._run.backend.capture(
                self._inputs, layer=self._run.layer, target=target
            )
        asks = find_method(column.method).asks_model
        if asks and target not in self._pictures:
            self._pictures[target] = Pictures.of(self._run.backend, self._inputs, target=target)
        pictures = self._pictures[target] if asks else None
        return finish(self._captures[target], column.method, column.settings, None, pictures)


def _pictures(samples: Sequence[Sample], records: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pictures that a page shows; None where a file is gone by now."""
    pictures: dict[str, Any] = {}
    for sample in samples[:SHOWN]:
        if sample.name in records:
            with suppress(InvalidInputError, OSError):
                pictures[sample.name] = None
                pictures[sample.name] = sample.load().picture
    return pictures

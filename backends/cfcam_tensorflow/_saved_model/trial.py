"""What a trial run shows of a SavedModel: the sizes of its maps, tokens on grids, the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import CfcamError, InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_core.layers import find_default
from cfcam_core.layout import Layout, patches_on
from cfcam_tensorflow._saved_model.classifier import SavedClassifier
from cfcam_tensorflow._saved_model.inputs import Feeds, guessed
from cfcam_tensorflow._saved_model.layers import PASSED_OVER, Site
from cfcam_tensorflow._saved_model.programs import Programs

SAMPLES = 2
"""Samples of a trial, at most: with two it shows which tensors have no batch in front."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a trial run has shown."""

    sites: tuple[Site, ...]
    """Maps that all paths run through, with a grid, in order."""
    default: str | None
    """Name of the one that is explained if none is named."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of all tensors that could be maps."""
    size: tuple[int, ...]
    """Of the picture."""
    grids: tuple[tuple[int, ...], ...]
    """Those that the picture was laid out on, in order."""

    def layout(self, site: Site) -> Layout:
        """Return how a layer's tensor lies: tokens of a picture are laid out on a grid seen."""
        if len(site.shape) != 3 or len(self.size) != 2:
            return Layout(site.name, site.channels)
        patches = patches_on(self.shapes[site.tensor][3 - site.channels], self.grids)
        return Layout(site.name, site.channels, patches, self.size)


def run_trial(model: SavedClassifier, programs: Programs, feeds: Feeds | None) -> Seen:
    """Run a model and look at its maps.

    Parameters
    ----------
    model : SavedClassifier
    programs : Programs
    feeds : dict of str to ndarray, optional
        Default: noise.

    Raises
    ------
    InvalidInputError
        It cannot be run on these.
    """
    given = guessed(model.inputs) if feeds is None else feeds
    samples = programs.batch or min(SAMPLES, len(next(iter(given.values()))))
    given = {name: np.resize(one, (samples, *one.shape[1:])) for name, one in given.items()}
    try:
        shapes = dict(zip(model.maps, programs.shapes(model.maps, given), strict=True))
    except CfcamError as error:
        if feeds is not None:
            raise
        raise InvalidInputError(
            f"the model does not run on noise: {error}. Give inputs for a trial run: "
            "open_model(model, example=inputs)"
        ) from error
    sites = tuple(
        site
        for site in map(model.site, model.cuts)
        if shapes[site.tensor][0] == samples and min(_grid(site, shapes[site.tensor])) > 1
    )
    grids = tuple(_grid(site, shapes[site.tensor]) for site in sites if len(site.shape) == 4)
    seen = Seen(sites, None, shapes, model.picture.size(given), grids)
    return replace(seen, default=_default(model, programs, seen, given))


def _grid(site: Site, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(shape) if axis not in {0, site.channels})


def _default(model: SavedClassifier, programs: Programs, seen: Seen, feeds: Feeds) -> str | None:
    """Return the name of the layer that is explained if none is named."""
    made = [site for site in seen.sites if site.kind not in PASSED_OVER]
    sites = [site for site in made if site.tensor in model.main] or made
    ends, rng = programs.forward(feeds), np.random.default_rng(0)
    seeds = (
        [np.full((len(ends[0]), 1), np.nan, np.float32)]
        if model.is_classifier
        else [rng.standard_normal(end.shape).astype(np.float32) for end in ends]
    )

    def maps(site: Site, array: NDArray[Any]) -> NDArray[Any]:
        return seen.layout(site).maps(array, model.size_of(site, feeds))

    def gradient(i: int) -> NDArray[Any] | None:
        try:
            _, _, (found,) = programs.gradients([sites[i].tensor], feeds, seeds)
        except (LayerNotFoundError, UnsupportedOpError):
            return None
        return maps(sites[i], found)

    nothing = [np.broadcast_to(np.float32(0), seen.shapes[site.tensor]) for site in sites]
    shapes = [maps(site, one).shape for site, one in zip(sites, nothing, strict=True)]
    found = find_default(shapes, axes=len(seen.size), gradient=gradient, is_cut=lambda _: True)
    return None if found is None else sites[found].name

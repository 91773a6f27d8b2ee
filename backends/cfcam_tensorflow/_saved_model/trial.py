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
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._saved_model.classifier import SavedClassifier, Site
from cfcam_tensorflow._saved_model.programs import Programs

SAMPLES = 2
"""Samples of a trial: with two it shows which tensors have no batch in front."""

PASSED_OVER = frozenset(
    {
        *("AvgPool", "AvgPool3D", "BatchToSpaceND", "Cast", "ExpandDims", "Identity"),
        *("MaxPool", "MaxPool3D", "MaxPoolV2", "MirrorPad", "Pad", "PadV2", "Reshape", "Slice"),
        *("SpaceToBatchND", "Squeeze", "StridedSlice", "Transpose"),
    }
)
"""Operators whose output is no default layer: what they read says as much, on no coarser grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
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

    def layout(self, site: Site, size: tuple[int, ...] | None) -> Layout:
        """Return how a layer's tensor lies: tokens of a picture are laid out on a grid seen.

        `size` is that of the input that it is made of.
        """
        if len(site.spatial) != 1 or len(size or ()) != 2:
            return Layout(site.name, site.channels)
        patches = patches_on(self.shapes[site.tensor][3 - site.channels], self.grids)
        return Layout(site.name, site.channels, patches, self.size)


def run_trial(model: SavedClassifier, programs: Programs, feeds: Feeds | None) -> Trial:
    """Run a model, on noise if there is nothing else, and look at its maps."""
    given = feeds or model.inputs.guess()
    if given is None:
        raise InvalidInputError(
            "the SavedModel does not say what shape its inputs have; give some for a trial run: "
            "open_model(model, example=inputs)"
        )
    samples = programs.batch or SAMPLES
    given = Feeds([np.resize(x, (samples, *x.shape[1:])) for x in given.arrays], given.hold)
    fed = model.tensors(given)
    try:
        shapes = dict(zip(model.maps, programs.shapes([*model.maps], fed), strict=True))
    except CfcamError as error:
        if feeds is not None:
            raise
        raise InvalidInputError(
            f"the model does not run on noise: {error}. Give inputs for a trial run: "
            "open_model(model, example=inputs)"
        ) from error
    grids = {site: tuple(shapes[site.tensor][axis] for axis in site.spatial) for site in model.cuts}
    sites = [s for s in model.cuts if shapes[s.tensor][0] == samples and min(grids[s]) > 1]
    pictures = tuple(grids[site] for site in sites if len(site.spatial) == 2)
    trial = Trial(tuple(sites), None, shapes, model.size_of(model.picture, given) or (), pictures)
    return replace(trial, default=_default(model, programs, trial, given))


def _default(model: SavedClassifier, programs: Programs, trial: Trial, feeds: Feeds) -> str | None:
    """Return the name of the layer that is explained if none is named."""
    made = [site for site in trial.sites if site.kind not in PASSED_OVER]
    sites = [site for site in made if site.tensor in model.main] or made
    fed, rng = model.tensors(feeds), np.random.default_rng(0)
    ends = [] if model.is_classifier else programs.tensors(model.ends, fed)
    seeds = [rng.standard_normal(end.shape).astype(np.float32) for end in ends]

    def maps(site: Site, array: NDArray[Any]) -> NDArray[Any]:
        size = model.size_of(site, feeds)
        return trial.layout(site, size).maps(array, size)

    def gradient(i: int) -> NDArray[Any] | None:
        try:
            _, _, (found,) = programs.gradients([sites[i].tensor], fed, seeds)
        except (LayerNotFoundError, UnsupportedOpError):
            return None
        return maps(sites[i], found)

    nothing = [np.broadcast_to(np.float32(0), trial.shapes[site.tensor]) for site in sites]
    shapes = [maps(site, one).shape for site, one in zip(sites, nothing, strict=True)]
    found = find_default(shapes, axes=len(trial.size), gradient=gradient)
    return None if found is None else sites[found].name

"""Scenes with ground truth: two different handwritten digits on a cluttered 64 x 64 canvas.

The digits are scikit-learn's (1797 real ones, 8 x 8, 10 classes). Each scene knows the exact pixels
of either digit, so a heatmap for one of them can be scored. Everything follows from a seed. This
module needs NumPy, SciPy and scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits

FloatArray = NDArray[np.float64]
Box = tuple[slice, slice]

CANVAS = 64
"""Side of a scene in pixels."""
DIGIT = (20, 28)
"""Least and largest side of a digit's box in pixels."""
TILT = 12.0
"""Largest rotation of a digit in degrees, either way."""
INK = (0.7, 1.0)
"""Range of a digit's brightness."""
CLUTTER = (0.2, 0.7)
"""Range of the brightness of clutter; overlaps that of the digits on purpose."""
BLOBS, STROKES, FRAGMENTS = (1, 3), (1, 3), (2, 4)
"""Least and largest number of each kind of clutter in a scene."""
NOISE = 0.05
"""Standard deviation of the noise on every pixel."""
HELD_OUT = 0.25
"""Share of the source digits that only test scenes are made from."""
SPLIT_SEED = 0
"""Decides which digits are held out."""
TRAINING_SEED, TEST_SEED, SHIPPED_SEED = 1, 2, 3
"""Of the scenes."""
SHIPPED = 6
"""Scenes that come with the package."""


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """A set of scenes; digit i of scene n is ``labels[n, i]`` and covers ``masks[n, i]``."""

    images: NDArray[np.uint8]
    """(N, 64, 64)."""
    labels: NDArray[np.intp]
    """(N, 2): the classes of the two digits, never equal."""
    masks: NDArray[np.uint8]
    """(N, 2, 64, 64): 1 where the digit's ink is, 0 elsewhere; the two never overlap."""
    sources: NDArray[np.intp]
    """(N, 2): indices of the two digits in `sklearn.datasets.load_digits`."""


def split_digits(seed: int = SPLIT_SEED) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the source digits for training and of those held out, disjoint."""
    count = len(_digits()[0])
    shuffled = np.random.default_rng(seed).permutation(count)
    held_out = round(count * HELD_OUT)
    return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])


def make_scenes(count: int, sources: NDArray[np.intp], seed: int) -> Scenes:
    """Draw scenes from the source digits of the given indices.

    Parameters
    ----------
    count : int
        How many.
    sources : ndarray of int
        Indices into `sklearn.datasets.load_digits` that digits and fragments are taken from.
    seed : int
        The first n scenes of a seed are the same for every `count` of at least n.
    """
    drawn = [_scene(np.random.default_rng((seed, n)), sources) for n in range(count)]
    images, masks, chosen = (np.stack(part) for part in zip(*drawn, strict=True))
    return Scenes(images, _digits()[1][chosen], masks, chosen)


def shipped_scenes() -> Scenes:
    """Return the scenes that `cfcam demo` shows, made from held-out digits."""
    return make_scenes(SHIPPED, split_digits()[1], SHIPPED_SEED)


def multi_hot(labels: NDArray[np.intp], classes: int = 10) -> NDArray[np.float32]:
    """Return (N, classes) float32: 1 for each class that a row of `labels` names."""
    return (labels[:, :, None] == np.arange(classes)).any(axis=1).astype(np.float32)


def _scene(
    rng: np.random.Generator, sources: NDArray[np.intp]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.intp]]:
    """Draw one scene: background, clutter, then the two digits over it, then noise."""
    pictures, classes = _digits()
    chosen = rng.choice(sources, 2, replace=False)
    while classes[chosen[0]] == classes[chosen[1]]:
        chosen = rng.choice(sources, 2, replace=False)

    canvas = _background(rng)
    for _ in range(_some(rng, FRAGMENTS)):
        fragment = _fragment(rng, pictures[rng.choice(sources)])
        _paint(canvas, fragment, _anywhere(rng, len(fragment)), rng.uniform(*CLUTTER))
    for _ in range(_some(rng, STROKES)):
        _paint(canvas, _stroke(rng), _anywhere(rng, CANVAS), rng.uniform(*CLUTTER))

    inks = [_digit(rng, pictures[index]) for index in chosen]
    masks = np.zeros((2, CANVAS, CANVAS), np.uint8)
    for ink, box, mask in zip(inks, _apart(rng, *map(len, inks)), masks, strict=True):
        _paint(canvas, ink, box, rng.uniform(*INK))
        mask[box] = ink > 0.5
    canvas += rng.normal(0, NOISE, canvas.shape)
    return np.round(255 * canvas.clip(0, 1)).astype(np.uint8), masks, chosen


def _digit(rng: np.random.Generator, picture: FloatArray) -> FloatArray:
    """Return the 8 x 8 picture enlarged and tilted, as the opacity of its ink."""
    side = int(rng.integers(DIGIT[0], DIGIT[1] + 1))
    angle = np.deg2rad(rng.uniform(-TILT, TILT))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _enlarged(picture, side, turn)


def _fragment(rng: np.random.Generator, picture: FloatArray) -> FloatArray:
    """Return a 4 x 4 piece of a digit, enlarged and turned any way: ink that makes no digit."""
    row, column = rng.integers(0, 5, 2)
    piece = np.pad(picture[row : row + 4, column : column + 4], 1)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _enlarged(piece, int(rng.integers(12, 19)), turn)


def _enlarged(picture: FloatArray, side: int, turn: FloatArray) -> FloatArray:
    """Return the picture at side x side by cubic splines, its edges made crisp."""
    matrix = turn * (len(picture) / side)
    middle = np.full(2, (len(picture) - 1) / 2)
    offset = middle - matrix @ np.full(2, (side - 1) / 2)
    smooth = affine_transform(picture, matrix, offset, (side, side), order=3)
    return (2.5 * (smooth - 0.5) + 0.5).clip(0, 1)


def _stroke(rng: np.random.Generator) -> FloatArray:
    """Return the opacity of a pen stroke across the canvas: a quadratic curve of even width."""
    start, bend, end = rng.uniform(-6, CANVAS + 6, (3, 2))
    t = np.linspace(0, 1, 96)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    axis = np.arange(CANVAS)
    rows = (axis - points[:, :1]) ** 2
    columns = (axis - points[:, 1:]) ** 2
    distance = np.sqrt((rows[:, :, None] + columns[:, None, :]).min(axis=0))
    return (rng.uniform(0.8, 1.8) + 0.5 - distance).clip(0, 1)


def _background(rng: np.random.Generator) -> FloatArray:
    """Return a dark canvas with a few soft blobs of light."""
    axis = np.arange(CANVAS)
    canvas = np.full((CANVAS, CANVAS), rng.uniform(0, 0.15))
    for _ in range(_some(rng, BLOBS)):
        row, column = rng.uniform(0, CANVAS, 2)
        width, height = rng.uniform(5, 16, 2)
        blob = np.outer(
            np.exp(-0.5 * ((axis - row) / height) ** 2),
            np.exp(-0.5 * ((axis - column) / width) ** 2),
        )
        canvas += rng.uniform(0.1, 0.4) * blob
    return canvas


def _paint(canvas: FloatArray, opacity: FloatArray, box: Box, level: float) -> None:
    """Lay ink of one brightness over a part of the canvas, in place."""
    canvas[box] += opacity * (level - canvas[box])


def _apart(rng: np.random.Generator, first: int, second: int) -> tuple[Box, Box]:
    """Return boxes of these sides at random places where they do not overlap."""
    while True:
        one, other = _anywhere(rng, first), _anywhere(rng, second)
        if any(a.stop <= b.start or b.stop <= a.start for a, b in zip(one, other, strict=True)):
            return one, other


def _anywhere(rng: np.random.Generator, side: int) -> Box:
    row, column = map(int, rng.integers(0, CANVAS - side + 1, 2))
    return slice(row, row + side), slice(column, column + side)


def _some(rng: np.random.Generator, least_and_largest: tuple[int, int]) -> int:
    return int(rng.integers(least_and_largest[0], least_and_largest[1] + 1))


@cache
def _digits() -> tuple[FloatArray, NDArray[np.intp]]:
    """Return scikit-learn's digits in [0, 1], shape (1797, 8, 8), and their classes."""
    digits = load_digits()
    return digits.images / 16, digits.target

"""Keras on JAX: the run is a function of zeros that are added at the taps, and `jax.vjp` has it.

It is traced twice: once for the shapes of the zeros, without computing anything, and once as it
computes. Nothing is compiled that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import local
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, get_opaque_trace_state
from numpy.typing import NDArray

from cfcam_tensorflow._engines import Recording, Run

KEEPS_NOTES = False

_HERE = local()


def tensor(array: NDArray[Any]) -> Any:
    """Return an array as a tensor of its dtype, or of half as many bits where JAX has no more."""
    return jnp.array(array)


def array(x: Any) -> NDArray[Any]:
    """Return a tensor as an array, float32 from any float."""
    return np.asarray(x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x)


def is_value(x: Any) -> bool:
    """Return whether `x` is a tensor of floats that the run itself computes.

    What is traced within it, in the body of a loop or of a compiled function, is none.
    """
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        return False
    level = getattr(_HERE, "level", None)
    return not isinstance(x, jax.core.Tracer) if level is None else level == _level()


def forward(run: Run) -> tuple[Any, Mapping[str, Any]]:
    """Run without recording."""
    taken: dict[str, Any] = {}

    def tap(place: str, x: Any) -> Any:
        taken[place] = x
        return x

    with _running():
        return run(tap), taken


def record(run: Run) -> Recording:
    """Run with zeros added at the last tap of each place."""
    places: Counter[str] = Counter()
    like: dict[str, Any] = {}

    def shaped() -> Any:
        def tap(place: str, x: Any) -> Any:
            places[place] += 1
            like[place] = (x.shape, x.dtype)
            return x

        with _running():
            return run(tap)

    jax.eval_shape(shaped)
    zeros = {place: jnp.zeros(*form) for place, form in like.items()}

    def moved(deltas: Mapping[str, Any]) -> Any:
        numbers: Counter[str] = Counter()
        taken: dict[str, Any] = {}

        def tap(place: str, x: Any) -> Any:
            numbers[place] += 1
            if numbers[place] < places[place]:
                return x
            taken[place] = x
            return x + deltas[place]

        with _running():
            return run(tap), taken

    explained, back, taken = jax.vjp(moved, zeros, has_aux=True)

    def pull(cotangents: NDArray[Any]) -> dict[str, NDArray[np.float32] | None]:
        seeds = jnp.asarray(cotangents, explained.dtype)
        found = {place: array(g) for place, g in back(seeds)[0].items()}
        if all(g.any() for g in found.values()):
            return dict(found)
        ways = _ways(back, seeds)
        return {place: g if ways[place] else None for place, g in found.items()}

    return Recording(explained, taken, pull)


def _level() -> Any:
    """Return what is different inside each transformation."""
    return get_opaque_trace_state(convention="flax")  # type: ignore[no-untyped-call]


@contextmanager
def _running() -> Iterator[None]:
    """Remember, for this thread, in which transformation the run itself is."""
    before = getattr(_HERE, "level", None)
    _HERE.level = _level()
    try:
        yield
    finally:
        _HERE.level = before


def _ways(back: Callable[[Any], Any], seeds: Any) -> dict[str, bool]:
    """Return the places whose gradient depends on the cotangents, zero or not.

    That of all others is zero because there is no way to them.
    """
    closed, shapes = jax.make_jaxpr(back, return_shape=True)(seeds)
    reached = set(closed.jaxpr.invars)
    for equation in closed.jaxpr.eqns:
        if any(not isinstance(x, Literal) and x in reached for x in equation.invars):
            reached.update(equation.outvars)
    ends = [not isinstance(x, Literal) and x in reached for x in closed.jaxpr.outvars]
    return dict(zip(sorted(shapes[0]), ends, strict=True))  # as JAX sorts what dicts hold

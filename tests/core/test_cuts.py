"""Cut points, against what happens when a value is taken away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cfcam_core.cuts import cut_points

Steps = list[tuple[tuple[str, ...], tuple[str, ...]]]


@st.composite
def graphs(draw: st.DrawFn) -> Steps:
    """Draw steps that read what earlier ones made, or sources ``s0`` and ``s1``, and make one."""
    known, steps = ["s0", "s1", "constant"], []
    for i in range(draw(st.integers(1, 9))):
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        steps.append((tuple(reads), (f"v{i}",)))
        known.append(f"v{i}")
    return steps


def needed(steps: Steps, end: str) -> Steps:
    wanted, found = {end}, []
    for reads, makes in reversed(steps):
        if wanted.intersection(makes):
            wanted.update(reads)
            found.append((reads, makes))
    return found[::-1]


def is_reached(steps: Steps, sources: set[str], end: str, without: str) -> bool:
    flowing = sources - {without}
    for reads, makes in steps:
        if flowing.intersection(reads):
            flowing.update(set(makes) - {without})
    return end in flowing


@given(graphs(), st.sampled_from([{"s0"}, {"s0", "s1"}]))
def test_the_end_is_lost_without_a_cut_point_and_with_any_other_taken_away(
    steps: Steps, sources: set[str]
) -> None:
    end = steps[-1][1][0]
    steps = needed(steps, end)
    found = cut_points(steps, sources, [end])
    if is_reached(steps, sources, end, without=""):
        values = [*sorted(sources), *(makes[0] for _, makes in steps)]
        lost = [one for one in values if not is_reached(steps, sources, end, without=one)]
        assert found == lost
    else:
        assert found == []


def test_a_branch_and_several_ends() -> None:
    steps = [("s", "a"), ("a", "b"), ("ab", "c"), ("c", "de"), ("d", "f")]
    assert cut_points(steps, "s", "f") == list("sacdf")
    assert cut_points(steps, "s", "fe") == list("sac")
    assert cut_points(steps, "z", "f") == []

"""The ladder: where it ends up, and the shape of its lattice."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscale.search.ladder import OCTAVE, first_rungs, lr_at, next_rungs, place_of


def climb(objective: Callable[[int], float], trials: int, low: float = 2**-12, high: float = 1.0) -> dict[int, float]:
    tried: dict[int, float] = {}
    rungs = first_rungs(low, high, trials)
    while rungs:
        tried |= {k: objective(k) for k in rungs}
        rungs = next_rungs(tried, trials - len(tried)) if len(tried) < trials else []
    return tried


@given(st.integers(-800, 800), st.integers(-60, 60))
def test_octaves_are_exact(k: int, octaves: int) -> None:
    assert lr_at(k + OCTAVE * octaves) == math.ldexp(lr_at(k), octaves)
    assert place_of(lr_at(k)) == k


@given(st.integers(-96, 0), st.integers(18, 40), st.booleans())
def test_the_optimum_inside_the_interval_is_found_and_surrounded(optimum: int, trials: int, cliff: bool) -> None:
    tried = climb(lambda k: math.inf if cliff and k > optimum + 5 else 1.0 + (k - optimum) ** 2, trials)
    assert len(tried) == trials
    best = min(tried, key=lambda k: tried[k])
    assert abs(best - optimum) <= 1
    places = sorted(tried)
    i = places.index(best)
    assert best - places[i - 1] <= 4 and places[i + 1] - best <= 4


@given(st.sampled_from([-150, -120, 20, 50]))
def test_it_widens_beyond_its_interval(optimum: int) -> None:
    tried = climb(lambda k: 1.0 + abs(k - optimum), 24)
    assert min(abs(k - optimum) for k in tried) <= 2


def test_where_everything_diverges_it_looks_lower() -> None:
    tried = climb(lambda k: math.inf if k > -200 else 1.0 - k, 20)
    assert min(tried) < -200


@given(st.integers(1, 60), st.lists(st.floats(0.1, 10) | st.just(math.inf), min_size=60, max_size=60))
def test_it_asks_for_nothing_twice_and_for_no_more_than_it_may(trials: int, values: list[float]) -> None:
    it = iter(values * 2)
    tried = climb(lambda k: next(it), trials)
    assert len(tried) == trials


@pytest.mark.parametrize("factor", [2, 4, 16, 1024])
def test_a_problem_that_is_shifted_by_octaves_ends_in_shifted_places(factor: int) -> None:
    shift = OCTAVE * int(math.log2(factor))
    at = climb(lambda k: 1.0 + (k + 30) ** 2, 20, low=2**-16)
    shifted = climb(lambda k: 1.0 + (k + 30 + shift) ** 2, 20, low=2**-16)
    assert min(shifted, key=lambda k: shifted[k]) == min(at, key=lambda k: at[k]) - shift

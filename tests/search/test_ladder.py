"""The ladder: it covers its interval, refines every basin that could hold the best, and keeps inside its bounds."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscale.search.ladder import OCTAVE, Tried, ends_of, first_rungs, lr_at, next_rungs, place_of

LOW, HIGH = 2**-12, 1.0


def climb(
    objectives: Sequence[Callable[[int], float]], trials: int, low: float = LOW, high: float = HIGH, widen: bool = False
) -> list[dict[int, list[float]]]:
    """Walks the ladder of cells that share their points, with three seeds that agree."""
    members: list[dict[int, list[float]]] = [{} for _ in objectives]
    rungs = first_rungs(low, high, trials)
    while rungs:
        assert not set(rungs) & set(members[0]) and len(set(rungs)) == len(rungs)
        for member, objective in zip(members, objectives, strict=True):
            member |= {k: [objective(k)] * 3 for k in rungs}
        left = trials - len(members[0])
        rungs = next_rungs(members, left, low, high, widen) if left else []
    return members


def best_of(tried: Tried) -> int:
    return min(tried, key=lambda k: (tried[k][0], k))


def gaps(tried: Tried, k: int) -> tuple[int, int]:
    """The distances from a point to its neighbours."""
    points = sorted(tried)
    i = points.index(k)
    return k - points[i - 1], points[i + 1] - k


def valley(optimum: float, cliff: float = math.inf) -> Callable[[int], float]:
    """Shaped like fixed epochs: forgetting below the optimum, noise above, and divergence beyond."""
    return lambda k: (
        math.inf if k > optimum + cliff else math.exp(2 - 2 * 2 ** ((k - optimum) / 8)) + 0.1 * 2 ** ((k - optimum) / 8)
    )


@given(st.integers(-800, 800), st.integers(-60, 60))
def test_octaves_are_exact(k: int, octaves: int) -> None:
    assert lr_at(k + OCTAVE * octaves) == math.ldexp(lr_at(k), octaves)
    assert place_of(lr_at(k)) == k


@given(st.floats(1e-9, 1), st.floats(1e-3, 20), st.integers(1, 40))
def test_the_interval_is_covered_before_it_is_refined(low: float, octaves: float, trials: int) -> None:
    high = low * 2**octaves
    bottom, top = ends_of(low, high)
    rungs = first_rungs(low, high, trials)
    assert rungs == sorted(set(rungs)) and len(rungs) <= trials and bottom <= rungs[0] and rungs[-1] <= top
    spread = max(min(abs(k - rung) for rung in rungs) for k in range(bottom, top + 1))
    assert spread <= max(OCTAVE, math.ceil((top - bottom) / 2 / trials))
    assert len(rungs) == trials or spread <= OCTAVE


def test_an_interval_that_a_short_study_left_uncovered_is_covered_first() -> None:
    tried = {k: [1.0 + (k + 60) ** 2] for k in first_rungs(LOW, HIGH, 3)}
    holes = next_rungs([tried], 20, LOW, HIGH)
    points = [*tried, *holes]
    assert len(holes) == 4 and max(min(abs(k - point) for point in points) for k in range(-96, 1)) <= OCTAVE


@given(st.integers(-90, -12), st.sampled_from([4, 30, math.inf]))
def test_one_basin_is_found_and_closed_in_to_an_eighth_of_an_octave(optimum: int, cliff: float) -> None:
    """Half of the trials cover the 12 octaves; the other eight suffice."""
    (tried,) = climb([valley(optimum, cliff)], 16)
    assert len(tried) == 16
    truth = min(range(-96, 1), key=valley(optimum, cliff))
    assert abs(best_of(tried) - truth) <= 1
    assert max(gaps(tried, best_of(tried))) <= 2


@given(st.integers(-90, -50), st.integers(-38, -6), st.booleans())
def test_two_basins_that_are_alike_are_both_refined(left: int, right: int, swap: bool) -> None:
    deeper, other = (left, right) if swap else (right, left)

    def objective(k: int) -> float:
        return min(1.0 + (k - deeper) ** 2, 1.1 + (k - other) ** 2)

    (tried,) = climb([objective], 32)
    assert deeper in tried and other in tried
    assert max(gaps(tried, deeper)) == max(gaps(tried, other)) == 1


def test_a_basin_within_the_noise_of_the_seeds_is_refined_and_one_beyond_it_is_not() -> None:
    def tried(margin: float, noise: float) -> dict[int, list[float]]:
        base = {k: min(1 + 0.01 * abs(k + 80), 1 + margin + 0.01 * abs(k + 20)) for k in range(-96, 1, 4)}
        return {k: [v, v + noise * (k == -20), v - noise * (k == -20)] for k, v in base.items()}

    def refined(curve: Tried) -> set[int]:
        return {round(k / 50) for k in next_rungs([curve], 40, LOW, HIGH)}

    assert refined(tried(0.1, 0.001)) == {-2}
    assert refined(tried(0.1, 0.2)) == {-2, 0}


def test_each_member_has_its_minimum_bracketed() -> None:
    members = climb([lambda k: 1.0 + (k + 70) ** 2, lambda k: 1.0 + (k + 21) ** 2], 24)
    assert [best_of(m) for m in members] == [-70, -21]
    assert [gaps(m, best_of(m)) for m in members] == [(1, 1), (1, 1)]
    assert members[0].keys() == members[1].keys()


@given(st.sampled_from([-150, -120, 20, 50]), st.integers(4, 40))
def test_the_interval_is_a_bound(optimum: int, trials: int) -> None:
    (tried,) = climb([lambda k: 1.0 + abs(k - optimum)], trials)
    assert len(tried) == trials and min(tried) >= -96 and max(tried) <= 0
    if trials >= 10:
        assert best_of(tried) == (-96 if optimum < 0 else 0)


def test_an_interval_ends_when_all_its_points_are_tried() -> None:
    (tried,) = climb([float], 40, 0.5, 1.0)
    assert sorted(tried) == list(range(-8, 1))
    (one,) = climb([float], 4, 0.505, 0.51)
    assert list(one) == [-8]


@given(st.sampled_from([-150, -120, 20, 50]))
def test_it_widens_beyond_its_interval_when_asked(optimum: int) -> None:
    (tried,) = climb([lambda k: 1.0 + abs(k - optimum)], 24, widen=True)
    assert min(abs(k - optimum) for k in tried) <= 2


def test_where_everything_diverges_it_looks_lower() -> None:
    def objective(k: int) -> float:
        return math.inf if k > -200 else 1.0 - k

    assert min(climb([objective], 24, widen=True)[0]) < -200
    assert min(climb([objective], 24)[0]) == -96


@given(st.integers(1, 60), st.lists(st.floats(0.1, 10) | st.just(math.inf), min_size=60, max_size=60), st.booleans())
def test_it_asks_for_nothing_twice_and_for_no_more_than_it_may(trials: int, values: list[float], widen: bool) -> None:
    it = iter(values * 4)
    (tried,) = climb([lambda k: next(it)], trials, widen=widen)
    assert len(tried) == trials


@pytest.mark.parametrize("factor", [2, 4, 16, 1024])
def test_a_problem_that_is_shifted_by_octaves_is_tried_at_shifted_points(factor: int) -> None:
    shift = OCTAVE * int(math.log2(factor))
    (at,) = climb([lambda k: 1.0 + (k + 30) ** 2], 20)
    (shifted,) = climb([lambda k: 1.0 + (k + 30 + shift) ** 2], 20, LOW / factor, HIGH / factor)
    assert sorted(shifted) == [k - shift for k in sorted(at)]


def test_the_best_has_evenly_spaced_neighbours_before_gaps_are_filled() -> None:
    (tried,) = climb([lambda k: 1.0 + (k + 50) ** 2], 22)
    assert set(range(-53, -46)) <= set(tried)

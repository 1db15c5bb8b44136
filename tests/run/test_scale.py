"""The simulated sweeper of the benchmark obeys the clock, and the order of the work keeps slots busy while the head records."""

import pytest

from tests.benchmarks.sweeper import Case, Latency, Played, Store, ladders, play

UNEVEN = [8.0, 2.0, 0.5, 0.13, 0.07] * 4
"""The cells of `tests/benchmarks/slots.py`: how long a round trains, in seconds."""


def rounds(cells: int, trials: int = 12) -> list[int]:
    return [len(ladders(trials)[index % len(ladders(trials))]) for index in range(cells)]


def test_one_worker_without_costs_takes_the_sum_of_the_times() -> None:
    expected = sum(seconds * count for seconds, count in zip(UNEVEN, rounds(len(UNEVEN)), strict=True))
    assert play(Case(UNEVEN, slots=1)).seconds == pytest.approx(expected)
    run = play(Case(UNEVEN, slots=1, latency=Latency(head=0.5), store=Store(trial=0.25), ask=0.125))
    assert run.recording == 0.25 * 12 * len(UNEVEN)
    assert expected < run.seconds <= expected + 0.5 * run.jobs + 0.375 * 12 * len(UNEVEN) + 1e-9


@pytest.mark.parametrize("slots", [2, 4, 64])
@pytest.mark.parametrize("store", [Store(), Store(trial=0.1), Store(trial=0.01, delivery=0.1)])
def test_no_study_is_faster_than_its_slots_its_longest_cell_or_its_store(slots: int, store: Store) -> None:
    run = play(Case(UNEVEN, slots, latency=Latency(0.01, 0.1, 1.0), store=store))
    longest = max(seconds * count for seconds, count in zip(UNEVEN, rounds(len(UNEVEN)), strict=True))
    of_store = 12 * len(UNEVEN) * max(store.trial, store.delivery)
    assert run.seconds >= max(run.training / slots, longest, of_store) and run.used <= 1
    assert run.training <= run.busy <= slots * run.seconds and run.recorded == 12 * len(UNEVEN)


def used(seconds: list[float], slots: int, a_trial: float) -> Played:
    return play(Case(seconds, slots, latency=Latency(head=0.02, job=0.05), store=Store(a_trial), ask=0.003))


def test_slots_stay_full_while_the_head_records() -> None:
    """The longest first alone, recorded in the order of their ends, used 74 and 47 % of these slots."""
    assert used(UNEVEN, 4, 0.2).used > 0.85
    assert used([4.0] * 8 + [0.1] * 60, 4, 0.1).used > 0.65
    assert used(UNEVEN, 4, 0.03).used > 0.93

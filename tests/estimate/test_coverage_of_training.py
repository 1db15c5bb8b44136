"""The intervals of real trainings hold the truth: a small part of `tests/benchmarks/coverage.py`, with its truths."""

import pytest

from tests.benchmarks.coverage import SETTINGS, estimates

REPETITIONS = 8
TRUTHS = {("momentum 0.5", 128): 2**-2.23779, ("momentum 0.9", 512): 2**-2.22705}
"""The best lr of a setting, from 5000 seeds. The first has several minima."""


@pytest.mark.parametrize(("name", "batch_size"), TRUTHS)
def test_the_interval_holds_the_truth(name: str, batch_size: int) -> None:
    (setting,) = (s for s in SETTINGS if (s.name, s.batch_size) == (name, batch_size))
    setting.check()
    found = [estimates([setting], r, r / REPETITIONS)[0] for r in range(REPETITIONS)]
    intervals = [best.interval for best in found]
    truth = TRUTHS[name, batch_size]
    assert sum(interval is not None and interval.holds(truth) for interval in intervals) == REPETITIONS
    widths = sorted(interval.high / interval.low for interval in intervals if interval is not None)
    if batch_size == 512:
        assert widths[-1] < 1.05 and not any(best.rivals for best in found)
    else:
        assert any(best.rivals for best in found) and widths[-1] > 2

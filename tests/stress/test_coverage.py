"""Tests that the trade-off of steps is unbiased and its intervals honest, for every number of seeds and critical batch size.

python -m pytest -q tests/stress/test_coverage.py      (about 1 minute on two cores)
"""

import pytest

from tests.estimate.test_coverage import assert_trade_off_honest


@pytest.mark.parametrize("seeds", [8, 20])
@pytest.mark.parametrize("b_crit", [8.0, 60.0])
def test_the_trade_off_is_unbiased_and_its_intervals_honest(seeds: int, b_crit: float) -> None:
    assert_trade_off_honest(seeds, b_crit)

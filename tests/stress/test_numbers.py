"""Tests that every kind of non-finite number, at every place and under every sampler, is counted as divergence.

python -m pytest -q tests/stress/test_numbers.py      (about 4 minutes on two cores)
"""

from pathlib import Path

import pytest

from tests.faults.test_numbers import SAMPLERS, WORST, assert_divergence


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("worst", WORST)
def test_one_bad_number_in_a_run_is_divergence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, worst: tuple[float, float]
) -> None:
    assert_divergence(folder, monkeypatch, sampler, worst)

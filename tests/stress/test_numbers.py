"""Tests that every kind of non-finite number, at every place and under every sampler, is counted as divergence.

A constant objective, of whatever size, ends with a report.

python -m pytest -q tests/stress/test_numbers.py      (about 4 minutes on two cores)
"""

from pathlib import Path

import pytest

from tests.faults.test_numbers import SAMPLERS, WORST, assert_divergence, assert_flat


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("worst", WORST)
def test_one_bad_number_in_a_run_is_divergence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, worst: tuple[float, float]
) -> None:
    assert_divergence(folder, monkeypatch, sampler, worst)


@pytest.mark.parametrize("value", [1.0, 0.0, 1e-300, 1e299])
def test_a_constant_objective_ends_with_a_report(folder: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    assert_flat(folder, monkeypatch, value, [])

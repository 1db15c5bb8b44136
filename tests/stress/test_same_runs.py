"""Tests that no study, of whatever optimizer, task, sampler and sizes, denies the algebra of sum and mean.

python -m pytest -q tests/stress/test_same_runs.py      (about 1 minute on two cores)
"""

from pathlib import Path

import pytest

from tests.end_to_end.test_same_runs import assert_algebra_not_denied


@pytest.mark.parametrize("seed", range(5))
def test_no_study_denies_the_algebra(folder: Path, seed: int) -> None:
    assert_algebra_not_denied(folder, seed)

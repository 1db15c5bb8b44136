"""Groups of processes: they meet, they fail in one line, they end in time, and none is left."""

import os
import time
from pathlib import Path

import pytest
import torch

from lrscale.errors import Failure, Refusal
from lrscale.probes import gradient_scale
from lrscale.training.process_group import in_ranks
from tests.probes.test_exact import measured


def children() -> list[str]:
    """Command lines of processes that this one started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append((stat.parent / "cmdline").read_text())
        except OSError:
            continue
    return [line for line in found if "lrscale.training.process_group" in line]


def test_a_rank_that_fails_or_hangs_ends_all_in_one_line() -> None:
    with pytest.raises(Failure, match=r"Rank 1 of 2 ended with status 1: .*ValueError"):
        in_ranks(int, ["1", "x"], seconds=60)
    began = time.monotonic()
    with pytest.raises(Failure, match="Ranks 0, 1 of 2 had not ended after 8 s"):
        in_ranks(time.sleep, [100, 100], seconds=8)
    assert time.monotonic() - began < 20
    assert children() == []


def test_ddp_averages_and_sums_count_one_ranks_terms() -> None:
    for loss, terms in (("plain", 1.0), ("outputs", 10.0)):
        found = measured("gradient_scale", task="digits", batch_size=8, accumulation=2, loss=loss, ranks=2)
        expected = {"c mean": 1, "c sum": 8 * terms, "c sum_over_nominal": terms, "c mean accumulated": 2}
        expected |= {"c sum accumulated": 16 * terms, "c sum_over_nominal accumulated": 2 * terms}
        for name, c in expected.items():
            assert found[name].value == pytest.approx(c, rel=1e-9) == found[name].expected
    uneven = measured("gradient_scale", task="digits", batch_size=8, accumulation=2, loss="ignored", ranks=2)
    assert uneven["apart mean accumulated"].value > 1e-3 and uneven["apart mean accumulated"].expected is None
    assert uneven["apart sum accumulated"].value < 1e-9
    assert children() == []


@pytest.mark.parametrize("loss", gradient_scale.LOSSES)
def test_one_process_has_the_same_table(loss: str) -> None:
    found = measured("gradient_scale", task="digits", batch_size=16, accumulation=4, loss=loss, ranks=1)
    for quantity in found.values():
        assert quantity.expected is None or quantity.value == pytest.approx(quantity.expected, rel=1e-9, abs=1e-9)
    assert (found["c mean accumulated"].expected is None) == (loss in ("ignored", "weighted"))
    assert torch.isfinite(torch.tensor([quantity.value for quantity in found.values()])).all()


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(Refusal, match="needs a task with classes"):
        measured("gradient_scale", loss="plain", ranks=1)
    with pytest.raises(Refusal, match="must not exceed the 1437"):
        measured("gradient_scale", task="digits", batch_size=64, accumulation=8, loss="plain", ranks=4)

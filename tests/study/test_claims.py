"""What claims measure: forms fitted to best lrs and to quantities, in the families and cells that `where` selects."""

from pathlib import Path

import numpy as np
import pytest

from lrscale.errors import Refusal
from lrscale.estimate.best_lr import BestLr
from lrscale.estimate.fits import trade_off, turn_over
from lrscale.study.claims import Verdict, check_claims, verdicts
from lrscale.study.families import Family, Measurement
from lrscale.study.measures import PROBE_MEASURES
from lrscale.study.plan import Cell
from lrscale.training.quantity import Quantity
from tests.program import here
from tests.studies import make_plan, probe_cell

SIZES = 2.0 ** np.arange(10)


def family(task: str, b_c: float, b_crit: float) -> Family:
    """A family whose best lrs and steps are exactly of their forms."""
    best = [BestLr(float(x), np.full(1000, x), 0.0, 0.0) for x in np.log(0.5 / (SIZES + b_c))]
    return Family({"task": task}, (), 1.0, (), turn_over(SIZES, best), trade_off(SIZES, 50 * (1 + b_crit / SIZES)[:, None]))


def held(measure: str, **claim: object) -> list[Verdict]:
    families = (family("digits", 20, 5), family("digits_mlp", 60, 9))
    return verdicts(make_plan(claims=[{"name": "it", "measure": measure, **claim}]), families, ())


def test_forms_are_measured_in_each_family() -> None:
    assert [round(v.measured.value) for v in held("b_c", at_least=1) if v.measured] == [20, 60]
    assert [round(v.measured.value) for v in held("b_crit", at_least=1) if v.measured] == [5, 9]
    for measure in ("form_residual", "trade_off_residual"):
        found = held(measure, at_most=0.01)
        assert all(v.verdict == "holds" and v.measured and v.measured.value < 0.01 for v in found)


@pytest.mark.parametrize("where", [{"task": "digits_mlp"}, {"task": ["digits_mlp", "other"]}])
def test_where_selects_families(where: dict[str, object]) -> None:
    (verdict,) = held("b_c", at_least=50, where=where)
    assert verdict.name == "it (digits_mlp)" and verdict.verdict == "holds"


def cells(shape: float, scale: float, task: str) -> list[Measurement]:
    """Quantities v = scale B^shape / (B + 10)."""
    return [
        Measurement(probe_cell("", {"task": task, "batch_size": int(b)}), Quantity("v", scale * b**shape / (b + 10)))
        for b in SIZES
    ]


def test_the_residual_of_a_form_is_the_largest_over_the_other_axes() -> None:
    measure, claim = PROBE_MEASURES["form_residual"], {"against": "batch_size"}
    exact = measure([*cells(1, 3, "a"), *cells(1, 7, "b")], claim)
    off = measure([*cells(1, 3, "a"), *cells(1.5, 7, "b")], claim)
    assert exact is not None and exact.value < 0.01
    assert off is not None and off.value > 0.1
    assert measure(cells(1, 3, "a")[:2], claim) is None


def test_a_claim_may_compare_two_quantities_of_each_cell() -> None:
    def ratio(near: Quantity, far: Quantity | None, measure: str = "largest") -> Verdict:
        measured = [Measurement(probe_cell("", {"task": name}), q) for name in "ab" for q in (near, far) if q is not None]
        claim = {"name": "it", "measure": measure, "quantity": "near", "over": "far", "at_most": 0.5}
        return verdicts(make_plan(claims=[claim]), (), measured)[0]

    near = Quantity("near", 1.0, 0.5, 1.5)
    held = ratio(near, Quantity("far", 4.0, 3.0, 5.0))
    assert held.measured == (0.25, 0.5 / 5, 1.5 / 3) and held.verdict == "holds"
    assert ratio(near, Quantity("far", 4.0, 2.5, 5.0)).verdict == "cannot tell"
    assert ratio(near, Quantity("far", 0.5, 0.4, 0.6)).verdict == "fails"
    for nothing in (None, Quantity("far", 4.0, -1.0, 9.0)):
        assert ratio(near, nothing).measured is None


@pytest.mark.parametrize(("cell", "over"), [(probe_cell("a", {}), 3), (Cell("a", "a", {}, {}), "linear")])
def test_over_is_for_quantities_of_probes(cell: Cell, over: object) -> None:
    measure = "largest" if over == 3 else "b_c"
    claim = {"name": "it", "measure": measure, "quantity": "near", "over": over, "at_most": 1}
    with pytest.raises(Refusal, match=r"`study.claims\[0\].over` must name a quantity of the probe"):
        check_claims(make_plan([cell], claims=[claim]))


def test_axes_that_a_family_does_not_share_are_refused(folder: Path) -> None:
    claim = "study.claims=[{name: it, measure: b_c, at_least: 1, where: {batch_size: 4}}]"
    said = here(folder, "run", "-m", "sweeps=quickstart", claim, status=2)
    assert "must select by axes of the study" in said

"""A study of steps to a target: its report states the trade-off of steps against examples."""

import json
from pathlib import Path

from tests.program import here

SMALL = ["task.features=16", "task.examples=4096", "seeds=3", "batch_size=1,4,16,64,256", "hydra.sweeper.n_trials=8"]


def test_a_study_of_regimes_states_its_trade_off(folder: Path) -> None:
    here(folder, "run", "-m", "sweeps=regimes", *SMALL, "optimizer.lr=tag(log,interval(0.02,2))", "reduction=mean")
    found = json.loads(here(folder, "report", "--format", "json"))
    (fit,) = found["trade_off"]
    assert "Steps to the target are S = S_min (1 + B_crit/B)" in found["law"][0] and not fit["at_bound"]
    assert fit["b_crit_ci"][0] < fit["b_crit"] < fit["b_crit_ci"][1]
    for cell in found["cells"]:
        assert abs(cell["objective"] / (fit["s_min"] * (1 + fit["b_crit"] / cell["batch_size"])) - 1) < 0.3
    claims = {claim["name"]: claim for claim in found["claims"]}
    assert claims["B_crit is the recursion's"]["measured"] == fit["b_crit"]
    assert claims["steps against examples are one hyperbola"]["measured"] == fit["residual"]
    slopes = [claims[f"steps {name}"]["measured"] for name in ("fall nearly as 1/B at small B", "fall no further at large B")]
    assert slopes[0] < -0.6
    (figure,) = (folder / "studies").glob("regimes*/figures/steps_against_batch_size.png")
    assert figure.stat().st_size > 10_000


def test_other_studies_have_none(folder: Path) -> None:
    here(folder, "run", "-m", "sweeps=quickstart", "seeds=1", "batch_size=4,16,64", "hydra.sweeper.n_trials=4")
    assert json.loads(here(folder, "report", "--format", "json"))["trade_off"] == []

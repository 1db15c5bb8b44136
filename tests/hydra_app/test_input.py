"""Whatever is typed or written into a file: it runs, or is refused in one line with status 2 and nothing written."""

import contextlib
import io
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lrscale.commands.cli import main
from lrscale.errors import Refusal
from lrscale.hydra_app.sweep_file import check_sweep
from lrscale.run import study
from lrscale.study.claims import check_claims
from lrscale.study.config import BUDGETS, FIELDS, GROUPS, KEYS, make_training
from lrscale.study.document import read_document
from lrscale.study.plan import Cell
from lrscale.tracking import store as tracking
from tests.configs import config
from tests.search.test_tuner import make_plan

TIMES = int(os.environ.get("LRSCALE_EXAMPLES", "1"))
"""Times as many examples as usual."""
BOLD = settings(
    deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip
CHOICES = [choice for registry in GROUPS.values() for choice in registry.choices()]
NAMES = sorted({*KEYS, *FIELDS, *CHOICES, *BUDGETS, "lr", "name", "momentum", "seeds", "epochs", "_target_", "hydra", "x"})
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 300) | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from([*NAMES, "mean", "sum", "0.1", "1e999", "nan", "${oc.env:HOME}", "../x", "interval(1,2)", "1,2"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), v, max_size=4),
    max_leaves=8,
)


@settings(BOLD, max_examples=900 * TIMES)
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    st.sampled_from([*KEYS, "optimizer", "budget", "task"]),
    st.sampled_from(NAMES),
    VALUES,
)
def test_any_config_is_a_training_or_refused(changes: dict[str, Any], key: str, inner: str, value: Any) -> None:
    made = config()
    if isinstance(made[key], dict):
        made[key] = {**made[key], inner: value}
    else:
        made[key] = value
    for mapping in (made, {**made, **changes}, changes):
        with contextlib.suppress(Refusal):
            make_training(mapping)


@settings(BOLD, max_examples=300 * TIMES)
@given(
    st.lists(
        VALUES
        | st.fixed_dictionaries(
            {"name": SCALARS, "measure": SCALARS | st.just("slope"), "expected": SCALARS},
            optional={"tolerance": SCALARS, "range": SCALARS, "reduction": SCALARS},
        ),
        max_size=3,
    ),
    st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
)
def test_any_claim_is_checked_or_refused(claims: list[Any], ranges: dict[str, Any]) -> None:
    cell = Cell("x", "x", {}, config(), (), {})
    with contextlib.suppress(Refusal):
        check_claims(make_plan(cells=(cell,), claims=claims, ranges=ranges))


def test_seeds_at_the_top_of_a_sweep_file_are_refused_since_a_study_takes_them_from_its_params() -> None:
    with pytest.raises(Refusal, match=r"sweeps/x: `seeds` must stand in `hydra.sweeper.params`, got 64"):
        check_sweep("sweeps/x", {"seeds": 64}, "_global_")


@settings(BOLD, max_examples=400 * TIMES)
@given(
    st.dictionaries(st.sampled_from([*NAMES, "defaults", "hydra", "study", "sweeper", "params"]), VALUES, max_size=4) | VALUES,
    SCALARS,
)
def test_any_sweep_file_is_checked_or_refused(found: Any, package: Any) -> None:
    for whole in (found, {"hydra": {"sweeper": {"params": found}}}, {"hydra": found}, {"defaults": found}):
        with contextlib.suppress(Refusal):
            check_sweep("sweeps/x", whole, package if isinstance(package, str) else "_global_")


RECORD = [
    "study",
    "question",
    "law",
    "objective",
    "n_trials",
    "sampler",
    "intervals",
    "ranges",
    "claims",
    "cells",
    "made_by",
    "command",
    "storage",
    "compute",
    "seconds",
    "published_from",
]


@settings(BOLD, max_examples=400 * TIMES)
@given(st.dictionaries(st.sampled_from(RECORD), VALUES, max_size=12) | VALUES, st.sampled_from(RECORD), VALUES)
def test_any_record_is_checked_or_refused(found: Any, key: str, value: Any) -> None:
    whole = {
        "study": "s", "question": None, "law": None, "objective": "train_loss", "n_trials": 4, "sampler": {"name": "ladder"},
        "intervals": {}, "ranges": {}, "claims": [], "made_by": {"numbers": "1"}, "command": "x",
        "cells": [{"id": "x", "label": "x", "scientific": {}, "config": config()}],
    }  # fmt: skip
    for record in (found, {**whole, key: value}):
        with contextlib.suppress(Refusal):
            read_document(record).plan.renewed()


OVERRIDES = st.builds(
    lambda prefix, key, value: f"{prefix}{key}={value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.sampled_from(
        [
            "optimizer.lr",
            "batch_size",
            "reduction",
            "seeds",
            "task",
            "optimizer",
            "budget.epochs",
            "objective",
            "points",
            "study.claims",
            "hydra.sweeper.n_trials",
            "hydra.sweeper.sampler",
            "hydra.sweeper.params",
            "tracking.uri",
            "tracking.storage",
            "cells",
            "sweeps",
            "x",
            "optimizer.momentum",
            "probe",
            "compute.threads",
            "memory_mb",
        ]
    ),
    st.sampled_from(
        [
            "0.1",
            "1,2",
            "interval(1e-3,1)",
            "tag(log,interval(1e-3,1))",
            "choice(1,2)",
            "range(1,4)",
            "[1,2]",
            "{a:1}",
            "null",
            "''",
            "nan",
            "-1",
            "1e400",
            "mean,sum",
            "adam",
            "glob(*)",
            "${batch_size}",
            "${oc.env:HOME}",
            "${",
            "interval(",
            "a b",
            "sort(3,1)",
            "shuffle(1,2)",
            "1_000",
            "true",
        ]
    )
    | st.text(max_size=10),
) | st.text(max_size=20).filter(lambda t: not t.startswith("-"))


@settings(BOLD, max_examples=100 * TIMES)
@given(st.lists(OVERRIDES, min_size=1, max_size=3), st.booleans())
def test_any_command_line_runs_or_is_refused_and_nothing_is_written(
    tmp_path_factory: pytest.TempPathFactory, overrides: list[str], many: bool
) -> None:
    folder = tmp_path_factory.mktemp("x")
    said = io.StringIO()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_carry_out", lambda *given: None)  # what is run once nothing is refused
        patch.setattr(tracking, "Store", _stop)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = main(["run", *(["-m"] if many else []), *overrides])
            except (_Worked, SystemExit) as ended:
                status = 0 if isinstance(ended, _Worked) else 2
    assert status in (0, 2), said.getvalue()
    if status == 2:
        assert "Traceback" not in said.getvalue(), (overrides, said.getvalue())
        assert list(folder.iterdir()) == [], overrides


class _Worked(Exception):
    """All checks have been passed."""


def _stop(*_: object) -> None:
    raise _Worked

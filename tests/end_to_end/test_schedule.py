"""A study with a schedule, from a sweep file: its records, its report and its trials' pages show the schedule."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from lrscale.tracking.schema import NOTE
from lrscale.tracking.store import Store
from tests.program import here

SWEEP = """# @package _global_
defaults:
  - override /task: linear
  - override /schedule: cosine
task: {noise: 0.0}
schedule: {warmup_fraction: 0.25}
budget: {epochs: 1}
hydra:
  mode: MULTIRUN
  sweeper:
    n_trials: 4
    params:
      seeds: 2
      batch_size: 16,64
      reduction: mean,sum
      optimizer.lr: tag(log,interval(0.01,1))
"""


def test_a_schedule_is_shown_wherever_a_study_is(folder: Path) -> None:
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "falling.yaml").write_text(SWEEP)
    words = "cosine warmup_fraction=0.25 final=0.0"
    said = here(folder, "run", "-m", "sweeps=falling")
    assert "No theory: it is known for a constant lr without warm-up only, got schedule cosine." in " ".join(said.split())
    report = json.loads(here(folder, "report", "--format", "json"))
    assert len(report["cells"]) == 4 and not any("theory_lr" in cell and cell["theory_lr"] for cell in report["cells"])
    assert f"schedule {words}, epochs 1; seeds: 2 per trial" in (folder / "studies" / "falling" / "report.html").read_text()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        shown = database.execute("SELECT value FROM params WHERE key = 'schedule'").fetchall()
    store = Store.existing(f"sqlite:///{folder}/mlflow.db")
    trials = store.trials(store.study(None).experiment_id)
    assert shown == [(words,)] * len(trials) and len(trials) == 16
    assert 'schedule:\n  name: "cosine"\n' in store.run_tags(trials[0].run_id)[NOTE]
    again = here(folder, "run", "-m", "sweeps=falling", "schedule=constant", "schedule.warmup_fraction=null")
    assert "falling schedule=constant" in again  # it asks something else, so it is a variant with a name of its own

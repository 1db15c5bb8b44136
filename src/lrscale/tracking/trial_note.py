"""The note of a trial, which MLflow's UI shows as markdown: its outcome, how it was made, and its config."""

import math
from collections.abc import Mapping

from lrscale.files import as_yaml
from lrscale.study.plan import Cell, study_name, trial_label, with_values
from lrscale.training.results import Result

DASHBOARD = "http://127.0.0.1:8080/dashboard/"
"""Where `lrscale ui --optuna` serves optuna-dashboard, unless that port is taken."""


def trial_note(study: str, cell: Cell, number: int, params: Mapping[str, float], result: Result) -> str:
    """The note of a trial: its outcome, its Optuna trial, its overrides, and its resolved config as YAML."""
    outcome = f"objective {result.objective:.4g}" if math.isfinite(result.objective) else "objective infinite"
    seeds = f"{sum(result.diverged)} of {len(result.diverged)} seeds diverged"
    overrides = [*cell.overrides, *(f"{key}={value}" for key, value in {**cell.values, **params}.items())]
    lines = [
        f"{escape_markdown(trial_label(cell.label, params))}: {outcome}, {seeds}",
        f"[Optuna]({DASHBOARD}): trial {number} of the study `{study_name(study, cell.label, cell.id)}`, "
        f"served by `lrscale ui {study} --optuna` (the link holds for port 8080; where that is taken, it prints its own)",
        f"Overrides: `{' '.join(overrides)}`",
        f"```yaml\n{as_yaml(with_values(cell.config, params))}\n```",
    ]
    return "\n\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text in which markdown finds nothing to format.

    Example:
      >>> print(escape_markdown("lr_sum* = c^-1"))
      lr\\_sum\\* = c^-1
    """
    return "".join("\\" + c if c in "\\`*_[]<>#" else c for c in text)

"""Writes the note of a trial, which MLflow shows as markdown: its outcome, the way it was made, and its config."""

import math
import re
import shlex
from collections.abc import Mapping

from lrscale.errors import masked_url
from lrscale.files import as_yaml
from lrscale.study.plan import Cell, Plan, trial_label, with_values
from lrscale.study.twins import LR_KEY
from lrscale.training.results import CAP, Result

DASHBOARD = "http://127.0.0.1:8080/dashboard/"
"""The address at which `lrscale ui --optuna` serves optuna-dashboard, unless another program uses that port."""


def trial_note(
    plan: Plan, cell: Cell, number: int, params: Mapping[str, float], result: Result, same_as: str = "", device: str = "cpu"
) -> str:
    """Returns the note of a trial: its outcome, its exact values, its Optuna trial, its overrides, and its config as YAML.

    Args:
      plan: the plan of the study.
      cell: the trial's cell.
      number: the trial's number in its cell.
      params: the tuned hyperparameters, by dotted key.
      result: what the training returned.
      same_as: the exact label of the trial that is the same run and was trained; empty where this one was trained.
      device: the device that trained it; the note says it where it is not the CPU.
    """
    outcome = f"objective {result.objective:.4g}" if math.isfinite(result.objective) else "objective infinite"
    outcome = ", ".join([f"**diverged**, {outcome}" if any(result.diverged) else outcome, result.diverged_in_words])
    overrides = [*cell.overrides, *(f"{key}={value}" for key, value in {**cell.values, **_own(cell, params)}.items())]
    exact = [*(f"{key}={float(value)!r}" for key, value in params.items()), f"objective={result.objective!r}"]
    lines = [
        f"{escape_markdown(trial_label(cell.label, params))}: {outcome}",
        f"Its curves, which are means over seeds, end at step {result.steps[-1]}: after it the loss of a seed is above {CAP:g} "
        "times its first value, or not finite."
        if any(result.diverged) and not plan.is_script and result.steps[-1] < cell.training.steps
        else "",
        f"At the end: {', '.join(f'{escape_markdown(name)} {value:.4g}' for name, value in result.ends.items())}."
        if result.ends
        else "",
        f"The same run as `{same_as}`: trained once, recorded for both." if same_as else "",
        f"Trained on {escape_markdown(device)}." if device != "cpu" else "",
        f"Exact values: `{' '.join(exact)}`",
        f"[Optuna]({DASHBOARD}): trial {number} of the study `{plan.optuna_name(cell)}`, "
        f"served by `lrscale ui {shlex.quote(plan.study)} --optuna` "
        "(the link is for port 8080; if another program uses that port, the command prints another link)",
        f"Overrides: `{masked_url(' '.join(overrides))}`",
        f"```yaml\n{as_yaml(with_values(cell.config, params))}\n```",
    ]
    return "\n\n".join(line for line in lines if line)


def _own(cell: Cell, params: Mapping[str, float]) -> dict[str, float]:
    """Returns the tuned hyperparameters by the keys of an override: those of a script are the script's own."""
    lr = cell.config.get("roles", {}).get("lr")
    return {lr if lr and key == LR_KEY else key: value for key, value in params.items()}


def escape_markdown(text: str) -> str:
    """Returns a text that markdown shows as it is, and that can be read where no markdown is interpreted.

    MLflow's list of experiments shows the first line of a note without interpreting it. So an asterisk becomes another
    asterisk, and of the other characters only those get a backslash that markdown would interpret where they stand.

    Example:
      >>> print(escape_markdown("lr_sum* = c^-1 [-1.02, -0.98], _b_ <i>"))
      lr_sum∗ = c^-1 [-1.02, -0.98], \\_b\\_ \\<i>
    """
    text = text.replace("*", "\N{ASTERISK OPERATOR}")
    return re.sub(r"[\\`]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|^#|\](?=[(\[:])", r"\\\g<0>", text)

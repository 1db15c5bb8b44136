"""Writes the note of a trial or a single training, which MLflow shows as markdown: its outcome, and how it was made."""

import math
import re
import shlex
from collections.abc import Mapping
from typing import Any

from lrscale.errors import masked_url
from lrscale.files import as_yaml
from lrscale.spec import Training
from lrscale.study.config import make_training
from lrscale.study.plan import Cell, Plan, trial_label, with_values
from lrscale.study.twins import LR_KEY
from lrscale.training.quantity import Quantity
from lrscale.training.results import CAP, Result

DASHBOARD = "http://127.0.0.1:8080/dashboard/"
"""The address at which `lrscale ui --optuna` serves optuna-dashboard, unless another program uses that port."""


def trial_note(
    plan: Plan, cell: Cell, number: int, params: Mapping[str, float], result: Result, same_as: str = "", device: str = "cpu"
) -> str:
    """Returns the note of a trial: its outcome, its exact values, its Optuna trial, its overrides, and its config as YAML.

    The note of a probe's cell does not name the Optuna trial, which holds no objective.

    Args:
      plan: the plan of the study.
      cell: the trial's cell.
      number: the trial's number in its cell.
      params: the tuned hyperparameters, by dotted key.
      result: what the training returned.
      same_as: the exact label of the trial that is the same run and was trained; empty where this one was trained.
      device: the device that trained it; the note says it where it is not the CPU.
    """
    overrides = [*cell.overrides, *(f"{key}={value}" for key, value in {**cell.values, **_own(cell, params)}.items())]
    optuna = (
        f"[Optuna]({DASHBOARD}): trial {number} of the study `{plan.optuna_name(cell)}`, "
        f"served by `lrscale ui {shlex.quote(plan.study)} --optuna` "
        "(the link is for port 8080; if another program uses that port, the command prints another link)"
    )
    lines = [
        *_outcome(trial_label(cell.label, params), cell.training, result),
        f"The same run as `{same_as}`: trained once, recorded for both." if same_as else "",
        f"Trained on {escape_markdown(device)}." if device != "cpu" else "",
        _exact_values(params, result),
        "" if result.quantities else optuna,
        f"Overrides: `{masked_url(' '.join(overrides))}`",
        _as_markdown(with_values(cell.config, params)),
    ]
    return "\n\n".join(line for line in lines if line)


def single_note(name: str, config: Mapping[str, Any], params: Mapping[str, float], result: Result) -> str:
    """Returns the note of a training that belongs to no study: its outcome, its exact values, and its config as YAML.

    Args:
      name: the name of the run.
      config: the config of the training.
      params: the hyperparameters that the name shows, by dotted key.
      result: what the training returned.
    """
    lines = [*_outcome(name, make_training(config), result), _exact_values(params, result), _as_markdown(config)]
    return "\n\n".join(line for line in lines if line)


def _outcome(label: str, training: Training, result: Result) -> list[str]:
    """Returns the lines of a note that say what came out: the quantities of a probe, or the objective and what diverged.

    Args:
      label: the label of the run.
      training: its training.
      result: what the training returned.
    """
    if result.quantities:
        return [f"{escape_markdown(label)}: {', '.join(escape_markdown(_in_words(q)) for q in result.quantities)}."]
    outcome = f"objective {result.objective:.4g}" if math.isfinite(result.objective) else "objective infinite"
    outcome = ", ".join([f"**diverged**, {outcome}" if any(result.diverged) else outcome, result.diverged_in_words])
    cut = any(result.diverged) and not training.is_script and result.steps[-1] < training.steps
    ends = ", ".join(f"{escape_markdown(name)} {value:.4g}" for name, value in result.ends.items())
    return [
        f"{escape_markdown(label)}: {outcome}",
        f"Its curves, which are means over seeds, end at step {result.steps[-1]}: after it the loss of a seed is above {CAP:g} "
        "times its first value, or not finite."
        if cut
        else "",
        f"At the end: {ends}." if ends else "",
    ]


def _in_words(quantity: Quantity) -> str:
    """Returns a quantity with its expected value, in words."""
    expected = "" if quantity.expected is None else f" (expected {quantity.expected:.4g})"
    return f"{quantity.name} {quantity.value:.4g}{expected}"


def _exact_values(params: Mapping[str, float], result: Result) -> str:
    """Returns the line of a note with the exact values of the hyperparameters, and of the objective or the quantities."""
    outcome = {quantity.name: quantity.value for quantity in result.quantities} or {"objective": result.objective}
    return f"Exact values: `{' '.join(f'{key}={float(value)!r}' for key, value in {**params, **outcome}.items())}`"


def _as_markdown(config: Mapping[str, Any]) -> str:
    """Returns a config as markdown that shows YAML."""
    return f"```yaml\n{as_yaml(config)}\n```"


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

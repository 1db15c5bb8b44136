"""A translated lr as text or JSON, with the evidence of the published studies."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lrscale.errors import Failure
from lrscale.files import home
from lrscale.law.batch_size import Knob
from lrscale.law.evidence import RuleEvidence, find_rule_evidence
from lrscale.law.translation import Batch, Translation, translate


def published(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Returns the content of report.json of each published study, by the name of the study.

    Args:
      folder: the folder that holds one folder for each study; None for sweeps/results of the package or the repository.

    Returns:
      The reports; empty where no study is published.

    Raises:
      Failure: a report cannot be read.
    """
    if folder is None:
        folder = home() / "sweeps" / "results"
    reports = {}
    for file in sorted(folder.glob("*/report.json")):
        try:
            reports[file.parent.name] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(f"{file} cannot be read ({error}). Restore it from the repository.") from None
    return reports


def print_translation(
    optimizer: str,
    lr: float,
    source: Batch,
    target: Batch,
    knobs: dict[str, float],
    decoupled: bool | None,
    form: str,
    b_crit: float | None = None,
    assumed: Sequence[str] = (),
    model: str = "network",
    counts_tokens: bool = False,
) -> None:
    """Translates a tuned lr and its knobs, and prints the result as text or JSON.

    Args:
      optimizer: a name of torch.optim, in upper or lower case.
      lr: the lr that was tuned under `source`.
      source: how the gradient was computed when lr was tuned.
      target: how it will be computed.
      knobs: the values of further hyperparameters, by name.
      decoupled: whether weight decay acts on the weights directly; None for the optimizer's own way.
      form: `text` or `json`.
      b_crit: the turn-over batch size; None where it is not known.
      assumed: what was not given, in words.
      model: `network` or `least_squares`.
      counts_tokens: whether batch sizes count tokens. Those of the published studies count examples, so none is quoted then.

    Raises:
      Refusal: a value breaks its rule.
      Failure: the report of a published study cannot be read.
    """
    reports = published()
    translation = translate(optimizer, lr, source, target, knobs, decoupled, {} if counts_tokens else reports, b_crit, model)
    studies = find_rule_evidence(reports, optimizer.lower(), knobs, translation.answer.rule)
    if form == "json":
        more = {"assumed": list(assumed), "studies": [study._asdict() for study in studies]}
        print(json.dumps(translation_json(translation) | more, indent=2, allow_nan=False))
    else:
        show_translation(translation, Console(highlight=False, markup=False, emoji=False), assumed, studies)


def translation_json(translation: Translation) -> dict[str, Any]:
    """Returns a translation as one document.

    Its two parts are `exact`, for the target's batch size, and `batch_size`, for the change of the batch size.
    """
    return {
        "optimizer": translation.optimizer,
        "p": translation.p,
        "source": asdict(translation.source) | {"c": translation.source.c},
        "target": asdict(translation.target) | {"c": translation.target.c},
        "r": translation.ratio,
        "answer": asdict(translation.answer),
        "exact": {
            "is_exact": translation.is_exact,
            "equals": {"reduction": "mean", "batch_size": translation.target.size, "lr": translation.lr_mean},
            "knobs": [asdict(knob) for knob in translation.knobs],
            "caveats": list(translation.caveats),
        },
        "batch_size": {
            "from": translation.source.size,
            "to": translation.target.size,
            "rules": [asdict(rule) for rule in translation.rules],
            "evidence": [asdict(evidence) for evidence in translation.evidence],
        },
    }


def show_translation(
    translation: Translation, console: Console, assumed: Sequence[str] = (), studies: Sequence[RuleEvidence] = ()
) -> None:
    """Prints a translation as text for a terminal of at least 80 columns: the answer first, then why, then alternatives."""
    answer = translation.answer
    console.print(" ".join(f"{knob.name}={_number(knob.after)}" for knob in answer.knobs), soft_wrap=True)
    if answer.rule == "exact" and translation.is_exact:
        console.print("These take exactly the same steps: the batch size does not change, so algebra is enough.")
    elif answer.rule == "exact":
        console.print("These take the same steps up to the points under 1: the batch size does not change.")
    else:
        console.print(f"By the {answer.rule} rule. It assumes that {answer.assumption} {answer.otherwise}")
    if studies:
        console.print(f"Our studies: {'; '.join(f'{study.says} ({study.study})' for study in studies)}.")
    if assumed:
        console.print(f"Assumed: {', '.join(assumed)}.")
    momentum = [knob.after for knob in answer.knobs if knob.name == "momentum"]
    if momentum and translation.p:
        console.print(f"Effective lr with momentum: lr / (1 - momentum) = {_number(answer.knobs[0].after / (1 - momentum[0]))}")
    console.print("")
    console.print(f"{translation.optimizer}, p = {translation.p:g}")
    console.print(f"  from  {translation.source}: c = {_number(translation.source.c)}")
    console.print(f"  to    {translation.target}: c = {_number(translation.target.c)}")
    console.print(f"  r     {_number(translation.ratio)} = c after / c before: the gradient is r times as large")
    console.print("")
    title = "Exact:" if translation.is_exact else "Exact up to these points:"
    if all(knob.after == knob.before for knob in translation.knobs):
        console.print(f"1. {title} at one batch size no knob that was given has to change.")
    else:
        console.print(_knobs(f"1. {title} the same updates", translation.knobs))
    for caveat in translation.caveats:
        console.print(f"- {caveat}")
    console.print("")
    before, after = translation.source.size, translation.target.size
    if before == after:
        console.print("2. Batch size: it does not change, so the tuned lr stays tuned.")
        return
    console.print(f"2. From B = {before} to {after}: by the {answer.rule} rule, together with 1", style="bold")
    console.print(_knobs("", answer.knobs))
    table = _table("Other rules give other lrs, nothing is exact here", ("rule", "lr", "holds where"))
    for rule in translation.rules:
        table.add_row(rule.name, _number(rule.lr), rule.when)
    console.print(table)
    console.print("Over 35 workloads no rule held everywhere (Shallue et al. 2019): try half and twice the lr.")
    console.print("")
    if not translation.evidence:
        console.print(f"None of our own studies covers {translation.optimizer} from B = {before} to {after}.")
        return
    table = _table("What our own published studies measured, each on its own task", ("study", "measured", "lr", "conditions"))
    for evidence in translation.evidence:
        name = "B_c" if evidence.measure == "b_c" else "slope"
        table.add_row(evidence.study, f"{name} {_interval(evidence.value)}", _interval(evidence.lr), evidence.conditions)
    console.print(table)
    console.print("slope: lr_mean* ~ B^slope; B_c: lr_sum* = eta_max / (B + B_c).")


def _knobs(title: str, knobs: Sequence[Knob]) -> Table:
    """Returns a table of knobs, before and after."""
    table = _table(title, ("knob", "was", "becomes", "why"))
    for knob in knobs:
        table.add_row(knob.name, _number(knob.before), _number(knob.after), knob.reason)
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    """Returns an empty table."""
    return Table(*columns, title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _number(value: float) -> str:
    """Returns a number with at most six significant digits."""
    return f"{value:.6g}"


def _interval(values: tuple[float, float, float]) -> str:
    """Returns a value with the ends of its 95 % interval, as in `0.5 [0.4, 0.7]`."""
    value, low, high = (f"{v:.3g}" for v in values)
    return f"{value} [{low}, {high}]"

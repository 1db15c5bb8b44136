"""Writes the remarks on a table of cells: what was scaled, why theory gives no best lr, and what the intervals cover."""

import math
from collections import Counter
from collections.abc import Sequence

from lrscale.spec import Choice, is_own
from lrscale.study.answer import Answer
from lrscale.study.families import CellAnswer
from lrscale.study.plan import Plan
from lrscale.study.script import own_words
from lrscale.study.settings import LEEWAY, left_out_remark
from lrscale.study.twins import LR_KEY, knobs_left, knobs_scaled
from lrscale.training.named_optimizer import POWER_TOLERANCE


def remarks(answer: Answer) -> list[str]:
    """Returns the remarks on the cells of an answer: what was left out, what was scaled, and where theory says nothing."""
    left_out = [left_out_remark(answer.plan, answer.left_out)] if answer.left_out else []
    widened = widening_remarks(answer.plan, answer.cells)
    return [
        *answer.unequal,
        *left_out,
        *widened,
        *companion_remarks(answer.plan, answer.cells),
        *theory_remarks(answer.cells),
        *form_remarks(answer.plan),
        *device_remarks(answer.cells),
        *optimizer_remarks(answer.plan),
    ]


def widening_remarks(plan: Plan, cells: Sequence[CellAnswer]) -> list[str]:
    """Returns a sentence on the cells in which the ladder has left the interval of the lr, as `widen` allows."""
    if not plan.sampler.get("widen"):
        return []
    beyond = []
    for cell in cells:
        interval = plan.interval_of(cell.cell, LR_KEY)
        lrs = [lr for lr, _, _ in cell.points() if not interval.low * (1 - LEEWAY) <= lr <= interval.high * (1 + LEEWAY)]
        beyond += [(min(lrs), max(lrs))] if lrs else []
    if not beyond:
        return []
    low, high = min(ends[0] for ends in beyond), max(ends[1] for ends in beyond)
    return [f"The interval of {LR_KEY} was left in {len(beyond)} of {len(cells)} cells, for lrs from {low:.3g} to {high:.3g}."]


def form_remarks(plan: Plan) -> list[str]:
    """Returns a sentence on the forms in which the gradients of the user's own tasks were computed."""
    forms: dict[str, int] = {}
    notes: dict[str, None] = {}
    for cell in () if plan.is_probed else plan.cells:
        options = cell.training.task.options
        if "form" in options:
            forms[options["form"]] = forms.get(options["form"], 0) + 1
            notes |= {options["form_note"]: None} if options["form"] == "loop" and options["form_note"] else {}
    if not forms:
        return []
    parts = ", ".join(form if count == len(plan.cells) else f"{form} in {count} cells" for form, count in forms.items())
    return [f"Gradients computed by {parts}, the fastest.", *(f"torch.func cannot run {note}." for note in notes)]


def device_remarks(cells: Sequence[CellAnswer]) -> list[str]:
    """Returns a sentence on the devices on which trials were trained; none where all were trained on the CPU."""
    devices = Counter(str(trial.settings.get("device", "cpu")) for cell in cells for trial in cell.trials)
    if set(devices) <= {"cpu"}:
        return []
    return [f"Trained on {', '.join(f'{name} ({count} trials)' for name, count in sorted(devices.items()))}."]


def optimizer_remarks(plan: Plan) -> list[str]:
    """Returns sentences on the user's own optimizers: the measured p, how the runs were updated, and what was not scaled."""
    sentences: dict[str, list[str]] = {}
    for cell in () if plan.is_probed else plan.cells:
        optimizer = cell.training.optimizer
        if is_own(optimizer.name):
            for sentence in _on_optimizer(optimizer):
                sentences.setdefault(sentence, []).append(cell.label)
    return [text if len(labels) == len(plan.cells) else f"{', '.join(labels)}: {text}" for text, labels in sentences.items()]


def _on_optimizer(optimizer: Choice) -> list[str]:
    """Returns the sentences on one optimizer of the user's own; see `optimizer_remarks`."""
    name, facts = optimizer.name, optimizer.options
    p = f"p = {facts['p']:g} of {name} was measured from its updates for gradients of size 1, without weight decay"
    if facts["p_error"] > POWER_TOLERANCE:
        off = f"which differ by up to {100 * facts['p_error']:.2g} % from this power of the gradients' size"
        p = f"{p}, {off}: so c^{-facts['p']:g} is no law"
    runs = {
        "stacked": "all seeds of a trial at once, which gives the same numbers",
        "apart": "one run after another, because its updates of stacked runs differ",
    }
    return [
        f"{p}. Its options other than the lr, such as a weight decay or eps, are as given.",
        f"{name} updates {runs[facts['way']]}.",
    ]


def theory_remarks(cells: Sequence[CellAnswer]) -> list[str]:
    """Returns a sentence for each reason for which cells have no best lr in theory."""
    notes = [cell.theory_note for cell in cells if cell.theory_note]
    counts = {note: notes.count(note) for note in dict.fromkeys(notes)}
    return [
        f"No theory{'' if count == len(cells) else f' in {count} of {len(cells)} cells'}: {note}"
        for note, count in counts.items()
    ]


def companion_remarks(plan: Plan, cells: Sequence[CellAnswer]) -> list[str]:
    """Returns a sentence on the knobs, such as weight decay, that were scaled with the lr, or were left as given.

    Where they were left, the cells train different optimizers: the sentence says how far their best objectives are apart.
    """
    scaled = [f"{key} x r{f'^{power:g}' if power != 1 else ''}" for key, power in knobs_scaled(plan.cells).items()]
    if scaled:
        return [f"Scaled with the lr: {', '.join(scaled)}, where r is c divided by the c of {_references(plan)}."]
    left = knobs_left(plan.cells)
    if not left:
        return []
    best = {cell.cell.id: cell.best.log_objective for cell in cells if cell.best}
    twins = [cell.cell for cell in cells if cell.cell.twin]
    gaps = [abs(best[c.id] - best[c.twin.of]) for c in twins if c.twin and c.id in best and c.twin.of in best]
    apart = f", whose best objectives differ by up to {100 * math.expm1(max(gaps)):.2g} %" if gaps else ""
    return [f"{', '.join(left)} as given: sum and mean are different optimizers{apart}. Take hydra.sweeper.companions=scaled."]


def _references(plan: Plan) -> str:
    """Returns the reductions of the references of a plan's cells, in words."""
    twins = {cell.twin.of for cell in plan.cells if cell.twin}
    return " or ".join(dict.fromkeys(str(cell.config["reduction"]) for cell in plan.cells if cell.id in twins))


def coverage(cells: Sequence[CellAnswer]) -> str:
    """Returns a sentence on what the intervals of the best lrs cover; empty where no cell has a trial."""
    seeds = {len(trial.objectives) for cell in cells for trial in cell.trials}
    if not seeds:
        return ""
    if seeds == {1}:
        return own_words(cells[0].cell.config, "One seed was run, so there are no intervals. Take seeds=8.")
    if cells[0].training.is_script:
        return "Intervals cover the seeds of the script and the grid of lrs."
    draws = {cell.training.data_seeds for cell in cells}
    if draws == {"own"}:
        return "Intervals cover seeds (data, order and initial weights) and the grid of lrs."
    others = "not other data" if draws == {"shared"} else "and other data only where data_seeds is own"
    return f"Intervals cover seeds (order and initial weights) and the grid of lrs, {others}."

"""The answer of a study as one self-contained HTML page."""

import base64
import shlex
from collections.abc import Mapping
from typing import Any

from lrscale.report.text import CLAIM_COLUMNS, SLOPE_COLUMNS, cell_table, claim_remarks, claim_row, column_groups, slope_rows
from lrscale.spec import is_own
from lrscale.study.answer import Answer
from lrscale.study.config import GROUPS
from lrscale.study.plan import Plan
from lrscale.study.remarks import coverage, remarks
from lrscale.study.statements import laws
from lrscale.tasks.named import options_of
from lrscale.training.schedules import schedule_in_words

TABLE_WIDTH = 80
"""The largest width of a table in characters, which fits on a page of A4; a wider table is shown in parts."""
FIGURE_TEXTS = {
    "best_lr_against_batch_size": "Best learning rate against batch size, for each reduction. "
    "Points are measured, bars are 95 % intervals, and lines are theory where it makes a statement.",
    "objective_against_lr": "Objective against learning rate, with one panel for each reduction and one curve for each "
    "batch size. Stars mark the best lr, and crosses mark lrs at which a run diverged.",
    "steps_against_batch_size": "Steps to the target against batch size, at the best lr. Bars are 95 % intervals over seeds. "
    "The curve is the fitted trade-off; it lies between perfect scaling and the fewest steps.",
    "quantities": "Measured quantities of each cell, as points with 95 % intervals, and the expected values, as lines or ticks.",
    "loss_against_examples": "Loss against examples seen, at the best lr that was tried in each cell.",
}
"""The caption of each figure, by the start of the figure's name. The page shows the figures in this order."""


def as_html(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Returns an answer as one page that loads nothing from elsewhere.

    Args:
      answer: the answer of a study.
      figures: the bytes of each figure, by its name and the format (`svg`), as `draw` returns them.
    """
    from lrscale.report.figures.interactive import fragment

    return _rendered(
        "report.html",
        answer,
        figures,
        quoted_name=shlex.quote(answer.plan.study),
        made_by=answer.study.made_by,
        interactive=fragment(answer) if answer.families else "",
    )


def as_notebook_html(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Returns an answer as a part of a page, as a notebook shows it: no scripts, and styles for itself only.

    Args:
      answer: the answer of a study.
      figures: the figures to show, as for `as_html`.
    """
    return _rendered("notebook.html", answer, figures)


def _rendered(template: str, answer: Answer, figures: Mapping[str, Mapping[str, bytes]], **values: Any) -> str:
    """Returns a template of this folder, filled with an answer, its figures and further values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lrscale.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [name for start in FIGURE_TEXTS for name in figures if name.startswith(start)]
    images = [
        {
            "text": next(text for start, text in FIGURE_TEXTS.items() if name.startswith(start)),
            "data": base64.b64encode(figures[name]["svg"]).decode(),
            "has_interactive": name.startswith("objective_against_lr"),
        }
        for name in names
    ]
    columns, rows = cell_table(answer)
    groups = list(column_groups(columns, rows, TABLE_WIDTH))
    parts = [([columns[i] for i in group], [[row[i] for i in group] for row in rows]) for group in groups]
    return environment.get_template(template).render(
        study=answer.plan,
        laws=laws(answer),
        remarks=remarks(answer),
        coverage=coverage(answer.cells),
        parts=parts,
        cells=len(rows),
        slope_columns=SLOPE_COLUMNS,
        slopes=slope_rows(answer),
        claim_columns=CLAIM_COLUMNS,
        claims=[claim_row(verdict) for verdict in answer.verdicts],
        claim_remarks=claim_remarks(answer.verdicts),
        figures=images,
        runs=sum(len(t.objectives) for cell in answer.cells for t in cell.trials),
        trials=sum(len(cell.trials) for cell in answer.cells),
        trained=training_in_words(answer.plan),
        **values,
    )


def training_in_words(plan: Plan) -> str:
    """Returns a sentence on how a study trains: its tasks, optimizers, schedules of the lr, budget, seeds, data draws and dtype.

    Budget, seeds, data draws and dtype are those of the first cell.
    """
    configs = [cell.config for cell in plan.cells]
    if plan.is_script:
        optimizers = ", ".join(sorted({config["optimizer"]["name"] for config in configs}))
        return (
            f"training script {configs[0]['task']['name']}; optimizer {optimizers}; seeds: {len(configs[0]['seeds'])} per trial."
        )
    names = {key: sorted({_in_words(key, config[key]) for config in configs}) for key in ("task", "optimizer")}
    parts = [f"{key} {', '.join(values)}" for key, values in names.items()]
    schedules = dict.fromkeys(schedule_in_words(config.get("schedule")) or "constant" for config in configs)
    parts += [f"schedule {', '.join(schedules)}"] if [*schedules] != ["constant"] else []
    parts += [f"{key} {value}" for key, value in configs[0]["budget"].items() if value is not None]
    seeds = configs[0]["seeds"]
    draws = ", each with a data draw of its own" if plan.cells[0].training.data_seeds == "own" else ""
    count = seeds if isinstance(seeds, int) else len(seeds)
    return f"{', '.join(parts)}; seeds: {count} per trial{draws}; dtype {configs[0]['dtype']}."


def _in_words(group: str, values: Mapping[str, Any]) -> str:
    """Returns a choice of a group in words: its name, and the options that differ from the defaults, without the lr.

    The defaults of a user's own task are in its file, which may be gone: all its options are named.
    """
    own = is_own(values["name"])
    defaults = {} if own else GROUPS[group].config(values["name"])[group]
    options = options_of(values) if own else values
    changed = [f"{key} {value}" for key, value in options.items() if key not in ("name", "lr") and value != defaults.get(key)]
    return f"{values['name']} ({', '.join(changed)})" if changed else str(values["name"])

"""An answer as one self-contained HTML page."""

import base64
from collections.abc import Mapping

from lrscale.report.text import cell_table, claim_row, slope_rows
from lrscale.study.answer import Answer
from lrscale.study.plan import Plan
from lrscale.study.statements import laws

FIGURE_TEXTS = {
    "best_lr_against_batch_size": "Best learning rate against batch size, for each reduction, "
    "with 95 % intervals, and theory's line where there is one.",
    "objective_against_lr": "Objective against learning rate: one curve a batch size, a panel a reduction; "
    "stars mark the best lr, crosses divergence.",
    "steps_against_batch_size": "Steps to the target against batch size at the best lr, with 95 % intervals over seeds, "
    "and the trade-off fitted to them between perfect scaling and the fewest steps.",
    "quantities": "What was measured in each cell, as points with their intervals, against what theory says, as lines.",
    "loss_against_examples": "Loss against examples seen, at the best lr that was tried in each cell.",
}


def as_html(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Returns an answer as one self-contained page.

    Args:
      answer: the answer of a study.
      figures: content by name and format (`svg`), as `draw` returns it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from lrscale.report.figures.interactive import fragment

    page = Environment(
        loader=PackageLoader("lrscale.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    order = [name for start in FIGURE_TEXTS for name in figures if name.startswith(start)]
    images = [
        {
            "text": next(t for start, t in FIGURE_TEXTS.items() if name.startswith(start)),
            "data": base64.b64encode(figures[name]["svg"]).decode(),
            "twin": name.startswith("objective_against_lr"),
        }
        for name in order
    ]
    columns, rows = cell_table(answer)
    return page.get_template("report.html").render(
        study=answer.plan,
        made_by=answer.study.made_by,
        laws=laws(answer),
        columns=columns,
        cells=rows,
        slopes=slope_rows(answer),
        claims=[claim_row(v) for v in answer.verdicts],
        figures=images,
        runs=sum(len(t.objectives) for cell in answer.cells for t in cell.trials),
        trials=sum(len(cell.trials) for cell in answer.cells),
        trained=trained(answer.plan),
        interactive=fragment(answer) if answer.families else "",
    )


def trained(plan: Plan) -> str:
    """Returns in words what a study's cells have in common."""
    configs = [cell.config for cell in plan.cells]
    groups = {key: sorted({config[key]["name"] for config in configs}) for key in ("task", "optimizer")}
    parts = [f"{key} {', '.join(names)}" for key, names in groups.items()]
    parts += [f"{key} {value}" for key, value in configs[0]["budget"].items() if value is not None]
    seeds = configs[0]["seeds"]
    return f"{', '.join(parts)}; seeds: {seeds if isinstance(seeds, int) else len(seeds)} a trial; {configs[0]['dtype']}."

"""The answer of a study as one self-contained HTML page."""

import base64
import gzip
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lrscale.report.draw import MAIN_FIGURES
from lrscale.report.tables import (
    CLAIM_COLUMNS,
    QUANTITY_COLUMNS,
    SLOPE_COLUMNS,
    cell_table,
    claim_remarks,
    claim_row,
    quantity_rows,
    slope_rows,
)
from lrscale.report.text import column_groups
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
SCREEN_ROWS, PHONE_ROWS = 24, 15
"""The most rows of a table that is shown unfolded: on a screen that is 900 pixels high, and on a phone."""
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


class _Table(NamedTuple):
    """A table of the page: its title, the columns and rows of each part, and its class for styles."""

    title: str
    parts: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]
    kind: str = ""

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return len(self.parts[0][1])


def as_html(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Returns an answer as one page that loads nothing from elsewhere.

    The main figures are in the page as they are. The other figures and the library of the interactive figure are packed, and
    a script unpacks them: a study of six families would have 3 MB else.

    Args:
      answer: the answer of a study.
      figures: the bytes of each figure, by its name and the format (`svg`), as `draw` returns them.
    """
    from lrscale.report.figures.interactive import program

    return _rendered(
        "report.html",
        answer,
        figures,
        packs=True,
        quoted_name=shlex.quote(answer.plan.study),
        made_by=answer.study.made_by,
        interactive=_packed(program(answer).encode()) if answer.families else "",
        tables=_tables(answer),
        screen_rows=SCREEN_ROWS,
        phone_rows=PHONE_ROWS,
    )


def _packed(content: bytes) -> str:
    """Returns bytes packed by gzip, as base64. Equal bytes give equal texts."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _tables(answer: Answer) -> list[_Table]:
    """Returns the tables of the page, in their order. Many cells of a probe are summed up by quantity first."""
    claims = [claim_row(verdict) for verdict in answer.verdicts]
    tables = [_Table("Claims", [(CLAIM_COLUMNS, claims)], "claims")]
    tables.append(_Table("Slopes of log lr* over log B", [(SLOPE_COLUMNS, slope_rows(answer))]))
    columns, rows = cell_table(answer)
    if not answer.families and len(rows) > PHONE_ROWS:
        tables.append(_Table("What was measured", [(QUANTITY_COLUMNS, quantity_rows(answer.measurements))], "quantities"))
    return [table for table in (*tables, _Table("Cells", _parts(columns, rows))) if table.rows]


def _parts(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[list[str], list[list[str]]]]:
    """Returns a table in parts of at most TABLE_WIDTH. Each starts with the first column."""
    groups = column_groups(columns, rows, TABLE_WIDTH)
    return [([columns[i] for i in group], [[row[i] for i in group] for row in rows]) for group in groups]


def as_notebook_html(answer: Answer, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Returns an answer as a part of a page, as a notebook shows it: no scripts, and styles for itself only.

    Args:
      answer: the answer of a study.
      figures: the figures to show, as for `as_html`.
    """
    return _rendered(
        "notebook.html",
        answer,
        figures,
        parts=_parts(*cell_table(answer)),
        claim_columns=CLAIM_COLUMNS,
        claims=[claim_row(verdict) for verdict in answer.verdicts],
    )


def _rendered(
    template: str, answer: Answer, figures: Mapping[str, Mapping[str, bytes]], packs: bool = False, **values: Any
) -> str:
    """Returns a template of this folder, filled with an answer, its figures and further values.

    `packs` says whether figures that are not main ones are packed too, which takes time.
    """
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
            "name": name.replace("_", " "),
            "text": next(text for start, text in FIGURE_TEXTS.items() if name.startswith(start)),
            "packed": _packed(figures[name]["svg"]) if packs and not name.startswith(MAIN_FIGURES) else "",
            "data": base64.b64encode(figures[name]["svg"]).decode(),
            "has_interactive": name.startswith("objective_against_lr"),
        }
        for name in names
    ]
    return environment.get_template(template).render(
        study=answer.plan,
        laws=laws(answer),
        remarks=remarks(answer),
        coverage=coverage(answer.cells),
        cells=len(answer.plan.cells),
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

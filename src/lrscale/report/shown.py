"""An answer as a notebook or a program uses it: it shows itself, and gives its numbers as tables of pandas."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console

from lrscale.errors import Refusal
from lrscale.report.csv import flat
from lrscale.report.draw import draw, loss_name
from lrscale.report.html import as_notebook_html
from lrscale.report.json import as_json
from lrscale.report.text import show
from lrscale.study.answer import Answer
from lrscale.study.records import Curve
from lrscale.study.statements import laws

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

WIDTH = 100
"""The width of the text, in characters."""
IN_NOTEBOOKS = ("best_lr_against_batch_size", "objective_against_lr")
"""The figures that a notebook shows, by the start of their names."""


@dataclass(frozen=True, repr=False)
class ShownAnswer:
    """The answer of `lrscale.study`. A notebook shows its tables and figures, and `print` its text.

    `answer` holds all that was estimated. `loss_curves` has the loss curve of the best trial of each cell, by the id of the
    cell, against the examples seen.

    Example:
      >>> from lrscale.run.notebook import study
      >>> answer = study("d2l", batch_size=(4, 16), seeds=2, n_trials=8, show_progress=False)
      >>> answer.to_pandas()[["reduction", "batch_size", "n_trials"]].values.tolist()[0]
      ['mean', 4, 8]
      >>> answer
      <answer of study d2l-reduction-batch_size: 4 cells>
    """

    answer: Answer
    loss_curves: Mapping[str, Curve]

    @property
    def law(self) -> tuple[str, ...]:
        """The answer in sentences."""
        return tuple(laws(self.answer))

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with a row for each cell: its best lr with the ends of its interval, its objective, and counts.

        The columns are those of `cells.csv`, which `lrscale publish` writes.
        """
        import pandas

        return pandas.DataFrame([flat(row) for row in as_json(self.answer)["cells"]])

    def trials(self) -> pandas.DataFrame:
        """Returns a table with a row for each run: the values of its cell, its lr and seed, its objective, and `diverged`.

        The objective is inf where the run diverged.
        """
        import pandas

        rows = [
            {"cell": cell.cell.label, **cell.cell.scientific}
            | {key.rpartition(".")[2]: value for key, value in trial.params.items()}
            | {"seed": seed, "objective": objective, "diverged": bool(diverged)}
            for cell in self.answer.cells
            for trial in cell.trials
            for seed, objective, diverged in zip(cell.training.seeds, trial.objectives, trial.diverged, strict=True)
        ]
        return pandas.DataFrame(rows)

    def figure(self, name: str = "best_lr_against_batch_size") -> Figure:
        """Returns a figure of matplotlib.

        Args:
          name: `best_lr_against_batch_size`, `objective_against_lr` or `loss_against_examples`.

        Raises:
          Refusal: there is no figure of that name.
        """
        from lrscale.report.figures import curves

        answer, family = self.answer, self.answer.families[0]
        if name == "best_lr_against_batch_size":
            return curves.best_lr_against_batch_size(answer, family)
        if name == "objective_against_lr":
            return curves.objective_against_lr(answer, family)
        if name == "loss_against_examples":
            return curves.loss_against_examples(answer, family, self.loss_curves, loss_name(answer))
        raise Refusal(f"`name` must be {', '.join(IN_NOTEBOOKS)} or loss_against_examples, got {name!r:.60}.")

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            show(self.answer, console, verbose=True)
        return capture.get().rstrip("\n")

    def __repr__(self) -> str:
        return f"<answer of study {self.answer.plan.study}: {len(self.answer.cells)} cells>"

    @cached_property
    def _html(self) -> str:
        figures = draw(self.answer, {})
        return as_notebook_html(self.answer, {name: files for name, files in figures.items() if name.startswith(IN_NOTEBOOKS)})

    def _repr_html_(self) -> str:
        """Returns the answer as HTML, for a notebook."""
        return self._html

"""Draws all figures of an answer, as PNG and SVG."""

from collections.abc import Mapping

from lrscale.study.answer import Answer
from lrscale.study.records import Curve

MAIN_FIGURES = ("best_lr", "steps_against", "quantities")
"""The names of the figures that answer the study's question start with these."""


def draw(answer: Answer, loss_curves: Mapping[str, Curve]) -> dict[str, dict[str, bytes]]:
    """Draws all figures of an answer. A family of cells gets figures only if one of its cells has a best lr.

    Args:
      answer: the answer of a study.
      loss_curves: the loss curve of each cell's best trial, by the id of the cell; a cell without a curve is left out of the
        figure of loss curves.

    Returns:
      The bytes of each figure, by the name of the figure and the format (`png`, `svg`).
    """
    from lrscale.report.figures import curves

    files: dict[str, dict[str, bytes]] = {}
    if answer.measurements:
        from lrscale.report.figures import quantities

        files["quantities"] = curves.figure_files(quantities.quantities(answer), answer.plan.study)
    for i, family in enumerate(answer.families):
        suffix = f"_{i + 1}" if len(answer.families) > 1 else ""
        if not any(cell.best for cell in family.cells):
            continue
        figures = {
            "objective_against_lr": curves.objective_against_lr(answer, family),
            "best_lr_against_batch_size": curves.best_lr_against_batch_size(answer, family),
            **({"steps_against_batch_size": curves.steps_against_batch_size(answer, family)} if family.trade_off else {}),
        }
        if any(max(loss_curves[c.cell.id].steps, default=0) > 0 for c in family.cells if c.cell.id in loss_curves):
            figures["loss_against_examples"] = curves.loss_against_examples(answer, family, loss_curves, loss_name(answer))
        for name, figure in figures.items():
            files[name + suffix] = curves.figure_files(figure, ": ".join(filter(None, (answer.plan.study, family.name))))
    return files


def main_figures(answer: Answer) -> dict[str, bytes]:
    """Returns the SVG of the figures that answer the study's question, by file name. Each family of cells has one figure, and
    one more where it counts steps to a target.

    A study that runs a probe has one figure, that of its quantities.
    """
    contents = [formats["svg"] for name, formats in draw(answer, {}).items() if name.startswith(MAIN_FIGURES)]
    return {f"figure{f'_{i}' if i > 1 else ''}.svg": content for i, content in enumerate(contents, 1)}


def loss_name(answer: Answer) -> str:
    """Returns the name of the loss whose curves are drawn: the objective if it is a risk, or else `train_loss`."""
    return answer.plan.objective if answer.plan.objective in ("excess_risk", "population_risk") else "train_loss"

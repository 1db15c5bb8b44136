"""All figures of an answer, drawn and kept as PNG and SVG."""

from collections.abc import Mapping

from lrscale.study.answer import Answer
from lrscale.study.records import Curve


def draw(answer: Answer, lines: Mapping[str, Curve]) -> dict[str, dict[str, bytes]]:
    """Draws all figures of an answer.

    Args:
      answer: the answer of a study.
      lines: the loss curve of each cell's best trial, by the cell's id; those that are missing are not drawn.

    Returns:
      The content of each figure by name and format (`png`, `svg`).
    """
    from lrscale.report.figures import curves

    drawn: dict[str, dict[str, bytes]] = {}
    if answer.measurements:
        from lrscale.report.figures import quantities

        drawn["quantities"] = curves.figure_files(quantities.quantities(answer))
    for i, family in enumerate(answer.families):
        suffix = f"_{i + 1}" if len(answer.families) > 1 else ""
        if not any(cell.best for cell in family.cells):
            continue
        figures = {
            "objective_against_lr": curves.objective_against_lr(answer, family),
            "best_lr_against_batch_size": curves.best_lr_against_batch_size(answer, family),
            **({"steps_against_batch_size": curves.steps_against_batch_size(family)} if family.trade_off else {}),
        }
        if any(max(lines[c.cell.id].steps, default=0) > 0 for c in family.cells if c.cell.id in lines):
            figures["loss_against_examples"] = curves.loss_against_examples(answer, family, lines, loss_name(answer))
        for title, figure in figures.items():
            drawn[title + suffix] = curves.figure_files(figure)
    return drawn


def main_figures(answer: Answer) -> dict[str, bytes]:
    """Returns the figures that answer the study's question, as SVG by file name: one for each family of cells."""
    chosen = [files["svg"] for name, files in draw(answer, {}).items() if name.startswith(("best_lr", "quantities"))]
    return {f"figure{f'_{i}' if i > 1 else ''}.svg": content for i, content in enumerate(chosen, 1)}


def loss_name(answer: Answer) -> str:
    return "excess_risk" if answer.plan.objective == "excess_risk" else "train_loss"

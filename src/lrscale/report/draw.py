"""All figures of an answer, drawn and kept as PNG and SVG."""

from collections.abc import Mapping

from lrscale.study.answer import Answer
from lrscale.study.records import Curve


def draw(found: Answer, lines: Mapping[str, Curve]) -> dict[str, dict[str, bytes]]:
    """Draws all figures: name -> format (png, svg) -> content; `lines` are the loss curves of each cell's best trial, by cell."""
    from lrscale.report.figures import curves

    drawn: dict[str, dict[str, bytes]] = {}
    if found.measurements:
        from lrscale.report.figures import quantities

        drawn["quantities"] = curves.figure_files(quantities.quantities(found))
    for i, family in enumerate(found.families):
        suffix = f"_{i + 1}" if len(found.families) > 1 else ""
        if not any(cell.best for cell in family.cells):
            continue
        figures = {
            "objective_against_lr": curves.objective_against_lr(found, family),
            "best_lr_against_batch_size": curves.best_lr_against_batch_size(found, family),
            **({"steps_against_batch_size": curves.steps_against_batch_size(family)} if family.trade_off else {}),
        }
        if any(max(lines[c.cell.id].steps, default=0) > 0 for c in family.cells if c.cell.id in lines):
            figures["loss_against_examples"] = curves.loss_against_examples(found, family, lines, loss_name(found))
        for title, figure in figures.items():
            drawn[title + suffix] = curves.figure_files(figure)
    return drawn


def main_figures(found: Answer) -> dict[str, bytes]:
    """The figures that answer the study's question, as SVG by file name: one for each family of cells."""
    chosen = [files["svg"] for name, files in draw(found, {}).items() if name.startswith(("best_lr", "quantities"))]
    return {f"figure{f'_{i}' if i > 1 else ''}.svg": content for i, content in enumerate(chosen, 1)}


def loss_name(found: Answer) -> str:
    return "excess_risk" if found.plan.objective == "excess_risk" else "train_loss"

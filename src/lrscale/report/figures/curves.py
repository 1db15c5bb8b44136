"""Draws the figures of a study that tunes the lr: objective against lr, best lr against batch size, steps and loss curves."""

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lrscale.estimate.intervals import seed_means
from lrscale.report.figures.bounds import draw_batch_size_claims
from lrscale.report.figures.palette import colours, reduction_look
from lrscale.study.answer import Answer
from lrscale.study.claims import ratio_judgement, selects
from lrscale.study.families import CellAnswer, Family
from lrscale.study.records import Curve
from lrscale.study.verdict import CANNOT_TELL, FAILS, HOLDS, trade_off_judgement, turn_over_judgement

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "lrscale",
    "svg.fonttype": "path",
}
"""The matplotlib style of all figures."""
LEAST_LOSS_SHOWN = 1e-12
"""The smallest loss that is shown, as a fraction of the largest."""
MOST_WITH_FIVES = 200
"""An axis whose end is below this many times its start has ticks at 2 and 5 too; a longer one has two powers of ten at least."""
SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
"""The superscript of each character of an exponent."""
LEAST_SPAN = 4.0
"""The smallest ratio of the ends of an axis of lrs: lrs that agree must not look as if they fell."""
OFFSET_OCTAVES = 0.14
"""The distance between the points of two reductions, in octaves of batch size, so that equal points do not hide each other."""
MOST_LETTERS = 90
"""The largest number of letters of a name at the top of a figure."""
OF_TURN_OVER = ("b_c", "form_residual")
"""The measures of claims that speak of the fit lr_sum* = eta_max/(B + B_c), which is drawn then."""
OBJECTIVE_NAMES = {
    "excess_risk": "excess of the training loss over its minimum",
    "population_risk": "excess of the population risk over its minimum",
    "train_loss": "training loss",
    "valid_loss": "validation loss",
    "valid_error": "validation error",
    "steps_to_target": "steps to the target loss",
}
"""Titles of the axes that show an objective or a loss, by its name."""


def panels(count: int, width: float = 4.4, height: float = 4.0) -> tuple[Figure, "Sequence[Axes]"]:
    """Returns a new figure, and the axes of its panels, which stand in a row and share their y axis.

    Args:
      count: number of panels; at least one panel is made.
      width: width of a panel, in inches.
      height: height of a panel, in inches.
    """
    across = max(1, count)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across * width + 0.6, height), layout="constrained")
        return figure, figure.subplots(1, across, sharey=True, squeeze=False).flatten().tolist()


def set_log_ticks(axis: Axis) -> None:
    """Sets ticks at powers of ten on a log axis; on a short axis also at 2 and 5 times powers of ten.

    There are no minor ticks, because they take longer to draw than the curves.
    """
    low, high = axis.get_view_interval()
    if low > 0 and high < MOST_WITH_FIVES * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    else:
        axis.set_major_locator(LogLocator(numticks=9))
        axis.set_major_formatter(FuncFormatter(lambda v, _: power_of_ten(v)))
    axis.set_minor_locator(NullLocator())


def show_lrs(axes: Axes) -> None:
    """Sets a log scale on a y axis that shows lrs, with ends that are at least a factor of LEAST_SPAN apart."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < LEAST_SPAN * low:
        axes.set_ylim(math.sqrt(low * high / LEAST_SPAN), math.sqrt(low * high * LEAST_SPAN))
    set_log_ticks(axes.yaxis)


def power_of_ten(value: float) -> str:
    """Returns a power of ten as plain text: a formula takes matplotlib longer to set than all curves to draw.

    Example:
      >>> power_of_ten(0.001), power_of_ten(1.0)
      ('10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE}', '10\N{SUPERSCRIPT ZERO}')
    """
    return f"10{f'{math.log10(value):.0f}'.translate(SUPERSCRIPTS)}"


def _set_batch_size_ticks(axes: Axes, sizes: list[int]) -> None:
    """Sets a log scale with base 2 on the x axis, and ticks at batch sizes: at eight of them at most."""
    axes.set_xscale("log", base=2)
    step = math.ceil(len(sizes) / 8)
    axes.set_xticks(sizes[::step], [str(size) for size in sizes[::step]])
    axes.xaxis.set_minor_locator(NullLocator())


def drawable(value: float) -> float:
    """Returns the nearest value that a log axis can show. An objective may be exactly 0, which has no logarithm."""
    return min(max(value, 1e-300), 1e300)


def objective_against_lr(answer: Answer, family: Family) -> Figure:
    """Returns the figure of objective against lr, with a panel for each reduction and a curve for each batch size.

    Marks show the best lr, lrs at which a run diverged and, where theory gives it, the edge of stability.
    """
    palette = colours(cell.training.batch_size for cell in answer.cells)
    reductions = family.reductions()
    objectives = [o for cell in family.cells for _, o, _ in cell.points()]
    finite = [drawable(o) for o in objectives if math.isfinite(o)]
    top = 3 * max(finite, default=1.0)
    with matplotlib.rc_context(STYLE):
        figure, all_axes = panels(len(reductions))
        for axes, reduction in zip(all_axes, reductions, strict=False):
            cells = sorted((c for c in family.cells if c.training.reduction == reduction), key=lambda c: c.training.batch_size)
            for cell in cells:
                _draw_objective(axes, cell, palette[cell.training.batch_size], top)
            axes.set(xscale="log", yscale="log", title=reduction, xlabel="learning rate")
            if finite:
                axes.set_ylim(min(finite) * 0.5, top * 2)
            set_log_ticks(axes.xaxis)
            set_log_ticks(axes.yaxis)
        all_axes[0].set_ylabel(OBJECTIVE_NAMES.get(answer.plan.objective, answer.plan.objective))
        handles = [matplotlib.lines.Line2D([], [], color=palette[b], marker="o", ms=4, label=f"B = {b}") for b in palette]
        handles.append(matplotlib.lines.Line2D([], [], color="#444", marker="*", ms=11, ls="", label="best lr"))
        if len(finite) < len(objectives):
            handles.append(matplotlib.lines.Line2D([], [], color="#444", marker="x", ms=6, ls="", label="diverged"))
        if any(cell.theory_edge for cell in family.cells):
            handles.append(
                matplotlib.lines.Line2D([], [], color="#444", marker="|", ms=12, ls="", label="stability edge\n(theory)")
            )
        figure.legend(handles=handles, loc="outside right upper")
    return figure


def _draw_objective(axes: Axes, cell: CellAnswer, colour: str, top: float) -> None:
    """Draws a cell's objective against lr, its best lr and, where theory gives it, its edge of stability.

    Args:
      axes: the axes of the panel.
      cell: the cell.
      colour: the colour of its batch size.
      top: the height of the marks of diverged trials and of the edge, on the scale of the objective.
    """
    points = cell.points()
    finite = [(lr, drawable(o)) for lr, o, _ in points if math.isfinite(o)]
    if finite:
        axes.plot(*zip(*finite, strict=True), "-o", color=colour, ms=3, lw=1.3, alpha=0.9)
    diverged = [lr for lr, o, _ in points if not math.isfinite(o)]
    axes.plot(diverged, [top] * len(diverged), "x", color=colour, ms=6)
    if cell.best is not None:
        axes.plot(
            cell.best.lr,
            drawable(math.exp(cell.best.log_objective)),
            "*",
            color=colour,
            ms=13,
            mec="white",
            mew=0.8,
            zorder=5,
        )
    if cell.theory_edge is not None:
        axes.plot([cell.theory_edge], [top], "|", color=colour, ms=12, mew=2)


def best_lr_against_batch_size(answer: Answer, family: Family) -> Figure:
    """Returns the figure of best lr against batch size, with all reductions in one panel.

    Measured values are points with their intervals, and theory is a line. The title states lr_sum*/lr_mean* as a power
    of c, with its interval, or that this cannot be told.
    """
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = panels(1, width=6.4, height=4.3)
        reductions = family.reductions()
        for i, reduction in enumerate(reductions):
            colour, marker = reduction_look(reduction)
            shift = 2 ** (OFFSET_OCTAVES * (i - (len(reductions) - 1) / 2))
            cells = sorted((c for c in family.cells if c.training.reduction == reduction), key=lambda c: c.step_examples)
            theory = [(shift * c.step_examples, c.theory_lr) for c in cells if c.theory_lr is not None]
            if theory:
                axes.plot(*zip(*theory, strict=True), "-", color=colour, lw=1.4, alpha=0.6, label=f"{reduction}, theory")
            for fits, face, name in ((True, colour, reduction), (False, "white", f"{reduction}, at an edge")):
                best = [(shift * c.step_examples, c.best.drawn) for c in cells if c.best is not None and c.fits == fits]
                if best:
                    sizes, intervals = zip(*best, strict=True)
                    lrs = [interval.value for interval in intervals]
                    below = [interval.value - interval.low for interval in intervals]
                    above = [interval.high - interval.value for interval in intervals]
                    axes.errorbar(sizes, lrs, [below, above], fmt=marker, color=colour, mfc=face, ms=6, capsize=3, label=name)
        turn = family.turn_over
        if turn is not None and any(c["measure"] in OF_TURN_OVER and selects(c, family.of) for c in answer.plan.claims):
            sizes_of_sum = [c.step_examples for c in family.by_reduction("sum")]
            fine = np.geomspace(min(sizes_of_sum), max(sizes_of_sum), 100)
            label = "sum, fit of\nη_max/(B + B_c)"
            axes.plot(fine, turn.eta_max.value / (fine + turn.b_c.value), "--", color="#8a3b00", lw=1.6, label=label)
        if turn is not None and family.homogeneity == 1 and turn_over_judgement(family).verdict == HOLDS:
            axes.axvline(turn.b_c.value, color="#777", lw=1, ls=":", label=f"half of the level,\nB = {turn.b_c.value:.0f}")
        _set_batch_size_ticks(axes, sorted({c.step_examples for c in family.cells}))
        axes.set(xlabel="batch size B (examples per step)", ylabel="best learning rate lr*")
        show_lrs(axes)
        draw_batch_size_claims(axes, answer.plan.claims, family, "b_c", "B_c")
        ratio = next((r for r in family.ratios if (r.of, r.over) == ("sum", "mean")), None)
        law = r"$\mathbf{lr^*_{sum}\,/\,lr^*_{mean}}$"
        if ratio is not None and (r := ratio.slope) and ratio_judgement(answer.plan, family, ratio).verdict != CANNOT_TELL:
            exponent, said = f"{r.value:z.3f}", f"[{r.low:z.3f}, {r.high:z.3f}]"
            if ratio.same_runs:
                exponent, said = f"{r.value:g}", "exactly: the same runs"
            law = rf"$\mathbf{{lr^*_{{sum}}\,/\,lr^*_{{mean}} = c^{{{exponent}}}}}$   {said}"
        elif {"sum", "mean"} <= set(reductions):
            law += f": {CANNOT_TELL}"
        else:
            law = f"lr* under {', '.join(reductions)}"
        axes.set_title(law, loc="left")  # a long title may extend over the legend
        if axes.has_data():
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def steps_against_batch_size(answer: Answer, family: Family) -> Figure:
    """Returns the figure of steps to the target against batch size, with the fitted trade-off, which the family must have.

        S = S_min (1 + B_crit/B)

    Lines show its two limits: E_min/B for small B, and S_min for large B.
    """
    fit, (sizes, steps) = family.trade_off, zip(*family.steps(), strict=True)
    assert fit is not None
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = panels(1, width=6.4, height=4.3)
        fine = np.geomspace(min(sizes), max(sizes), 200)
        verdict = trade_off_judgement(family).verdict
        values = fit.s_min.value * (1 + fit.b_crit.value / fine)
        label = f"fit of the trade-off{' (fails)' if verdict == FAILS else ''}"
        axes.plot(fine, values, color="#0072b2", lw=1.4, label=label)
        axes.plot(fine, fit.e_min.value / fine, "--", color="#777", lw=1, label="perfect scaling, E_min/B")
        axes.axhline(fit.s_min.value, color="#777", lw=1, ls="-.", label="fewest steps, S_min")
        if verdict == HOLDS:
            axes.axvline(fit.b_crit.value, color="#777", lw=1, ls=":", label=f"B_crit = {fit.b_crit.value:.3g}")
        means, ends = seed_means(np.array(steps))
        axes.errorbar(sizes, means, np.abs(ends - means), fmt="o", color="#0072b2", ms=6, capsize=3, label="measured")
        _set_batch_size_ticks(axes, sorted(sizes))
        axes.set(xlabel="batch size B (examples per step)", ylabel=OBJECTIVE_NAMES["steps_to_target"])
        axes.set_yscale("log", base=2)
        axes.set_ylim(bottom=fit.s_min.value / 2)
        draw_batch_size_claims(axes, answer.plan.claims, family, "b_crit", "B_crit")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def loss_against_examples(answer: Answer, family: Family, loss_curves: Mapping[str, Curve], name: str) -> Figure:
    """Returns the figure of loss against examples seen, with the best trial of each cell.

    Args:
      answer: the answer of the study, which gives the colours.
      family: the family of cells.
      loss_curves: the loss curve of each cell's best trial, by the id of the cell; its steps are counted in examples.
      name: the name of the loss.
    """
    palette = colours(cell.training.batch_size for cell in answer.cells)
    reductions = family.reductions()
    with matplotlib.rc_context(STYLE):
        figure, all_axes = panels(len(reductions))
        for axes, reduction in zip(all_axes, reductions, strict=False):
            for cell in family.cells:
                curve = loss_curves.get(cell.cell.id)
                if cell.training.reduction == reduction and curve is not None:
                    axes.plot(*zip(*_points_until_end(curve), strict=True), color=palette[cell.training.batch_size], lw=1.5)
            axes.set(xscale="log", yscale="log", title=reduction, xlabel="examples seen")
            least, most = axes.get_ylim()
            # below its target, a loss may fall to rounding errors
            axes.set_ylim(bottom=max(least, most * LEAST_LOSS_SHOWN))
            set_log_ticks(axes.xaxis)
            set_log_ticks(axes.yaxis)
        all_axes[0].set_ylabel(f"{OBJECTIVE_NAMES.get(name, name)}\nat the best lr tried")
        handles = [matplotlib.lines.Line2D([], [], color=palette[b], label=f"B = {b}") for b in palette]
        figure.legend(handles=handles, loc="outside right upper")
    return figure


def _points_until_end(curve: Curve) -> list[tuple[int, float]]:
    """Returns the points of a curve that log axes can show, without repeated values at its end.

    A run that reached its target stops there, and its last value is repeated.
    """
    points = [(step, drawable(value)) for step, value in zip(curve.steps, curve.values, strict=True) if step > 0]
    while len(points) > 1 and points[-1][1] == points[-2][1]:
        points.pop()
    return points


def figure_files(figure: Figure, name: str = "") -> dict[str, bytes]:
    """Returns a figure as PNG and SVG, by format. Equal figures give equal bytes, each drawn once.

    Args:
      figure: the figure.
      name: the name of the study, and of the family of cells, which are written at the top; empty for none.
    """
    content = {}
    with matplotlib.rc_context(STYLE):
        if name:
            shown = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
            figure.suptitle(shown, x=0.01, ha="left", fontsize=9.5, color="#555")
        for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, dpi=130, metadata=metadata)
            figure.set_layout_engine(None)  # keeps the layout of the PNG; to compute it again takes as long as to draw
            content[form] = buffer.getvalue()
    return content

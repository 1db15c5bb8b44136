"""Draws the figure of an audit: the norm of the gradient against the number of examples, with the lines of mean and sum."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lrscale.audit.finding import Audit
from lrscale.report.audit import in_few_words
from lrscale.report.figures.curves import STYLE
from lrscale.report.figures.palette import reduction_look

POINTS = "#222"
"""Colour of the measured points."""
INCHES = (6.4, 4.2)
"""Width and height, in inches."""


def gradient_against_examples(audit: Audit) -> Figure | None:
    """Returns the figure of an audit; None where no gradient was measured.

    The x axis is the number of examples of a batch, in which the same examples come once, twice and four times. Both lines go
    through the first point: one is level, as for a mean, and one rises in proportion, as for a sum.
    """
    norms = {int(n): float(norm) for n, norm in audit.numbers.get("sizes", {}).items() if norm > 0}
    if len(norms) < 2:
        return None
    sizes = sorted(norms)
    first = norms[sizes[0]]
    ends = (sizes[0], sizes[-1])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots()
        for reduction, label, power in (("mean", "mean: level", 0), ("sum", "sum: in proportion to n", 1)):
            colour, _ = reduction_look(reduction)
            values = [first * (n / sizes[0]) ** power for n in ends]
            axes.plot(ends, values, color=colour, lw=2.2, ls="--", label=label, zorder=2)
        axes.plot(sizes, [norms[n] for n in sizes], "o", color=POINTS, ms=9, mec="white", label="measured", zorder=3)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
        low = min(*norms.values(), first)
        axes.set_ylim(low / 1.4, max(*norms.values(), first * sizes[-1] / sizes[0]) * 1.4)
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.yaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("examples in the batch n (the same ones again)")
        axes.set_ylabel("norm of the gradient |g|")
        axes.set_title(in_few_words(audit), loc="left")
        axes.legend(loc="upper left")
    return figure

"""Sets the scales, limits and ticks of the axes of a probe's figure."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lrscale.report.figures.curves import power_of_ten, set_log_ticks
from lrscale.study.families import Measurement

ROUNDING_ERROR = 1e-16
"""The size of a rounding error: the axis of values that are all 0 shows so much."""
DWARFING = 100.0
"""A bound of a claim that is so many times larger than all values makes their axis logarithmic."""


def set_x_ticks(axes: Axes, xs: Sequence[float]) -> None:
    """Sets a log scale with ticks at values of the axis, if these are positive and spread over at least a factor of two.

    If one value is 0 and the others spread over more than a factor of 20, the scale is symmetric logarithmic, which shows 0 too.

    Args:
      axes: the axes of a panel.
      xs: the values of the x axis, sorted.
    """
    positive = [x for x in xs if x > 0]
    if xs[0] > 0 and xs[-1] >= 2 * xs[0]:
        axes.set_xscale("log")
    elif xs[0] == 0 and positive and xs[-1] > 20 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    else:
        set_plain_ticks(axes.xaxis)
        return
    ticks = xs[:: math.ceil(len(xs) / 6)]
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def set_scale(axes: Axes, measurements: Sequence[Measurement], which: str, bounds: Sequence[float] = ()) -> None:
    """Sets a log scale where no value is negative and the positive values spread over more than a factor of 20.

    If some of these values are 0, the scale is symmetric logarithmic, which shows 0 too; it stays linear if an expected
    value is not 0. If all values are 0, the ticks are at 0 and at rounding errors. In all other cases the scale stays linear.

    Args:
      axes: the axes of a panel.
      measurements: the measurements whose values are shown.
      which: the axis that shows values, `x` or `y`.
      bounds: bounds that are shown too; they count only where they are so large that the values would look like 0.
    """
    numbers = [v for _, q in measurements for v in (q.value, q.expected) if v is not None]
    numbers += [bound for bound in bounds if bound > DWARFING * max(map(abs, numbers)) > 0]
    positive = [v for v in numbers if v > 0]
    set_scale, axis = getattr(axes, f"set_{which}scale"), getattr(axes, f"{which}axis")
    if not positive or min(numbers) < 0 or max(positive) <= 20 * min(positive):
        set_plain_ticks(axis)
        if max(map(abs, numbers)) == 0:
            getattr(axes, f"set_{which}lim")(-2 * ROUNDING_ERROR, 2 * ROUNDING_ERROR)
            axis.set_ticks([-ROUNDING_ERROR, 0, ROUNDING_ERROR])
        return
    if min(numbers) > 0:
        set_scale("log")
        set_log_ticks(axis)
        return
    if any(q.expected for _, q in measurements):
        set_plain_ticks(axis)
        return
    least, most = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    set_scale("symlog", linthresh=10.0**least, linscale=1.2)
    step = max(1, math.ceil((most - least) / 4))
    first = most - step * ((most - least - 1) // step)  # the lowest decade is next to 0, where its label would lie on that of 0
    axis.set_ticks([0.0, *(10.0**k for k in range(first, most + 1, step))])
    axis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v == 0 else power_of_ten(v)))
    axis.set_minor_locator(NullLocator())
    getattr(axes, f"set_{which}lim")(-(10.0**least) / 2, 1.6 * 10.0**most)


def set_plain_ticks(axis: Axis) -> None:
    """Sets at most six ticks on a linear axis, with numbers as short as they can be."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))


def set_limits(axes: Axes, measurements: Sequence[Measurement], bounds: Sequence[float]) -> None:
    """Sets the limits of the y axis from all measurements of a quantity, so that all its panels have the same limits."""
    ends = [v for _, q in measurements for v in (q.value, q.low, q.high, q.expected) if v is not None]
    ends += [bound for bound in bounds if bound > 0 or axes.get_yscale() != "log"]
    least, most = min(ends), max(ends)
    if axes.get_yscale() == "log":
        axes.set_ylim(least / 1.3, most * 1.3)
        set_log_ticks(axes.yaxis)
    else:
        axes.set_ylim(least - 0.06 * (most - least), most + 0.06 * (most - least))

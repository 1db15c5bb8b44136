"""The layout of a probe's figure: which axis of the study is the x axis, and which axes have panels, colours and marks.

"Marks" are the markers of the points.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.rules import is_number
from lrscale.study.families import Measurement

MOST_LINES = 12
"""The largest number of lines in a panel that a reader can tell apart."""
MOST_TOGETHER = 4
"""The largest number of lines in a panel whose points have no expected values to lie on."""
MOST_SPLIT = 3
"""Up to this number of quantities, each quantity may have one panel for each value of an axis."""


@dataclass(frozen=True)
class Line:
    """The measurements that are drawn as one line, in the order of the x axis.

    `colour` is their value on the axis that has colours, and `marks` are their values on the axes that have marks. Where
    such an axis is the x axis of the panel, the value is None.
    """

    colour: Any
    marks: tuple[Any, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Panel:
    """A panel, which shows one quantity.

    `part` is the value of its measurements on the axis that has panels, in words; None where no axis has panels. `axis` is
    the x axis; None where the panel has none.
    """

    quantity: str
    part: str | None
    axis: str | None
    lines: tuple[Line, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measurements of all its lines."""
        return tuple(m for line in self.lines for m in line.measurements)


@dataclass(frozen=True)
class Layout:
    """The panels in their order, and the axes that have colours and marks.

    `colour` is the axis that has colours, and `colours` are its values. `mark` holds the axes that have marks, and each
    entry of `marks` is a combination of their values.
    """

    panels: tuple[Panel, ...]
    colour: str | None
    colours: tuple[Any, ...]
    mark: tuple[str, ...]
    marks: tuple[tuple[Any, ...], ...]

    @property
    def most_lines(self) -> int:
        """The number of lines in the panel that has most lines."""
        return max((len(panel.lines) for panel in self.panels), default=0)


def layout(measurements: Sequence[Measurement], against: Mapping[str, str]) -> Layout:
    """Returns the layout of the figure of a probe's measurements.

    The x axis of a quantity is the axis that a claim on it names, if this axis is numeric with at least three values.
    Otherwise it is the numeric axis with most values, if one has at least three. Of the axes of the
    quantity with most measurements, an axis of names has panels where there are few quantities; without such an axis, that
    with fewest values has panels where more than MOST_TOGETHER lines without expected values would be in one. Of the axes
    that remain, the one with most values has colours, and all others have marks.

    Args:
      measurements: all measurements, in the study's order.
      against: the x axis that a claim names, by quantity.
    """
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    by_name = {name: [m for m in measurements if m.quantity.name == name] for name in names}
    x_axes = {name: _x_axis(by_name[name], against.get(name)) for name in names}
    main = max(names, key=lambda name: len(by_name[name]), default="")
    others = {axis: axis_values for axis, axis_values in values(by_name.get(main, [])).items() if axis != x_axes.get(main)}
    axes_of_names = [axis for axis, axis_values in others.items() if not all(map(is_number, axis_values))]
    panel_axis = None
    if len(others) > 1 and len(names) <= MOST_SPLIT and x_axes[main]:
        is_crowded = math.prod(map(len, others.values())) > MOST_TOGETHER and all(
            m.quantity.expected is None for m in measurements
        )
        fewest = min(others, key=lambda axis: len(others[axis])) if is_crowded else None
        panel_axis = axes_of_names[0] if axes_of_names else fewest
    inside = {axis: axis_values for axis, axis_values in others.items() if axis != panel_axis}
    colour = max(inside, key=lambda axis: len(inside[axis]), default=None)
    mark = tuple(axis for axis in inside if axis != colour)
    panels = tuple(panel for name in names for panel in _panels(name, by_name[name], x_axes[name], panel_axis, colour, mark))
    marks = {line.marks: None for panel in panels for line in panel.lines}
    return Layout(panels, colour, tuple(inside[colour]) if colour else (), mark, tuple(marks))


def values(measurements: Sequence[Measurement]) -> dict[str, list[Any]]:
    """Returns the values of each axis in which measurements differ, by axis.

    Numbers are sorted; other values are in the study's order.
    """
    by_axis: dict[str, list[Any]] = {}
    for m in measurements:
        for axis, value in m.cell.scientific.items():
            if value not in by_axis.setdefault(axis, []):
                by_axis[axis].append(value)
    return {
        axis: sorted(axis_values) if all(map(is_number, axis_values)) else axis_values
        for axis, axis_values in by_axis.items()
        if len(axis_values) > 1
    }


def _x_axis(measurements: Sequence[Measurement], wanted: str | None) -> str | None:
    """Returns the x axis of a quantity's measurements: the wanted axis if it can be one, or else the longest; else None."""
    numeric = {
        axis: axis_values
        for axis, axis_values in values(measurements).items()
        if all(map(is_number, axis_values)) and len(axis_values) > 2
    }
    return wanted if wanted in numeric else max(numeric, key=lambda axis: len(numeric[axis]), default=None)


def _panels(
    name: str,
    measurements: Sequence[Measurement],
    x_axis: str | None,
    panel_axis: str | None,
    colour: str | None,
    mark: Sequence[str],
) -> list[Panel]:
    """Returns the panels of one quantity.

    Args:
      name: the name of the quantity.
      measurements: its measurements.
      x_axis: the x axis of its panels; None for none.
      panel_axis: the axis that has panels; None for none.
      colour: the axis that has colours; None for none.
      mark: the axes that have marks.
    """
    panels: dict[str | None, dict[tuple[Any, tuple[Any, ...]], list[Measurement]]] = {}
    for m in measurements:
        scientific = m.cell.scientific
        shade = scientific.get(colour) if colour and colour != x_axis else None
        marks = tuple(scientific.get(axis) if axis != x_axis else None for axis in mark)
        part = words(panel_axis, scientific.get(panel_axis)) if panel_axis else None
        panels.setdefault(part, {}).setdefault((shade, marks), []).append(m)
    return [
        Panel(name, part, x_axis, tuple(Line(*key, tuple(_in_order(group, x_axis))) for key, group in lines.items()))
        for part, lines in panels.items()
    ]


def _in_order(measurements: Sequence[Measurement], x_axis: str | None) -> list[Measurement]:
    """Returns measurements sorted along the x axis; without an x axis, in the given order."""
    return sorted(measurements, key=lambda m: float(m.cell.scientific[x_axis])) if x_axis else list(measurements)


def logarithmic(measurements: Sequence[Measurement]) -> bool:
    """Returns whether all values, measured and expected, are positive and the largest is above 20 times the smallest."""
    numbers = [v for _, q in measurements for v in (q.value, q.expected) if v is not None]
    return min(numbers) > 0 and max(numbers) > 20 * min(numbers)


def words(axis: str, value: Any) -> str:
    """Returns a value of an axis in words.

    Example:
      >>> words("batch_size", 16), words("task.features", 2), words("task.bias", False), words("probe.optimizer", "adam")
      ('B = 16', 'features = 2', 'no bias', 'adam')
    """
    name = axis.rpartition(".")[2]
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{'B' if axis == 'batch_size' else name} = {value:g}" if is_number(value) else str(value)

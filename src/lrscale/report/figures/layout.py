"""The layout of a probe's figure: the x axis of each quantity, and which axes of the study become panels, colours and marks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.rules import is_number
from lrscale.study.families import Measurement

MOST_LINES = 12
"""Largest number of lines in a panel that a reader can tell apart."""
FEW = 3
"""Largest number of quantities that get one panel for each value of another axis."""


@dataclass(frozen=True)
class Line:
    """Measurements that are drawn as one line along the x axis.

    `colour`: their value on the axis that has colours. `marks`: their values on the other axes.
    """

    colour: Any
    marks: tuple[Any, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Panel:
    """A panel with one quantity. `part`: its value on the axis that has panels. `axis`: the x axis, None for none."""

    quantity: str
    part: Any
    axis: str | None
    lines: tuple[Line, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(m for line in self.lines for m in line.measurements)


@dataclass(frozen=True)
class Layout:
    """Panels in order, and the axes that have colours and marks, with their values."""

    panels: tuple[Panel, ...]
    colour: str | None
    colours: tuple[Any, ...]
    mark: tuple[str, ...]
    marks: tuple[tuple[Any, ...], ...]

    @property
    def most_lines(self) -> int:
        return max((len(panel.lines) for panel in self.panels), default=0)


def layout(measurements: Sequence[Measurement], against: Mapping[str, str]) -> Layout:
    """Lays out what a probe measured.

    The x axis is the axis that a claim on the quantity names, or else the numeric axis with most values, if it has at
    least three. Of the other axes the one with most values gets colours. An axis of names gets panels where there are
    few quantities.

    Args:
      measurements: all measurements, in the study's order.
      against: the x axes that claims name, by quantity.
    """
    names = list(dict.fromkeys(m.quantity.name for m in measurements))
    of = {name: [m for m in measurements if m.quantity.name == name] for name in names}
    below = {name: _below(of[name], against.get(name)) for name in names}
    main = max(names, key=lambda name: len(of[name]), default="")
    rest = {axis: each for axis, each in values(of.get(main, [])).items() if axis != below.get(main)}
    named = [axis for axis, each in rest.items() if not all(map(is_number, each))]
    parts = named[0] if named and len(rest) > 1 and len(names) <= FEW and below[main] else None
    left = {axis: each for axis, each in rest.items() if axis != parts}
    colour = max(left, key=lambda axis: len(left[axis]), default=None)
    mark = tuple(axis for axis in left if axis != colour)
    panels = tuple(panel for name in names for panel in _panels(name, of[name], below[name], parts, colour, mark))
    marks = {line.marks: None for panel in panels for line in panel.lines}
    return Layout(panels, colour, tuple(left[colour]) if colour else (), mark, tuple(marks))


def values(measurements: Sequence[Measurement]) -> dict[str, list[Any]]:
    """Returns the axes in which measurements differ, with their values: numbers sorted, others in the study's order."""
    seen: dict[str, list[Any]] = {}
    for m in measurements:
        for axis, value in m.cell.scientific.items():
            if value not in seen.setdefault(axis, []):
                seen[axis].append(value)
    return {axis: sorted(each) if all(map(is_number, each)) else each for axis, each in seen.items() if len(each) > 1}


def _below(measurements: Sequence[Measurement], wanted: str | None) -> str | None:
    numeric = {axis: each for axis, each in values(measurements).items() if all(map(is_number, each)) and len(each) > 2}
    return wanted if wanted in numeric else max(numeric, key=lambda axis: len(numeric[axis]), default=None)


def _panels(
    name: str, measurements: Sequence[Measurement], below: str | None, parts: str | None, colour: str | None, mark: Sequence[str]
) -> list[Panel]:
    panels: dict[Any, dict[tuple[Any, tuple[Any, ...]], list[Measurement]]] = {}
    for m in measurements:
        at = m.cell.scientific
        shade = at.get(colour) if colour and colour != below else None
        marks = tuple(at.get(axis) if axis != below else None for axis in mark)
        panels.setdefault(at.get(parts) if parts else None, {}).setdefault((shade, marks), []).append(m)
    return [
        Panel(name, part, below, tuple(Line(*key, tuple(_along(each, below))) for key, each in lines.items()))
        for part, lines in panels.items()
    ]


def _along(measurements: Sequence[Measurement], below: str | None) -> list[Measurement]:
    return sorted(measurements, key=lambda m: float(m.cell.scientific[below])) if below else list(measurements)


def logarithmic(measurements: Sequence[Measurement]) -> bool:
    """Returns whether all values, measured and expected, are positive and spread over more than a decade."""
    numbers = [v for _, q in measurements for v in (q.value, q.expected) if v is not None]
    return min(numbers) > 0 and max(numbers) > 20 * min(numbers)


def words(axis: str, value: Any) -> str:
    """Returns a value of an axis in words, as in `B = 16`, `no bias` or `adam`.

    Example:
      >>> words("batch_size", 16), words("task.features", 2), words("task.bias", False), words("probe.optimizer", "adam")
      ('B = 16', 'features = 2', 'no bias', 'adam')
    """
    name = axis.rpartition(".")[2]
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{'B' if axis == 'batch_size' else name} = {value:g}" if is_number(value) else str(value)

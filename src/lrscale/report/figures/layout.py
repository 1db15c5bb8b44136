"""How a probe's quantities are laid out: the axis below each, and what parts panels, lines, colours and marks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrscale.rules import is_number
from lrscale.study.families import Measurement

MOST_LINES = 12
"""More lines than this cannot be told apart."""
FEW = 3
"""So many quantities have panels for the values of another axis, too."""


@dataclass(frozen=True)
class Line:
    """Measurements that belong together, along the axis below: the value of the colours' axis, and those of the rest."""

    colour: Any
    marks: tuple[Any, ...]
    found: tuple[Measurement, ...]


@dataclass(frozen=True)
class Panel:
    """One quantity, or a part of it: `part` is the value of the panels' axis. `axis`: what lies below, None for nothing."""

    quantity: str
    part: Any
    axis: str | None
    lines: tuple[Line, ...]

    @property
    def found(self) -> tuple[Measurement, ...]:
        return tuple(m for line in self.lines for m in line.found)


@dataclass(frozen=True)
class Layout:
    """Panels in order; names of the axes that colours and marks stand for, with their values."""

    panels: tuple[Panel, ...]
    colour: str | None
    colours: tuple[Any, ...]
    mark: tuple[str, ...]
    marks: tuple[tuple[Any, ...], ...]

    @property
    def most_lines(self) -> int:
        return max((len(panel.lines) for panel in self.panels), default=0)


def layout(found: Sequence[Measurement], against: Mapping[str, str]) -> Layout:
    """Lays out what a probe measured.

    Below lies the axis that a claim on the quantity names, else the numeric one with most values, three at least; of
    the others the one with most values has colours, and a named one has panels where there are few quantities.

    Args:
      found: all measurements, in the study's order.
      against: axes that claims name, by quantity.
    """
    names = list(dict.fromkeys(m.quantity.name for m in found))
    of = {name: [m for m in found if m.quantity.name == name] for name in names}
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


def values(found: Sequence[Measurement]) -> dict[str, list[Any]]:
    """Axes in which measurements differ, with their values: numbers in order, others in the study's."""
    seen: dict[str, list[Any]] = {}
    for m in found:
        for axis, value in m.cell.scientific.items():
            if value not in seen.setdefault(axis, []):
                seen[axis].append(value)
    return {axis: sorted(each) if all(map(is_number, each)) else each for axis, each in seen.items() if len(each) > 1}


def _below(found: Sequence[Measurement], wanted: str | None) -> str | None:
    numeric = {axis: each for axis, each in values(found).items() if all(map(is_number, each)) and len(each) > 2}
    return wanted if wanted in numeric else max(numeric, key=lambda axis: len(numeric[axis]), default=None)


def _panels(
    name: str, found: Sequence[Measurement], below: str | None, parts: str | None, colour: str | None, mark: Sequence[str]
) -> list[Panel]:
    panels: dict[Any, dict[tuple[Any, tuple[Any, ...]], list[Measurement]]] = {}
    for m in found:
        at = m.cell.scientific
        shade = at.get(colour) if colour and colour != below else None
        marks = tuple(at.get(axis) if axis != below else None for axis in mark)
        panels.setdefault(at.get(parts) if parts else None, {}).setdefault((shade, marks), []).append(m)
    return [
        Panel(name, part, below, tuple(Line(*key, tuple(_along(each, below))) for key, each in lines.items()))
        for part, lines in panels.items()
    ]


def _along(found: Sequence[Measurement], below: str | None) -> list[Measurement]:
    return sorted(found, key=lambda m: float(m.cell.scientific[below])) if below else list(found)


def logarithmic(found: Sequence[Measurement]) -> bool:
    """Whether values, measured and expected, are positive and spread over more than a decade."""
    numbers = [v for _, q in found for v in (q.value, q.expected) if v is not None]
    return min(numbers) > 0 and max(numbers) > 20 * min(numbers)


def words(axis: str, value: Any) -> str:
    """A value of an axis, as in `B = 16`, `no bias` or `adam`.

    Example:
      >>> words("batch_size", 16), words("task.features", 2), words("task.bias", False), words("probe.optimizer", "adam")
      ('B = 16', 'features = 2', 'no bias', 'adam')
    """
    name = axis.rpartition(".")[2]
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{'B' if axis == 'batch_size' else name} = {value:g}" if is_number(value) else str(value)

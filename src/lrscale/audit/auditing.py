"""What the measurements of an audit share: the bench, its accuracy, and what has been found so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lrscale.audit.bench import Bench
from lrscale.audit.finding import MISTAKES, Finding

SMALLEST = 1e-5
"""The smallest share of a gradient that is spoken of."""
EXACT = 1e-3
"""How near to a whole number a factor must be, as a share."""


@dataclass
class Auditing:
    """One audit in the making.

    `accuracy` is the smallest share of a gradient that can be seen. `draws` are the seeds over which gradients are averaged.
    `size` is the number of examples in the user's batch, and `accumulation` the number of micro-batches of an update.
    `tolerance` is the smallest share that is spoken of.
    """

    bench: Bench
    indices: list[int]
    size: int
    accumulation: int | None = None
    reference: Callable[[Any], Tensor] | None = None
    tolerance: float = SMALLEST
    draws: tuple[int, ...] = (0,)
    accuracy: float = SMALLEST
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def say(
        self,
        kind: str,
        sentence: str,
        numbers: Mapping[str, Any] | None = None,
        fix: str | None = None,
        is_mistake: bool | None = None,
    ) -> None:
        """Adds a finding. None for `is_mistake` goes by its kind."""
        is_mistake = kind in MISTAKES if is_mistake is None else is_mistake
        self.findings.append(Finding(kind, sentence, dict(numbers or {}), None, fix, is_mistake))

    def has(self, *kinds: str) -> bool:
        """Whether one of these kinds was found."""
        return any(finding.kind in kinds for finding in self.findings)

    def near(self, factor: float, whole: float) -> bool:
        """Whether a factor is a certain number, as far as can be seen."""
        return abs(factor / whole - 1) < max(EXACT, self.accuracy)

    def gradient(self, *micros: Sequence[int]) -> Tensor:
        """Returns the gradient of a composition, [entry]."""
        return self.bench.gradient(*micros, draws=self.draws)

    @property
    def half(self) -> int:
        """Half of the number of examples."""
        return len(self.indices) // 2

"""How often 95 % intervals of lr* hold the truth. Of its settings, those of the power law and of the ratios were not looked
at while the estimators were made; of the others, the rows of lr* were.

    python -m tests.benchmarks.coverage [--quick]

A setting is a least-squares task with one draw of data. Seeds vary the initial weights and the shuffles. The truth is the
lr with the least mean objective over 5000 seeds, on a grid of 1/32 octave. Each repetition has seeds of its own, and a
lattice that is shifted by its own part of a step; it walks the ladder and estimates. Estimates without an interval, such
as those at an edge, are counted apart. The engine's runs are first compared with the plain loop of torch.optim.

The ratio of sum to mean is 1/B to rounding where all batches are full. Here the last batch is short, so it is not.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lrscale.estimate.basins import Basin, minimum
from lrscale.estimate.best_lr import BestLr, best_lr, ratio_slope
from lrscale.estimate.intervals import Interval
from lrscale.search.ladder import first_rungs, next_rungs
from lrscale.spec import Training
from lrscale.tasks.registry import make_task
from lrscale.training.engine import train, use_threads
from lrscale.training.results import results
from tests.configs import make
from tests.loops import train_plainly

Array = NDArray[np.float64]
EXAMPLES = 512
PILOT_SEEDS = 200
FINE = 4
"""How many points of the truth's grid lie in a step of the lattice."""


@dataclass(frozen=True)
class Setting:
    """A cell to tune: the task, the optimizer, the number of seeds and of lrs, and the interval of lrs under mean."""

    name: str
    momentum: float
    batch_size: int
    noise: float
    seeds: int
    lrs: int
    low: float
    high: float
    reduction: str = "mean"
    spectrum: str = "isotropic"
    examples: int = EXAMPLES

    @property
    def scale(self) -> float:
        """The gradient scale c, the number by which an lr under mean is divided."""
        return self.batch_size if self.reduction == "sum" else 1.0

    def training(self, lrs: Sequence[float], seeds: range) -> Training:
        """The training of these lrs, in the units of mean, with these seeds."""
        training = make(
            task="linear", task__features=4, task__examples=self.examples, task__noise=self.noise, task__bias=True,
            task__spectrum=self.spectrum, optimizer__momentum=self.momentum, optimizer__lr=[lr / self.scale for lr in lrs],
            batch_size=self.batch_size, reduction=self.reduction, budget__epochs=3, points=2,
            objective="excess_risk", dtype="float64",
        )  # fmt: skip
        return replace(training, seeds=tuple(seeds))  # more seeds than a config allows

    def objectives(self, lrs: Sequence[float], seeds: range) -> Array:
        """The objective of each lr and seed, [lr, seed]."""
        training = self.training(lrs, seeds)
        return np.array([result.objectives for result in results(training, train(training, make_task(training)))])

    def truth(self, seeds: int) -> float:
        """The lr with the least mean objective over so many seeds, in the units of mean."""
        pilot = _grid(self.low, self.high, 2)
        means = self.objectives(pilot, range(10**6, 10**6 + PILOT_SEEDS)).mean(1)
        near = pilot[means < 1.5 * means.min()]
        lrs = _grid(self.low, self.high, FINE)
        lrs = lrs[np.abs(np.log2(lrs[:, None] / near)).min(1) < 0.25]
        means = self.objectives(lrs, range(2 * 10**6, 2 * 10**6 + seeds)).mean(1)
        return float(np.exp(minimum(np.log(lrs), means[:, None], Basin(0, len(lrs) - 1, int(means.argmin())))[0][0]))

    def check(self) -> None:
        """Fails unless the engine trains as the plain loop does."""
        training = self.training([self.low * 8], range(1))
        task = make_task(training)
        expected, _ = train_plainly(training, task, 0)
        np.testing.assert_allclose(train(training, task).train_loss[-1, 0], expected[-1], rtol=1e-9)


def _grid(low: float, high: float, parts: int) -> Array:
    """The grid of lrs with `parts` points in a step of the lattice."""
    step = 8 * parts
    return np.asarray(2.0 ** (np.arange(math.ceil(math.log2(low) * step), math.log2(high) * step + 1) / step))


def estimates(members: Sequence[Setting], repetition: int, shift: float) -> list[BestLr]:
    """Walks the ladder of cells that share their points, and estimates, in each cell's own units.

    The cells share the seeds of this repetition, and a lattice that is shifted by this part of a step.
    """
    first = members[0]
    seeds = range(repetition * first.seeds, (repetition + 1) * first.seeds)
    tried: list[dict[int, list[float]]] = [{} for _ in members]
    rungs = first_rungs(first.low, first.high, first.lrs)
    while rungs:
        for member, known in zip(members, tried, strict=True):
            rows = member.objectives([2 ** ((k + shift) / 8) for k in rungs], seeds)
            known |= dict(zip(rungs, rows.tolist(), strict=True))
        left = first.lrs - len(tried[0])
        rungs = next_rungs(tried, left, first.low, first.high) if left else []
    found = []
    for member, known in zip(members, tried, strict=True):
        lrs = np.array([2 ** ((k + shift) / 8) for k in known]) / member.scale
        best = best_lr(lrs, np.array(list(known.values())))
        assert best is not None
        found.append(best)
    return found


def interval_of(members: Sequence[Setting], found: Sequence[BestLr]) -> Interval | None:
    """The interval of log lr* of one cell; of two, sum and mean, that of the slope of log lr_sum*/lr_mean* over log B."""
    if len(members) == 2:
        by_sum, by_mean = found
        edges = by_sum.interval is None or by_mean.interval is None
        return None if edges else ratio_slope(np.log([members[0].scale]), [by_sum], [by_mean])
    interval = found[0].interval
    return None if interval is None else Interval(*(math.log(end) for end in interval))


SETTINGS = [
    Setting("SGD", 0.0, 1, 0.1, 4, 16, 2**-13, 2**-3),
    Setting("SGD", 0.0, 8, 1.0, 8, 16, 2**-10, 2**0, "sum"),
    Setting("SGD", 0.0, 60, 0.01, 16, 12, 2**-8, 2**2, "sum"),
    Setting("SGD", 0.0, 512, 1.0, 8, 12, 2**-8, 2**2),
    Setting("SGD, power law", 0.0, 4, 0.1, 8, 16, 2**-11, 2**0, "sum", "power_law"),
    Setting("SGD, power law", 0.0, 128, 0.01, 8, 8, 2**-6, 2**2, "mean", "power_law"),
    Setting("momentum 0.5", 0.5, 1, 1.0, 8, 32, 2**-14, 2**-4),
    Setting("momentum 0.5", 0.5, 16, 0.1, 16, 16, 2**-10, 2**0, "sum"),
    Setting("momentum 0.5", 0.5, 128, 0.01, 8, 16, 2**-8, 2**2),
    Setting("momentum 0.9", 0.9, 1, 0.1, 8, 16, 2**-16, 2**-5),
    Setting("momentum 0.9", 0.9, 16, 0.01, 8, 32, 2**-11, 2**0),
    Setting("momentum 0.9", 0.9, 32, 0.01, 8, 8, 2**-10, 2**1),
    Setting("momentum 0.9", 0.9, 48, 0.01, 4, 12, 2**-10, 2**1),
    Setting("momentum 0.9", 0.9, 64, 0.1, 8, 12, 2**-10, 2**1, "sum"),
    Setting("momentum 0.9", 0.9, 128, 1.0, 4, 32, 2**-9, 2**1, "sum"),
    Setting("momentum 0.9", 0.9, 512, 0.1, 16, 16, 2**-8, 2**2),
]
RATIOS = [
    Setting("SGD", 0.0, 48, 1.0, 8, 16, 2**-9, 2**1, "sum"),
    Setting("SGD", 0.0, 100, 0.1, 2, 12, 2**-8, 2**2, "sum"),
    Setting("momentum 0.5", 0.5, 48, 0.3, 8, 16, 2**-9, 2**1, "sum"),
    Setting("momentum 0.9", 0.9, 24, 1.0, 16, 16, 2**-10, 2**0, "sum"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 repetitions, and a truth from 500 seeds")
    repetitions, seeds = (10, 500) if parser.parse_args().quick else (40, 5000)
    use_threads(1)
    table = Table("what", "optimizer", "B", "noise", "seeds", "lrs", "covered (%)", "width", "none", box=None)
    cells = [(setting,) for setting in SETTINGS]
    for members in (*cells, *((setting, replace(setting, reduction="mean")) for setting in RATIOS)):
        for member in members:
            member.check()
        found = [estimates(members, r, r / repetitions) for r in range(repetitions)]
        intervals = [interval for best in found if (interval := interval_of(members, best))]
        truths = [math.log(member.truth(seeds) / member.scale) for member in members]
        truth = truths[0] if len(members) == 1 else (truths[0] - truths[1]) / math.log(members[0].scale)
        covered = f"{100 * np.mean([interval.holds(truth) for interval in intervals]):.0f}" if intervals else "-"
        width = f"{np.median([interval.high - interval.low for interval in intervals]):.3f}" if intervals else "-"
        s = members[0]
        what = f"lr*, {s.reduction}" if len(members) == 1 else "slope of the ratio"
        row = (what, s.name, s.batch_size, s.noise, s.seeds, s.lrs, covered, width, repetitions - len(intervals))
        table.add_row(*map(str, row))
    Console().print(table)


if __name__ == "__main__":
    main()

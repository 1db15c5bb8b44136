"""Studies whose truth is known: the expected excess risk of fixed epochs, times seed noise, tried on the ladder.

Each repetition is a problem of its own: the scale of its features places the optimum anywhere between two points of
the lattice, and its noise changes the shape of the curve. A seed's noise is a smooth random function of log lr, the same
for both reductions and half of it the same for all batch sizes; in size as measured on `sweeps=headline`.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lrscale.estimate.best_lr import BestLr, best_lr
from lrscale.law import least_squares as theory
from lrscale.search.ladder import first_rungs, lr_at, next_rungs

Array = NDArray[np.float64]
LEVEL, TILT, WAVES = 0.1, 0.25, 0.05
"""Standard deviations over seeds of log objective, of its slope over log lr, and of what is left."""
EXAMPLES = 3000


class Problem:
    """Least squares with three features of one scale, trained for three epochs of 1000 examples."""

    def __init__(self, rng: np.random.Generator, seeds: int) -> None:
        self.spectrum = np.full(3, 2 ** rng.uniform(-0.5, 0.5))
        self.start = np.array([4.0, 11.56, 17.64]) / self.spectrum
        self.noise = 10 ** rng.uniform(-2.5, -1)
        self.rng, self.seeds = rng, seeds
        self.shared = self.wobble()
        self.truth = cache(self._truth)

    def _truth(self, batch_size: int) -> float:
        """Sum-reduction lr with the least expected excess risk."""
        best = theory.best_lr_after_steps(self.spectrum, False, batch_size, EXAMPLES // batch_size, self.start, self.noise)
        return best / batch_size

    def wobble(self) -> Callable[[float], Array]:
        """A random smooth function for each seed, of the log lr counted from the optimum."""
        level, tilt, slow, fast = self.rng.normal(size=(4, self.seeds))
        phases = self.rng.uniform(0, 2 * math.pi, (2, self.seeds))

        def at(x: float) -> Array:
            waves = slow * np.cos(3 * x + phases[0]) + fast * np.cos(12 * x + phases[1])
            return np.asarray(LEVEL * level + TILT * tilt * x + WAVES * waves)

        return at

    def best(self, batch_size: int, trials: int) -> tuple[BestLr, BestLr]:
        """Tunes one batch size on the ladder, under sum and under mean."""
        own, centre = self.wobble(), math.log(self.truth(batch_size))

        def objective(lr_sum: float) -> Array:
            steps = EXAMPLES // batch_size
            expected = theory.expected_excess(
                self.spectrum, False, batch_size, lr_sum * batch_size, steps, self.start, self.noise
            )
            if expected > float(self.spectrum @ self.start):
                return np.full(self.seeds, np.inf)
            x = math.log(lr_sum) - centre
            variance = LEVEL**2 + (TILT * x) ** 2 + WAVES**2
            return np.asarray(expected * np.exp((self.shared(x) + own(x)) / 2**0.5 - variance / 2))

        return tuned(objective, trials, batch_size), tuned(lambda lr: objective(lr / batch_size), trials)


def tuned(objective: Callable[[float], Array], trials: int, c: int = 1) -> BestLr:
    """Walks a ladder and estimates the best lr from what it tried. The lattice is in the units of lr x c."""
    tried: dict[int, Array] = {}
    wanted = first_rungs(1e-4, 2, trials)
    while wanted:
        tried |= {k: objective(lr_at(k) / c) for k in wanted}
        left = trials - len(tried)
        wanted = next_rungs([{k: v.tolist() for k, v in tried.items()}], left, 1e-4, 2) if left else []
    found = best_lr(np.array([lr_at(k) / c for k in tried]), np.array(list(tried.values())))
    assert found is not None and not found.at_edge
    return found

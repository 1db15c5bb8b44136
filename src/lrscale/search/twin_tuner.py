"""Tunes twin cells together: whatever one of them tries, the others try, at the same lr x c^p.

So their best lrs are found among the same points, and twins that are the same run are trained once.
"""

import math
from collections.abc import Mapping, Sequence

from optuna.storages import BaseStorage

from lrscale.search.ladder import first_rungs, lr_at, next_rungs, place_of
from lrscale.search.samplers import AT_ONCE
from lrscale.search.tuner import Ask, Params, PointKey, Tuner
from lrscale.study.plan import Cell, Plan
from lrscale.study.twins import LR_KEY

RecordedRounds = Mapping[str, Sequence[Sequence[Params]]]
"""The rounds of a study that was recorded, by the label of the cell: the tuned hyperparameters, [round][trial]."""


class TwinTuner:
    """The tuners of a reference and its twins; mostly two cells, or a single one.

    `tuners` begins with the reference. `trained` are those of them that train; each other one records the runs of the
    reference, which are its own.
    """

    def __init__(self, plan: Plan, cells: Sequence[Cell], storage: BaseStorage, recorded: RecordedRounds | None = None) -> None:
        """Opens the Optuna studies of the cells.

        Args:
          plan: the plan of the study.
          cells: a reference and its twins.
          storage: Optuna's storage.
          recorded: the rounds that are to be trained; None to ask the sampler.
        """
        self.plan, self.recorded = plan, recorded
        self.tuners = [Tuner(plan, cell, storage) for cell in sorted(cells, key=lambda cell: cell.twin is not None)]
        self.reference = self.tuners[0]
        self.trained = [tuner for tuner in self.tuners if not tuner.cell.twin or not tuner.cell.twin.is_same_run]

    def recording(self, tuner: Tuner) -> list[Tuner]:
        """Returns the tuners that record what a tuner trains: itself, and for the reference those that are the same run."""
        return [tuner, *(t for t in self.tuners if t not in self.trained)] if tuner is self.reference else [tuner]

    def next_round(self) -> list[tuple[Tuner, list[Ask]]]:
        """Asks for the next round of each cell; an open round is returned again.

        Returns:
          Each tuner with its running trials; empty where the cells have all their trials.
        """
        if self.recorded is not None:
            self._start_recorded_rounds(self.recorded)
            return [(tuner, asks) for tuner in self.tuners if (asks := tuner.running())]
        self._share()
        if not any(tuner.running() for tuner in self.tuners):
            missing = self.plan.n_trials - self.reference.held()
            if missing > 0:
                self._start_round(missing)
                self._share()
        return [(tuner, asks) for tuner in self.tuners if (asks := tuner.running())]

    def _start_recorded_rounds(self, recorded: RecordedRounds) -> None:
        """Asks for the next recorded round of each cell, where none is open."""
        if any(tuner.running() for tuner in self.tuners):
            return
        for tuner in self.tuners:
            rounds, done = recorded.get(tuner.cell.label, ()), len(tuner.rounds())
            if done < len(rounds):
                tuner.start_round(rounds[done])

    def _share(self) -> None:
        """Asks every tuner for the points that another has tried and it has not, round by round."""
        for source in self.tuners:
            for tuner in self.tuners:
                if tuner is source or not source.every():
                    continue
                tried = tuner.tried()
                lacking = {p: params for p, params in source.tried().items() if p not in tried}
                in_rounds = [[source.point(ask.params) for ask in asks] for asks in source.rounds()]
                rest = [p for p in lacking if not any(p in points for points in in_rounds)]
                for points in (*in_rounds, rest):
                    if wanted := [_translated(lacking[p], source, tuner) for p in points if p in lacking]:
                        tuner.start_round(wanted)

    def _start_round(self, missing: int) -> None:
        """Starts a round of at most `missing` trials.

        The ladder serves all cells that train. Samplers that learn from objectives are asked for each of them in turn.
        """
        name = self.plan.sampler["name"]
        if name == "ladder" and self.plan.intervals:
            if rungs := self._rungs(missing):  # a narrow interval has few lattice points
                self.reference.start_round(rungs)
            return
        learns = name not in AT_ONCE and bool(self.plan.intervals)
        leader = self.trained[len(self.reference.rounds()) % len(self.trained)] if learns else self.reference
        leader.start_round(min(missing, math.ceil(self.plan.n_trials / 4)) if learns else missing)

    def _rungs(self, missing: int) -> list[Params]:
        """Returns the next lrs of the ladder, at most `missing`."""
        interval, widen = self.plan.intervals[LR_KEY], bool(self.plan.sampler.get("widen"))
        members = [m for m in ({_place(p): o for p, o in t.objectives.items()} for t in self.trained) if m]
        if not self.reference.held() or not members:
            rungs = first_rungs(interval.low, interval.high, self.plan.n_trials)
        else:
            rungs = next_rungs(members, missing, interval.low, interval.high, widen)
        return [{LR_KEY: lr_at(k)} for k in rungs[:missing]]


def twin_tuners(plan: Plan, storage: BaseStorage, recorded: RecordedRounds | None = None) -> list[TwinTuner]:
    """Opens the Optuna studies of all cells of a plan, twins together.

    Args:
      plan: the plan of the study.
      storage: Optuna's storage.
      recorded: the rounds that are to be trained; None to ask the sampler.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        groups.setdefault(cell.twin.of if cell.twin else cell.id, []).append(cell)
    return [TwinTuner(plan, cells, storage, recorded) for cells in groups.values()]


def _place(point: PointKey) -> int:
    """Returns the index of the lattice point nearest to a point's lr."""
    return place_of(float(dict(point)[LR_KEY]))


def _translated(params: Params, source: Tuner, target: Tuner) -> dict[str, float]:
    """Returns the hyperparameters of another cell at the same point."""
    return {key: value / source.cell.factor(key) * target.cell.factor(key) for key, value in params.items()}

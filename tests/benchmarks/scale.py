"""Says what size each setup is good for: the sweeper against 1 to 1,000 simulated workers, by the costs below.

python -m tests.benchmarks.scale               (some minutes; with --measure 2 and 4 real slots beside the prediction, in 4 more)

The order of cells and the sharing of jobs are the program's own code on a simulated clock: see `sweeper.py`.
"""

import argparse
from typing import NamedTuple

from tests.benchmarks import slots
from tests.benchmarks.sweeper import Case, Latency, Played, Store, play

WORKERS = (1, 4, 16, 64, 128, 256, 512, 1000)
LAUNCHERS = {
    "cores (joblib)": Latency(head=0.03, job=0.03, first=2.0),
    "processes (submitit)": Latency(head=0.03, job=3.0),
    "Slurm (submitit)": Latency(head=0.05, job=10.0),
    "Ray": Latency(head=0.03, job=0.3, first=4.0),
}
"""Joblib and submitit's processes were measured on two cores by `hydra.sweeper.profile=true`. Slurm and Ray are estimates: a
Slurm without a queue, which submitit asks every 10 s, and a Ray whose workers are there."""
STORES = {
    "SQLite": Store(trial=0.035),
    "PostgreSQL": Store(trial=0.044),
    "server on SQLite": Store(trial=0.008, delivery=0.031),
    "server on PostgreSQL": Store(trial=0.008, delivery=0.054),
}
"""SQLite was measured in the same way; the others are in proportion, as `stores.py` measured them. Records for a server are
written to disk in the head, and delivered by a thread."""
ROUNDS = {"1 s": 1.0, "10 s": 10.0, "1 min": 60.0}
"""How long a round of a cell trains, in the middle; cells take from 1/3 to 3 times as long."""
GOOD = 0.6
"""A setup is good up to the number of workers of which it uses this share."""
ASK_SECONDS = 0.003


class Answer(NamedTuple):
    """Up to how many workers a setup is good, and what limits it beyond."""

    workers: int
    limit: str


def study(middle: float, cells: int) -> list[float]:
    """How long a round of each cell trains, in seconds: evenly spread in logarithm, in an order that mixes long and short."""
    return [middle * 3 ** (2 * (index * 0.618 % 1) - 1) for index in range(cells)]


def played(middle: float, workers: int, latency: Latency, store: Store) -> Played:
    """Plays a study that has two cells for each worker, at least 40 and at most 1000."""
    return play(Case(study(middle, min(max(40, 2 * workers), 1000)), workers, 12, latency, store, ask=ASK_SECONDS))


def limit_of(run: Played, latency: Latency, store: Store) -> str:
    """What takes most of the time in which slots do not train: the store, launching in the head, or the start of jobs."""
    shares = {
        "store": max(run.recording, store.delivery * run.recorded) / run.seconds,
        "launching": latency.head * run.jobs / run.seconds,
        "start of jobs": (run.busy - run.training) / (run.slots * run.seconds),
    }
    return max(shares, key=lambda name: shares[name])


def good_up_to(middle: float, latency: Latency, store: Store) -> Answer:
    """Returns up to how many workers a setup is good."""
    best = 0
    for workers in WORKERS:
        run = played(middle, workers, latency, store)
        if run.used < GOOD:
            return Answer(best, limit_of(run, latency, store))
        best = workers
    return Answer(best, "")


def beside_measurement(count: int) -> None:
    """Prints the prediction for the study of `slots.py` beside its measurement."""
    real = slots.run(True, count)
    trials = len(real.trials)
    store = Store(real.phases["recording"] / trials)
    seconds = [slots.SECONDS[size] for size in slots.SECONDS] * 4
    steps = [1 / size for size in slots.SECONDS] * 4
    ask = real.phases["asking"] / trials
    run = play(Case(seconds, count, 12, Latency(), store, steps, ask))
    print(
        f"{count} slots, {1e3 * store.trial:.0f} ms a trial: predicted {run.seconds:.1f} s and {run.used:.0%}, "
        f"measured {real.seconds:.1f} s and {real.busy / count / real.seconds:.0%}", flush=True
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="store_true", help="measure 2 and 4 real slots, which takes 4 minutes")
    if parser.parse_args().measure:
        for count in (2, 4):
            beside_measurement(count)
    print(f"good up to how many workers ({GOOD:.0%} used), and the limit beyond, where a round of a cell trains")
    print(f"{'':42s}" + "".join(f"{middle:>22s}" for middle in ROUNDS))
    for launcher, latency in LAUNCHERS.items():
        for name, store in STORES.items():
            answers = [good_up_to(middle, latency, store) for middle in ROUNDS.values()]
            cells = [f"{a.workers}: {a.limit}" if a.limit else f"{a.workers}" for a in answers]
            print(f"{launcher + ', ' + name:42s}" + "".join(f"{cell:>22s}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

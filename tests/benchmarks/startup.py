"""Measures the start of the help text, of the status and of one training, beside importing the frameworks alone.

Other programs change the wall time of a start, so it is compared by processor time, with the commands in turn.

python -m tests.benchmarks.startup
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "lrscale --help": ["-m", "lrscale", "--help"],
    "import torch, mlflow, hydra, optuna": ["-c", "import torch, mlflow, hydra, optuna"],
    "lrscale run, a new database": ["-m", "lrscale", "run", "tracking.uri=sqlite:///new.db"],
    "lrscale run": ["-m", "lrscale", "run"],
    "lrscale status": ["-m", "lrscale", "status"],
}
ROUNDS = 5


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    walls: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS + 1):
            for name, arguments in COMMANDS.items():
                if "new" in name:
                    for suffix in ("", "-wal", "-shm"):
                        if os.path.exists(path := f"{folder}/new.db{suffix}"):
                            os.unlink(path)
                started, before = time.perf_counter(), _processor_seconds()
                subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
                if turn > 0:
                    walls[name].append(time.perf_counter() - started)
                    seconds[name].append(_processor_seconds() - before)
    imports = statistics.median(seconds["import torch, mlflow, hydra, optuna"])
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        of_processor = f"{middle:6.2f} s of the processor, from {min(spent):.2f} to {max(spent):.2f}"
        print(f"{name:38s} {of_processor}   {middle / imports:5.2f} x the imports   wall {statistics.median(walls[name]):.2f} s")


def _processor_seconds() -> float:
    """Returns the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

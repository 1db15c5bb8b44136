"""Measures the start-up time of the help text and of one training, and the time of importing the frameworks alone.

python -m tests.benchmarks.startup
"""

import os
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
}
ROUNDS = 5


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS + 1):
            for name, arguments in COMMANDS.items():
                if "new" in name:
                    for suffix in ("", "-wal", "-shm"):
                        if os.path.exists(path := f"{folder}/new.db{suffix}"):
                            os.unlink(path)
                started = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
                if turn > 0:
                    seconds[name].append(time.perf_counter() - started)
    imports = statistics.median(seconds["import torch, mlflow, hydra, optuna"])
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        print(f"{name:38s} {middle:6.2f} s   from {min(spent):.2f} to {max(spent):.2f}   {middle / imports:5.2f} x the imports")


if __name__ == "__main__":
    main()

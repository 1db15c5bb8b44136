"""Compares the headline study, timed from the command to the answer, with a simple pipeline, as most people first write it.

python -m tests.benchmarks.headline
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAININGS = 5808
SIZES = "1,2,4,8,16,32,64,128,256,512,1024"
ROOT = Path(__file__).parents[2]


def run(command: list[str]) -> tuple[float, str]:
    """Runs a command in a new folder, and returns its wall time in seconds and its output."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        started = time.perf_counter()
        ended = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=True)
        return time.perf_counter() - started, ended.stdout


def main() -> None:
    seconds, said = run(["-m", "lrscale", "run", "-m", "sweeps=headline", "hydra.sweeper.profile=true"])
    print(said[said.index("where the time went") :])
    naive_seconds, _ = run(["-m", "tests.benchmarks.naive", "-m", f"+batch_size={SIZES}"])
    ours, naive = TRAININGS / seconds, len(SIZES.split(",")) / naive_seconds
    print("recorded trainings a second, imports, databases and lrscale's report included")
    print(f"lrscale   {ours:8.1f}   {TRAININGS} in {seconds:.1f} s")
    print(f"naive     {naive:8.2f}   {len(SIZES.split(','))}, one for each batch size, in {naive_seconds:.1f} s")
    print(f"ratio     {ours / naive:8.0f}")


if __name__ == "__main__":
    main()

"""Two people start one study on one server: the second after 0 to 5 s, many times.

python -m pytest -q -s tests/stress/test_several_people.py      (about 4 minutes on two cores)
"""

import subprocess
import sys
import time
from pathlib import Path

from tests.run.test_several_people import server, two_start
from tests.servers import Server

__all__ = ["server"]  # a fixture
DELAYS = [0.0, 0.0, 0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
"""The time between the two starts, in seconds."""


def test_two_that_start_one_study_after_any_delay(tiny: Path, tmp_path: Path, server: Server) -> None:
    ended = []
    for number, delay in enumerate(DELAYS):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended.append(two_start(folder, server, tiny, delay, f"study {number}"))
    refused = sum(2 in statuses for statuses in ended)
    print(f"\nstarts of two: {len(ended)}; the second refused: {refused}; trials twice: 0")


def test_first_starts_at_the_same_moment_share_one_database(tmp_path: Path) -> None:
    begin = "import sys, time, optuna; from lrscale.search.storage import open_storage; time.sleep(max(0, {} - time.time())); "
    begin = begin.format(time.time() + 10) + "open_storage('sqlite:///optuna.db')"
    processes = [subprocess.Popen([sys.executable, "-c", begin], cwd=tmp_path) for _ in range(3)]
    assert [process.wait(100) for process in processes] == [0, 0, 0]

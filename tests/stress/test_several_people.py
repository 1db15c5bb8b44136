"""Two people start one study on one server: the second after 0 to 5 s, many times.

python -m pytest -q -s tests/stress/test_several_people.py      (about 4 minutes on two cores)
"""

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

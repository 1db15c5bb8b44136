"""How a study ends without a reader or without a terminal."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import STUDY, TINY, here

RUN = [sys.executable, "-m", "lrscale", "run", "-m", *TINY]


def test_a_reader_that_leaves_changes_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(RUN, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
        assert study.stdout is not None and study.stderr is not None
        study.stdout.readline()
        study.stdout.close()
        assert (study.stderr.read(), study.wait(300)) == ("", 0)
    assert "finished" in here(tmp_path, "status", STUDY)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_stops_a_study_but_not_below_nohup(tmp_path: Path, ignored: bool) -> None:
    command = [*RUN[:-2], "hydra.sweeper.n_trials=20", RUN[-1]]
    heard = signal.SIG_IGN if ignored else signal.SIG_DFL
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, heard)
    ) as study:
        assert study.stdout is not None
        study.stdout.readline()
        study.send_signal(signal.SIGHUP)
        study.stdout.read()
        assert study.wait(300) == (0 if ignored else 130)
    assert ("finished" if ignored else "stopped") in here(tmp_path, "status", STUDY)

"""What a command does is said from the first second, and goes away; its start is not slowed by a search for garbage."""

import gc
import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lrscale.run import doing, job
from tests.program import TINY, here


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_on_a_terminal_goes_away_and_a_pipe_is_told_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(KeyboardInterrupt), doing.doing("importing torch"):
        assert terminal.getvalue() == "importing torch ...\r"
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\r" + " " * len("importing torch ...") + "\r")
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    with doing.doing("importing torch"):
        pass
    monkeypatch.setattr(doing, "LONG_SECONDS", 0.0)
    with doing.doing("making the database"):
        while not pipe.getvalue():
            time.sleep(0.01)
    assert pipe.getvalue() == "making the database ...\n"


def test_the_first_words_stand_on_the_terminal_before_anything_heavy_is_imported(folder: Path) -> None:
    main, other = pty.openpty()
    program = subprocess.Popen([sys.executable, "-m", "lrscale", "run", "budget.epochs=1"], cwd=folder, stderr=other)
    os.close(other)
    said = b""
    while True:
        try:
            said += os.read(main, 1000)
        except OSError:  # the end of a terminal
            break
    os.close(main)
    first, *later = said.decode().split("\r")
    assert program.wait() == 0 and first == "importing hydra ..." and "importing torch and mlflow ..." in later
    code = "import sys, lrscale.commands.run; print(sorted({'rich', 'hydra', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [["run"], ["run", "-m", *TINY, "batch_size=4"]])
def test_garbage_is_collected_again_once_training_begins(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected, work = [], job.work

    def watched(*arguments: Any) -> Any:
        collected.append(gc.isenabled())
        return work(*arguments)

    monkeypatch.setattr(job, "work", watched)
    here(folder, *arguments)
    assert collected and all(collected) and gc.isenabled()

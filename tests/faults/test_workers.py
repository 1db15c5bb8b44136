"""Workers of a real launcher that are killed: only their own trials are lost, and they are trained again."""

import os
import subprocess
import sys
from pathlib import Path

from lrscale.run.head import STUDY_PROCESS, name_of
from tests.program import TINY, lrscale
from tests.run.test_study import lrs_of

KILLER = """
import os, signal, sys

def kill_one(event, values):
    if event == "import" and values[0] == "lrscale.training.engine":
        try:
            os.close(os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

if os.environ["WORKER"] in " ".join(sys.orig_argv):
    sys.addaudithook(kill_one)
"""
"""A sitecustomize.py: the first process of a worker that is about to train is killed."""


def killing(tmp_path: Path, worker: str) -> dict[str, str]:
    """The environment in which one worker is killed; `worker` stands in the command line of workers alone."""
    (tmp_path / "sitecustomize").mkdir()
    (tmp_path / "sitecustomize/sitecustomize.py").write_text(KILLER)
    path = os.pathsep.join([str(tmp_path / "sitecustomize"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "WORKER": worker, "KILLED": str(tmp_path / "killed")}


def test_a_worker_of_joblib_that_is_killed(tiny: Path, folder: Path, tmp_path: Path) -> None:
    arguments = [*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    said = lrscale(folder, "run", "-m", *arguments, "hydra.sweeper.n_retries=0", **killing(tmp_path, "loky"))
    assert (tmp_path / "killed").exists()
    assert lrs_of(folder) == lrs_of(tiny)  # a loss that others may be guilty of is no retry
    assert "lost " not in said


def test_a_worker_ends_soon_after_its_study_was_killed() -> None:
    head = subprocess.Popen(["sleep", "60"])
    code = "import time; from lrscale.run.head import end_with_head; end_with_head(); print('up', flush=True); time.sleep(60)"
    environment = {**os.environ, STUDY_PROCESS: name_of(head.pid)}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"up\n" and worker.poll() is None
    head.kill()
    head.wait()
    assert worker.wait(timeout=5) == 1
    worker.stdout.close()

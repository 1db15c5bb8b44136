"""Workers of a real launcher that are killed: only their own trials are lost, and they are trained again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from lrscale.run.head import STUDY_PROCESS, name_of
from tests.program import TINY, lrscale
from tests.run.test_study import lrs_of
from tests.scripts import calls, command, install, sweep, sweep_apart

KILLER = """
import os, signal, sys

def fill_memory():
    import ctypes, resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    new = ctypes.CDLL("libstdc++.so.6")._Znwm  # C++'s operator new, as in torch's own code
    new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
    while True:
        new(1 << 30)  # until the limit, where std::bad_alloc ends the process

def kill_one(event, values):
    if event == "import" and values[0] == "lrscale.training.engine":
        for end in (lambda: os.kill(os.getpid(), signal.SIGKILL), fill_memory):
            try:
                os.close(os.open(os.environ["KILLED"] + end.__name__, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            end()

if os.environ["WORKER"] in " ".join(sys.orig_argv):
    sys.addaudithook(kill_one)
"""
"""A sitecustomize.py: the first process of a worker that is about to train is killed, and the second runs out of memory."""


def killing(tmp_path: Path, worker: str) -> dict[str, str]:
    """The environment in which two workers are lost; `worker` stands in the command line of workers alone."""
    (tmp_path / "sitecustomize").mkdir()
    (tmp_path / "sitecustomize/sitecustomize.py").write_text(KILLER)
    path = os.pathsep.join([str(tmp_path / "sitecustomize"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "WORKER": worker, "KILLED": str(tmp_path / "killed")}


def lost(tmp_path: Path) -> int:
    """How many workers were lost."""
    return len(list(tmp_path.glob("killed*")))


def test_workers_of_joblib_that_are_killed_and_out_of_memory(tiny: Path, folder: Path, tmp_path: Path) -> None:
    arguments = [*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    said = lrscale(folder, "run", "-m", *arguments, "hydra.sweeper.n_retries=2", **killing(tmp_path, "loky"))
    assert lost(tmp_path) == 2
    assert lrs_of(folder) == lrs_of(tiny)
    assert "lost " not in said


def test_a_worker_of_a_script_that_is_killed(folder: Path) -> None:
    install("numbers", folder)
    script = (folder / "train.py").read_text()
    mark = f'Path("{folder / "killed"}")'
    killed = f"    if not {mark}.exists():\n        {mark}.touch()\n        os.kill(os.getpid(), 9)\n"
    (folder / "train.py").write_text(script.replace("    time.sleep(cfg.seconds)\n", killed))
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_retries=0"]
    said = sweep_apart(folder, *launcher, "hydra/sweeper/sampler=random")
    assert (folder / "killed").exists() and "6/6 trials" in said
    assert "lost " not in said and "crashed" not in said  # a loss that others may be guilty of is no retry
    strict = folder / "strict batches"
    strict.mkdir()
    install("numbers", strict)
    sweep(strict, "hydra/sweeper/sampler=random")
    assert 7 <= len(calls(folder)) <= 8 and {x for _, x, *_ in calls(folder)} == {x for _, x, *_ in calls(strict)}


def test_the_workers_of_a_script_end_soon_after_its_sweep_was_killed(folder: Path) -> None:
    install("numbers", folder)
    script = (folder / "train.py").read_text()
    slow = "    print('at work', flush=True)\n    time.sleep(60)\n"
    (folder / "train.py").write_text(script.replace("    time.sleep(cfg.seconds)\n", slow))
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    head = subprocess.Popen(command(*launcher), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert head.stdout is not None
    while b"at work" not in head.stdout.readline():
        assert head.poll() is None
    head.kill()
    head.communicate(timeout=20)  # until the last process that can write to the pipe has ended


KILLED_AT_START = """
import os, signal, sys
from joblib.externals.loky.backend.popen_loky_posix import Popen
from lrscale.commands.cli import main
def launch(popen, process, launch=Popen._launch):
    launch(popen, process)
    os.kill(os.getpid(), signal.SIGKILL)
Popen._launch = launch
sys.exit(main())
"""
"""Runs the program, and kills it when its first worker has been started and has no job yet."""


def test_a_worker_without_a_job_ends_soon_after_its_study_was_killed(folder: Path) -> None:
    arguments = [*TINY, "hydra/launcher=cores", "hydra.sweeper.n_jobs=2"]
    head = subprocess.Popen([sys.executable, "-c", KILLED_AT_START, "run", "-m", *arguments], cwd=folder, stderr=subprocess.PIPE)
    assert head.wait(120) == -signal.SIGKILL
    head.communicate(timeout=20)  # until the last process that can write to the pipe has ended


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

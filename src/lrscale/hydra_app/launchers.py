"""What lrscale must know of Hydra's launchers: whether their jobs run in other processes, and how they are cancelled."""

import os
import shutil
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher

from lrscale.errors import Failure
from lrscale.files import safe_name
from lrscale.hydra_app.plan import to_plain
from lrscale.run.head import end_with_head, name_of
from lrscale.run.setup import Workers
from lrscale.system import end_processes


def workers_of(launcher: Launcher, study: str) -> Workers:
    """Returns what the workers of a launcher can do. Launchers that are not known here run jobs in other processes.

    Submitit gets a folder for each study, because its jobs go on after the process that launched them is killed: the next
    execution cancels them.

    Args:
      launcher: the launcher, when it is set up.
      study: the name of the study.
    """
    name, params = type(launcher).__name__, getattr(launcher, "params", {})
    if name == "BasicLauncher":
        return Workers()
    if name == "JoblibLauncher":
        import joblib

        # with one worker, joblib runs the jobs in this process, where only one can run at a time
        settings = to_plain(getattr(launcher, "joblib", {}))
        apart = joblib.effective_n_jobs(settings.get("n_jobs") or 1) > 1
        if apart:  # a worker that has no job yet would outlive a killed study by 5 minutes
            watch = {"initializer": end_with_head, "initargs": (name_of(os.getpid()),)}
            vars(launcher)["joblib"] = settings | watch
        return Workers(apart=apart, shared=True, cancel=_end_workers_of_joblib)
    if name in ("LocalLauncher", "SlurmLauncher") and "submitit_folder" in params:
        folder = _folder_of_submitit(params, study)
        if name == "SlurmLauncher":
            _read_states_without_accounting()
        cancel = partial(_end_processes_of_submitit if name == "LocalLauncher" else _cancel_in_slurm, folder)
        return Workers(apart=True, begin=cancel, cancel=cancel)
    if name == "RayLauncher":
        return Workers(apart=True, begin=partial(_connect_to_ray, launcher), cancel=_disconnect_from_ray)
    return Workers(apart=True)


def _end_workers_of_joblib() -> None:
    """Ends the processes of joblib, with the jobs that run in them. A next call of joblib would start new ones."""
    from joblib.externals.loky import get_reusable_executor

    with suppress(RuntimeError):  # it is ended already
        get_reusable_executor(max_workers=1, reuse=False, kill_workers=True).shutdown(wait=False)


def _connect_to_ray(launcher: Launcher) -> None:
    """Connects to Ray in the main thread: two threads that did so at once would fail.

    The launcher itself cannot connect to a cluster of a newer Ray, because it always sets a size of the object store.

    Raises:
      Failure: Ray does not answer.
    """
    import ray

    settings = to_plain(getattr(launcher, "ray_cfg", {})["init"])
    try:
        if not ray.is_initialized():
            ray.init(**{key: value for key, value in settings.items() if value is not None})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Failure(f"Ray does not answer: {' '.join(str(error).split())[:300]}") from error


def _disconnect_from_ray() -> None:
    """Leaves Ray, which ends the jobs of this process."""
    import ray

    ray.shutdown()


def _folder_of_submitit(params: dict[str, Any], study: str) -> Path:
    """Gives submitit a folder for the jobs of one study, and returns it."""
    base = Path(str(params["submitit_folder"]).replace("%j", "")).expanduser().absolute()
    folder = base / safe_name(study)
    params["submitit_folder"] = str(folder / "%j")
    return folder


def _unfinished(folder: Path) -> list[Path]:
    """Returns the folders of submitit's jobs that have left no result. Each has the name of its job."""
    jobs = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return [job for job in jobs if not any(job.glob("*_result.pkl"))]


def _end_processes_of_submitit(folder: Path) -> None:
    """Ends the processes of submitit's local jobs of a study. They have its folder as an argument, where the system shows it."""
    end_processes("-m", str(folder / "%j"))
    for job in _unfinished(folder):
        shutil.rmtree(job, ignore_errors=True)


def _cancel_in_slurm(folder: Path) -> None:
    """Cancels the Slurm jobs of a study that run or wait in the queue."""
    jobs = _unfinished(folder)
    if jobs:
        subprocess.run(["scancel", *(job.name for job in jobs)], capture_output=True, check=False)
    for job in jobs:
        shutil.rmtree(job, ignore_errors=True)


def _read_states_without_accounting() -> None:
    """Lets submitit ask the controller for the states of jobs where Slurm has no accounting.

    Submitit asks `sacct` alone. Without accounting it prints a warning each time, and waits forever for a job that was killed.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    if subprocess.run(["sacct", "-n", "-X"], capture_output=True, check=False).returncode == 0:
        return

    class Controller(SlurmInfoWatcher):
        """Asks `squeue`, which knows jobs for some minutes after they have ended."""

        def _make_command(self) -> list[str] | None:
            waiting = {job.split("_")[0] for job in self._registered - self._finished}
            if not waiting:
                return None
            return ["squeue", "--states=all", "--array", "--format=%i|%T|%N"]

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            text = string if isinstance(string, str) else string.decode()
            rows = [line.split("|") for line in text.splitlines()[1:]]
            return {job: {"JobID": job, "State": state, "NodeList": nodes} for job, state, nodes in rows}

    SlurmJob.watcher = Controller(delay_s=10)

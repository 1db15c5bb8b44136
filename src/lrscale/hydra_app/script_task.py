"""Runs the jobs of a stranger's Hydra app with Hydra's launcher: sets their environment, and keeps what they return."""

import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lrscale.errors import Failure
from lrscale.files import write_whole
from lrscale.run.head import end_with_head, name_of
from lrscale.run.limits import TookTooLong, time_limit
from lrscale.run.script_jobs import Late, Launched
from lrscale.run.slots import LauncherBroke
from lrscale.study.script import Returned, WrongReturn
from lrscale.system import stop_if_asked


class LateError(RuntimeError):
    """A job took longer than it may. Unlike TookTooLong, Hydra returns it to the sweep."""


class ScriptTask:
    """The app's function, as the launcher gets it; launchers may send it to other processes.

    It calls the function in the environment of its job, and leaves what the function returned in a file, so that a killed
    sweep loses only jobs that were running. It returns what the function returned: the app's own callbacks see no change.
    """

    def __init__(self, function: Any, accept: Callable[[object], Returned]) -> None:
        """Wraps a function.

        Args:
          function: the app's function.
          accept: reads what the function returned; `returned`, or `returned_loss` with roles.
        """
        functools.update_wrapper(self, function)
        self.function, self.accept = function, accept
        self.job_timeout: float | None = None
        self.may_end_process = False
        self.head = name_of(os.getpid())
        self._jobs: dict[int, Launched] = {}

    def with_jobs(self, jobs: Sequence[Launched]) -> None:
        """Adds jobs. Launchers may pickle the task in other threads, so the dict that they see does not change."""
        self._jobs = {**self._jobs, **{job.number: job for job in jobs}}

    def without_jobs(self, jobs: Sequence[Launched]) -> None:
        """Removes jobs that have ended."""
        ended = {job.number for job in jobs}
        self._jobs = {number: job for number, job in self._jobs.items() if number not in ended}

    def __call__(self, config: DictConfig) -> Any:
        end_with_head(self.head)
        job = self._jobs.get(HydraConfig.get().job.num)
        if job is None:
            return self.function(config)
        with _environment(job.environment):
            value = self._call(config)
        stop_if_asked()  # what it returned may be the value of half a training
        try:
            text = self.accept(value).as_json()
        except WrongReturn:  # the sweep says so
            return value
        write_whole(job.file, text)
        return value

    def _call(self, config: DictConfig) -> Any:
        """Calls the function. Where it ends the process, or takes too long, its job has failed, and not the sweep."""
        try:
            with time_limit(self.job_timeout, self.may_end_process):
                return self.function(config)
        except TookTooLong as error:
            raise LateError(str(error)) from None
        except SystemExit as error:
            raise RuntimeError(f"the training function called sys.exit({error.code!r}) and returned nothing") from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables inside the context. MLflow removes one of them, which Hydra's `env_set` does not survive."""
    before, outer = {name: os.environ.get(name) for name in variables}, _open_run()
    os.environ.update(variables)
    try:
        yield
    finally:
        while (run := _open_run()) is not None and run != outer:  # the next job could not start its own
            sys.modules["mlflow"].end_run()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _open_run() -> str | None:
    """Returns the id of MLflow's active run in this process, where the function has imported MLflow; None without one."""
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow is not None else None
    return None if run is None else str(run.info.run_id)


def launch_scripts(
    task: ScriptTask, launcher: Launcher, lock: threading.Lock, jobs: Sequence[Launched]
) -> list[Returned | str | WrongReturn]:
    """Runs jobs with Hydra's launcher; see `lrscale.run.script_jobs.LaunchScripts`. Several threads may call it.

    Args:
      task: the task that the launcher was set up with.
      launcher: Hydra's launcher.
      lock: held while the jobs of the task change.
      jobs: the jobs.

    Raises:
      LauncherBroke: the launcher raised an error.
      Failure: Hydra cannot compose the config of a job.
    """
    with lock:
        task.with_jobs(jobs)
    try:
        job_returns = launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=jobs[0].number)
    except (HydraException, OmegaConfBaseException) as error:
        raise Failure(f"Hydra cannot start job {jobs[0].number}: {' '.join(str(error).split())}") from error
    except Exception as error:
        raise LauncherBroke("".join(traceback.format_exception(error))) from error
    finally:
        with lock:
            task.without_jobs(jobs)
    results: list[Returned | str | WrongReturn] = []
    for job_return in job_returns:
        try:
            results.append(task.accept(job_return.return_value))
        except WrongReturn as error:
            results.append(error)
        except LateError as error:
            results.append(Late(f"TookTooLong: {error}"))
        except Exception as error:
            results.append("".join(traceback.format_exception(error)))
    return results

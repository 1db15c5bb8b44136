"""Runs the jobs of a stranger's Hydra app with Hydra's launcher: sets their environment, and keeps what they return."""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lrscale.files import write_whole
from lrscale.run.script_jobs import Launched, LauncherBroke
from lrscale.study.script import Returned, WrongReturn
from lrscale.system import stop_if_asked


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
        self.jobs: dict[int, Launched] = {}

    def __call__(self, config: DictConfig) -> Any:
        job = self.jobs.get(HydraConfig.get().job.num)
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
        """Calls the function. Where it ends the process, its job has failed, and not the sweep."""
        try:
            return self.function(config)
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
    task: ScriptTask, launcher: Launcher, jobs: Sequence[Launched], first: int
) -> list[Returned | str | WrongReturn]:
    """Runs jobs with Hydra's launcher; see `lrscale.run.script_jobs.LaunchScripts`.

    Args:
      task: the task that the launcher was set up with.
      launcher: Hydra's launcher.
      jobs: the jobs.
      first: the number of the first job.

    Raises:
      LauncherBroke: the launcher raised an error. What Hydra itself says of a config is left as it is.
    """
    task.jobs = dict(enumerate(jobs, start=first))
    try:
        job_returns = launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=first)
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise LauncherBroke("".join(traceback.format_exception(error))) from error
    results: list[Returned | str | WrongReturn] = []
    for job_return in job_returns:
        try:
            results.append(task.accept(job_return.return_value))
        except WrongReturn as error:
            results.append(error)
        except Exception as error:
            results.append("".join(traceback.format_exception(error)))
    return results

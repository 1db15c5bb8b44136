"""The sweeper `lrscale` of any Hydra app: composes and checks what is asked, and runs it as a sweep or as a study."""

import copy
import functools
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lrscale.errors import Failure, Refusal, masked_secrets, masked_url
from lrscale.hydra_app.launchers import workers_of
from lrscale.hydra_app.plan import to_plain
from lrscale.hydra_app.script_overrides import asked, folder_overrides, override_of, parameter, sweep_folders
from lrscale.hydra_app.script_plan import fixed_config, script_name, script_plan
from lrscale.hydra_app.script_settings import Settings, check_settings
from lrscale.hydra_app.script_task import ScriptTask, launch_scripts
from lrscale.run.doing import doing
from lrscale.run.script_jobs import JobLimits, ScriptLauncher
from lrscale.study.script import own_words, returned, returned_loss
from lrscale.study.space import Choices, Parameter
from lrscale.system import stoppable

LOUD = ("matplotlib", "PIL", "filelock")
"""What the report and the stores use: their thousands of details are not those that `hydra.verbose=true` asks a script for."""
WAY_ON = "The same command goes on where it stopped."


def sweep_script(
    values: Mapping[str, Any], config: DictConfig, context: HydraContext, function: TaskFunction, arguments: Sequence[str]
) -> None:
    """Carries out a multirun of a stranger's app. Ends the process with one line where it is refused, fails or is stopped.

    Args:
      values: the values under `hydra.sweeper`.
      config: the config that Hydra composed for the multirun.
      context: Hydra's context.
      function: the app's function.
      arguments: the overrides of the command line.

    Raises:
      SystemExit: with the status 2 for refused, 1 for failed, 130 for stopped.
    """
    for logger in map(logging.getLogger, LOUD):
        if logger.level == logging.NOTSET:  # else the user has set it, as by hydra.verbose=matplotlib
            logger.setLevel(logging.WARNING)
    try:
        with stoppable():
            _sweep(values, config, context, function, arguments)
    except (Refusal, Failure) as error:
        sys.stdout.flush()
        print(f"lrscale: {_in_own_words(values, str(error))}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, Refusal) else 1) from None
    except KeyboardInterrupt:
        print(f"lrscale: stopped. {WAY_ON}", file=sys.stderr)
        raise SystemExit(130) from None


def _in_own_words(values: Mapping[str, Any], text: str) -> str:
    """Returns a text with the keys of the app and of this sweeper in place of lrscale's."""
    roles = to_plain(values.get("roles"))
    is_named = isinstance(roles, Mapping) and "lr" in roles and all(isinstance(key, str) for key in roles.values())
    named = {"roles": roles} if is_named else {}
    return own_words(named, text.replace("tracking.uri", "hydra.sweeper.tracking"))


def _sweep(
    values: Mapping[str, Any], config: DictConfig, context: HydraContext, function: TaskFunction, arguments: Sequence[str]
) -> None:
    """Checks the settings and composes what is asked; then runs it."""
    settings = check_settings({key: to_plain(value) for key, value in values.items()})
    loader = context.config_loader

    def launcher(folder: str) -> ScriptLauncher:
        """Sets up Hydra's launcher to write into a folder."""
        of_jobs = copy.deepcopy(config)
        with read_write(of_jobs.hydra), open_dict(of_jobs.hydra):
            of_jobs.hydra.sweep.dir = folder
            given = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)  # each job resolves ${hydra.job.num}
            assert isinstance(given, list)
            of_jobs.hydra.overrides.hydra = [*map(masked_url, given), *folder_overrides(folder)]  # Hydra writes them to files
            for key in ("tracking", "storage"):
                if (url := masked_url(str(values.get(key)))) != str(values.get(key)):
                    of_jobs.hydra.sweeper[key] = url
        if not (Path(folder) / "multirun.yaml").exists():
            written = OmegaConf.create(masked_secrets(OmegaConf.to_container(of_jobs, resolve=False)))
            OmegaConf.save(written, Path(folder) / "multirun.yaml")
        task = ScriptTask(function, returned_loss if settings.roles else returned)
        hydra_launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=of_jobs)
        workers = workers_of(hydra_launcher, settings.study_name or script_name(config))
        task.job_timeout, task.may_end_process = settings.job_timeout, workers.apart
        return ScriptLauncher(functools.partial(launch_scripts, task, hydra_launcher, threading.Lock()), workers)

    find_folders = functools.partial(sweep_folders, config)
    multirun = _Multirun(settings, config, loader, arguments, find_folders, launcher)
    (_study if settings.roles else _plain_sweep)(multirun)


class _Multirun(NamedTuple):
    """A multirun of an app. `launcher` sets up Hydra's launcher for a folder, one of those of `find_folders`."""

    settings: Settings
    config: DictConfig
    loader: ConfigLoader
    arguments: Sequence[str]
    find_folders: Callable[[str | None], Iterator[str]]
    launcher: Callable[[str], ScriptLauncher]


def _study(multirun: _Multirun) -> None:
    """Runs a study of a script."""
    settings, config, loader, arguments, find_folders, launcher = multirun
    plan = script_plan(settings, config, loader, arguments)
    with doing("importing torch, optuna and mlflow"):
        from lrscale.run.script_study import ScriptSetup, run_script_study
    keys = {key.lstrip("+"): key for key in asked(loader, settings.params, arguments).swept}
    names = {role: keys[key] for role, key in settings.roles.items() if key in keys}
    setup = ScriptSetup(
        uri=settings.tracking,
        storage=settings.storage,
        limits=JobLimits(settings.n_jobs, settings.retries, settings.n_retries),
        max_failure_rate=settings.max_failure_rate,
        lr_key=names["lr"],
        seed_key=names.get("seed"),
    )
    run_script_study(plan, setup, find_folders, launcher)


def _plain_sweep(multirun: _Multirun) -> None:
    """Runs a sweep without roles."""
    settings, config, loader, arguments, find_folders, launcher = multirun
    wanted = asked(loader, settings.params, arguments)
    space = {key: parameter(override) for key, override in wanted.swept.items()}
    extend = None
    if settings.custom_search_space is not None:
        try:
            extend = functools.partial(get_method(settings.custom_search_space), config)
        except (HydraException, ImportError, ValueError) as error:
            raise Refusal(
                f"`hydra.sweeper.custom_search_space` must name a function, got {settings.custom_search_space}: {error}"
            ) from None
    if not space and extend is None:
        raise Refusal(
            "`hydra.sweeper.params` must sweep a parameter, got none. Take params: {optim.lr: 'tag(log,interval(1e-4,1))'}."
        )
    first = [override_of(key, _first(value)) for key, value in space.items()]
    with doing("importing optuna and mlflow"):
        from lrscale.run.sweep import SweepPlan, run_sweep
    plan = SweepPlan(
        name=settings.study_name or script_name(config),
        space=space,
        fixed=wanted.fixed,
        fixed_values=wanted.fixed_values,
        fixed_config=fixed_config(settings, config, loader, wanted, first),
        direction=settings.direction,
        sampler=settings.sampler,
        n_trials=settings.n_trials,
        limits=JobLimits(settings.n_jobs, settings.retries, settings.n_retries),
        max_failure_rate=settings.max_failure_rate,
        uri=settings.tracking,
        storage=settings.storage,
        override_of=override_of,
        extend=extend,
    )
    run_sweep(plan, find_folders, launcher)


def _first(value: Parameter) -> Any:
    """Returns a value that a parameter can have: the first choice, or the middle of an interval."""
    if isinstance(value, Choices):
        return value.values[0]
    if value.whole or value.step is not None:
        return value.low
    return math.sqrt(value.low * value.high) if value.log else (value.low + value.high) / 2

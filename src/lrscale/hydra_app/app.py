"""`lrscale run` as a Hydra app: a single training, or a multirun, which is a study whose jobs Hydra's launcher runs."""

import contextlib
import errno
import gc
import io
import json
import logging
import os
import reprlib
import shlex
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lrscale.errors import Failure, Refusal
from lrscale.files import home
from lrscale.hydra_app.declared import register
from lrscale.hydra_app.folder import logging_overrides, paths_from_start
from lrscale.hydra_app.help import annotated
from lrscale.hydra_app.hints import MULTIRUN, check_flags, flags_first, hint
from lrscale.hydra_app.launchers import workers_of
from lrscale.hydra_app.names import sweep_name
from lrscale.hydra_app.plan import make_plan, plain_config, to_plain, typed_of_hydra
from lrscale.hydra_app.variant import with_variant
from lrscale.rules import Rule, check
from lrscale.run.doing import doing
from lrscale.run.head import STUDY_PROCESS, end_with_head, name_of
from lrscale.spec import is_own
from lrscale.study.config import GROUPS, MOVED, make_compute
from lrscale.study.plan import Share, with_values
from lrscale.tasks.source import read_source, trust, trust_nothing
from lrscale.training.optimizers import LEFT_OUT

if TYPE_CHECKING:
    from lrscale.run.job import Outcome

_LOG = logging.getLogger(__name__)
SHORT = Rule("must have at most 10,000 characters together", lambda v: len(v) <= 10_000)
"""The rule of the whole command line."""


BOOK_LR = 0.03
"""The lr of "Dive into Deep Learning" for its regression, under mean reduction."""
REMOVED = {"hydra.sweeper.direction": "The objective is always minimised: leave it out."}
"""Keys of older versions, with the way out."""


def run_app(arguments: Sequence[str]) -> None:
    """Runs `lrscale run` with a command line of Hydra.

    Raises:
      Refusal: the command line, a config or a value cannot be used; nothing has been written.
      Failure: the training or the study could not finish.
    """
    check("overrides", SHORT, " ".join(arguments), "Write a sweep file, sweeps/NAME.yaml, and take sweeps=NAME.")
    own_optimizer = any(is_own(argument) for argument in arguments if argument.lstrip("+").startswith("optimizer="))
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if key in MOVED:
            raise Refusal(f"`{key}` is called {MOVED[key]} now, got {argument!r:.60}. Give {MOVED[key]} one value.")
        if not own_optimizer and key.startswith("optimizer.") and (option := key.removeprefix("optimizer.")) in LEFT_OUT:
            raise Refusal(f"`{key}` is not an option here, got {argument!r:.60}. {LEFT_OUT[option]}: leave it out.")
        if key == "hydra/sweeper" and argument.partition("=")[2] != "study":
            raise Refusal(
                f"`hydra/sweeper` must be study, got {argument!r:.60}. lrscale run tunes with Optuna itself: leave it out, "
                "and take hydra.sweeper.sampler=tpe hydra.sweeper.n_trials=32 if you like."
            )
        if key in REMOVED:
            raise Refusal(f"`{key}` is not known any more, got {argument!r:.60}. {REMOVED[key]}")
    check_flags(arguments)
    arguments = [f"sweeps={sweep_name(text[7:])}" if text.startswith("sweeps=") else text for text in arguments]
    trust_nothing()
    trust_typed(arguments)
    multirun = any(flag in MULTIRUN for flag in arguments) or any(argument.startswith("sweeps=") for argument in arguments)
    asks_help = bool({"--help", "-h"} & set(arguments))
    original_argv, environment = sys.argv, dict(os.environ)
    added = [] if "--hydra-help" in arguments else [*book_lr(arguments), *logging_overrides(arguments, multirun)]
    sys.argv = ["lrscale run", *flags_first([*arguments, *added])]
    os.environ["LRSCALE_HOME"] = str(home())  # conf/config.yaml reads it, also in jobs that start elsewhere
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    os.environ[STUDY_PROCESS] = name_of(os.getpid())  # a launcher's workers inherit it
    register()
    help_text, of_flags = io.StringIO(), io.StringIO()
    shows_part = bool({"--package", "-p"} & set(arguments))
    try:
        with (
            contextlib.redirect_stdout(help_text) if asks_help else contextlib.nullcontext(),
            contextlib.redirect_stderr(of_flags) if shows_part else contextlib.nullcontext(),
        ):
            hydra.main(version_base="1.3", config_path=str(home() / "conf"), config_name="config")(job)()
    except _Carried as carried:
        raise carried.error from None
    except SystemExit as ended:
        if asks_help:
            print("\n".join(annotated(help_text.getvalue(), arguments)))
        if ended.code == 1:
            raise Refusal(f"{' '.join(of_flags.getvalue().split())}. lrscale run --cfg all shows what there is.") from None
        raise
    except Exception as error:
        if "HYDRA_FULL_ERROR" in environment or not _is_from_hydra(error):
            raise
        raise Refusal(hint(arguments, multirun) or _message(error)) from None
    finally:
        sys.argv = original_argv
        of_mlflow = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}  # set once, on its import
        os.environ.clear()
        os.environ.update({**of_mlflow, **environment})


def book_lr(arguments: Sequence[str]) -> list[str]:
    """Returns an override with the book's lr for sgd, where a command line gives no lr and chooses no other optimizer.

    The default of torch.optim.SGD, 0.001, leaves d2l at its first loss. A sweep file names its own lr, or takes torch's.
    """
    keys = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
    given = {"optimizer.lr", "optimizer.name", "sweeps", "probe", "hydra.sweeper.params", "hydra.sweeper.params.optimizer.lr"}
    others = [a for a in arguments if a.lstrip("+").startswith("optimizer=") and a.partition("=")[2] != "sgd"]
    if keys & given or others:
        return []
    return [f"optimizer.lr={BOOK_LR}"]


def trust_typed(overrides: Sequence[str]) -> None:
    """Trusts the code that overrides of the user name, as in `task=mine.py:cnn`. Sweep files and records cannot do this.

    Raises:
      Refusal: there is no such code.
    """
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key in GROUPS and GROUPS[key].own is not None:
            for name in filter(is_own, _choices(override)):
                trust(read_source(key, name).file)


def _choices(override: str) -> list[str]:
    """Returns the values of an override, as Hydra reads them; none where Hydra cannot, which it says later."""
    try:
        value: Any = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return []
    values = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    return [part.text if isinstance(part, QuotedString) else str(part) for part in values]


def _is_from_hydra(error: Exception) -> bool:
    """Returns whether an error comes from Hydra: it has a class of Hydra, or was raised in code that reads configs."""
    if isinstance(error, HydraException | OmegaConfBaseException) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return True  # Hydra looks for a file with the name of the choice, and the name is too long
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = str(frame.tb_frame.f_globals.get("__name__")) if frame is not None else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml")


class _Carried(SystemExit):
    """Carries an error through Hydra. Hydra prints a line of its own about any Exception, but not about a SystemExit."""

    def __init__(self, error: Refusal | Failure) -> None:
        super().__init__(1)
        self.error = error


def _message(error: Exception) -> str:
    """Returns the one-line message of a refusal for an error from Hydra."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = reprlib.repr(Path(error.filename).stem)
        return f"The choice of a group must be a file's name, got {name}: {error.strerror}. lrscale run --help lists the choices."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "See https")))
    if "To append to your config use" in text:
        text = text.split(" To append", 1)[0].rstrip(".") + ": there is no such key. lrscale run --help lists the keys."
    return text.split(" Config search path:", 1)[0]


def job(config: DictConfig) -> "list[Outcome] | None":
    """Runs one job as Hydra's task function. Takes, returns and raises what `_job` does."""
    with paths_from_start():
        return _job(config)


def _job(config: DictConfig) -> "list[Outcome] | None":
    """Runs one job as Hydra's task function.

    Returns:
      The outcome of each cell of the job in a multirun. None for a single training, which is recorded and printed here.

    Raises:
      _Carried: a single training was refused or failed.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from lrscale.run.job import work_all

        end_with_head()
        trust_typed(to_plain(HydraConfig.get().overrides.task))  # a launcher may run the job in a process of its own
        configs = [with_values(plain_config(config), values) for values in to_plain(config.cells) or [{}]]
        sweeper = HydraConfig.get().sweeper
        compute = make_compute(to_plain(config.compute))
        return work_all(configs, compute, sweeper.job_timeout, may_end_process=sweeper.get("may_end_process", False))
    from lrscale.run.single import run_single

    try:
        _check_is_single(config, HydraConfig.get())
        run_single(plain_config(config), make_compute(to_plain(config.compute)), to_plain(config.tracking))
    except (Refusal, Failure) as error:
        raise _Carried(error) from None
    return None


class CheckFirst(Callback):
    """Refuses a single training that cannot be, before Hydra makes the folder that was asked for."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Checks the config, at the start of Hydra's run.

        Raises:
          _Carried: the training was refused.
        """
        from lrscale.run.single import checked_single

        try:
            _check_is_single(config, config.hydra)
            checked_single(plain_config(config), make_compute(to_plain(config.compute)))
        except (Refusal, Failure) as error:
            raise _Carried(error) from None


def _check_is_single(whole: DictConfig, config: HydraConf) -> None:
    """Raises Refusal where `cells` are given, or a sweep file says what to sweep and neither `-m` nor `hydra.mode` was given."""
    if whole.cells is not None:
        raise Refusal("`cells` must be null in a single training: a study sets it for its jobs. Leave it out.")
    sweeps = config.runtime.choices.get("sweeps")
    swept = set(config.sweeper.get("params") or {}) - {"seeds"}
    if sweeps is not None and swept and "hydra.mode=RUN" not in sys.argv:  # Hydra's own overrides have it in any case
        command = shlex.join(["lrscale", "run", "-m", f"sweeps={sweeps}"])
        raise Refusal(
            f"`sweeps` {sweeps} is a study, as it sweeps {', '.join(sorted(swept))}, got one training. Add -m: {command}."
        )


def sweep(
    settings: Mapping[str, Any], config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: list[str]
) -> None:
    """Carries out a multirun: makes and checks its whole plan, then runs the study.

    Args:
      settings: the values under `hydra.sweeper`.
      config: the config that Hydra composed for the multirun.
      loader: Hydra's config loader.
      launcher: the launcher that runs the jobs.
      arguments: the overrides of the command line.

    Raises:
      Refusal: the plan cannot be used; nothing has been written.
      Failure: the study could not finish.
    """
    with doing("reading the study"):
        plan, setup = make_plan({key: to_plain(value) for key, value in settings.items()}, config, loader, arguments)
        plan = with_variant(plan, config, loader)
    if folder := [text for text in typed_of_hydra(config) if text.startswith("hydra.run.dir=")]:
        raise Refusal(
            f"`hydra.run.dir` is for one training, got {folder[0]!r:.80} in a study. Take hydra.sweep.dir in its place."
        )
    setup = replace(setup, workers=workers_of(launcher, plan.study))
    if config.hydra.output_subdir is not None:
        Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
    launched, lock = [0], threading.Lock()
    asked = to_plain(config.compute)["device"]
    of_all = [f"compute.device={setup.compute.device}"] if asked == "auto" else []  # each job takes the one that was chosen here
    of_all += ["+hydra.sweeper.may_end_process=true"] if setup.workers.apart else []  # read with job_timeout

    def launch(jobs: Sequence[Sequence[Share]]) -> "list[list[Outcome] | str]":
        """Runs jobs with Hydra's launcher, and returns the outcomes of each job. A crashed job gives its traceback instead."""
        with lock:
            first = launched[0]
            launched[0] += len(jobs)
        outcomes: list[list[Outcome] | str] = []
        overrides = [[*job_overrides(job), *of_all] for job in jobs]
        for index, values in enumerate(overrides, first):
            _LOG.debug("job %d: %s", index, " ".join(values))
        for returned in launcher.launch(overrides, initial_job_idx=first):
            try:
                outcomes.append(returned.return_value)
            except Exception as error:
                outcomes.append("".join(traceback.format_exception(error)))
        return outcomes

    with doing("importing torch, optuna and mlflow"):
        from lrscale.run.study import run_study
    gc.enable()
    run_study(plan, setup, launch)


def job_overrides(job: Sequence[Share]) -> Iterator[str]:
    """Yields the overrides of one job: those that all its cells share, then `cells`, with the values of each cell.

    The values of a cell are those that it sets, and a list for each tuned hyperparameter with one value per trial.
    """
    yield from job[0].cell.overrides
    cells = []
    for cell, params in job:
        values = {name: json.dumps(value) for name, value in cell.values.items()}
        values |= {name: f"[{','.join(repr(trial[name]) for trial in params)}]" for name in params[0]}
        cells.append("{" + ",".join(f"{name}:{text}" for name, text in values.items()) + "}")
    yield f"cells=[{','.join(cells)}]"

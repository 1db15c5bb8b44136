"""Hydra's door: composes configs, turns a multirun into a plan and its jobs, and runs a single training."""

import errno
import itertools
import json
import os
import reprlib
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrscale.errors import Failure, Refusal
from lrscale.files import home
from lrscale.rules import BOOLEAN, FRACTION, TEXT, Rule, check, integer, is_number, one_of
from lrscale.spec import KEYS, TUNED, identity, training
from lrscale.study.plan import Cell, Interval, Plan, Share, cell_label, has, with_values

if TYPE_CHECKING:
    from lrscale.run.job import Outcome

TOP_LEVEL = (*KEYS, "tracking", "study", "cells")
SETTINGS: dict[str, Rule] = {
    "direction": one_of("minimize"),
    "storage": TEXT,
    "n_trials": integer(1, 100_000),
    "n_jobs": integer(1, 100_000),
    "profile": BOOLEAN,
    "max_failure_rate": Rule("must be >= 0 and <= 1", lambda v: FRACTION.holds(v) or (is_number(v) and v == 1)),
}
SHORT = Rule("must have at most 10,000 characters together", lambda v: len(v) <= 10_000)
MAPPING = Rule("must be a mapping or null", lambda v: v is None or isinstance(v, Mapping))
OPTIONAL_TEXT = Rule(
    "must be a text of at most 1000 characters or null", lambda v: v is None or (isinstance(v, str) and len(v) <= 1000)
)
TRACKING: dict[str, Rule] = {"uri": TEXT, "experiment": TEXT}
STUDY: dict[str, Rule] = {
    "question": OPTIONAL_TEXT,
    "law": OPTIONAL_TEXT,
    "ranges": MAPPING,
    "claims": Rule("must be a list or null", lambda v: v is None or isinstance(v, list)),
}


def main(arguments: Sequence[str]) -> None:
    """Runs `lrscale run` with Hydra's command line.

    Raises:
      Refusal: the command line, a config or a value cannot be used; nothing has been written.
    """
    check("overrides", SHORT, " ".join(arguments), "Write a sweep file, sweeps/NAME.yaml, and take sweeps=NAME.")
    given, environment = sys.argv, dict(os.environ)
    sys.argv = ["lrscale run", *arguments]
    os.environ["LRSCALE_HOME"] = str(home())  # read by conf/config.yaml, in jobs that start elsewhere too
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print
    try:
        hydra.main(version_base="1.3", config_path=str(home() / "conf"), config_name="config")(job)()
    except _Told as told:
        raise told.error from None
    except Exception as error:
        if "HYDRA_FULL_ERROR" in environment or not _is_hydras(error):
            raise
        raise Refusal(_wording(error)) from None
    finally:
        sys.argv = given
        os.environ.clear()
        os.environ.update(environment)


def _is_hydras(error: Exception) -> bool:
    """Whether an error is of Hydra's making: of its classes, or any that was raised in its reading of configs and overrides."""
    if isinstance(error, HydraException | OmegaConfBaseException) or getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return True  # a choice of a group is looked for as a file of its name
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = str(frame.tb_frame.f_globals.get("__name__")) if frame is not None else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml")


class _Told(SystemExit):
    """Carries what is told in one line past Hydra, which would print a line of its own about any Exception."""

    def __init__(self, error: Refusal | Failure) -> None:
        super().__init__(1)
        self.error = error


def _wording(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = reprlib.repr(Path(error.filename).stem)
        return f"A group's choice must be a file's name, got {name}: {error.strerror}. lrscale run --help lists the choices."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "See https")))
    if "To append to your config use" in text:
        text = text.split(" To append", 1)[0] + ": there is no such key. lrscale run --help lists them."
    return text


def job(config: DictConfig) -> "list[Outcome] | None":
    """What Hydra calls: in a multirun it returns each cell's results or traceback; alone it records and prints."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from lrscale.run.job import work_all

        return work_all([with_values(plain_config(config), values) for values in _plain(config.cells) or [{}]])
    from lrscale.run.single import run_single

    try:
        if config.cells is not None:
            raise Refusal("`cells` is filled by a study and must be null in a single training. Leave it out.")
        run_single(plain_config(config), _plain(config.tracking))
    except (Refusal, Failure) as error:
        raise _Told(error) from None
    return None


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Returns the part of a composed config that describes a training, as plain values.

    Raises:
      Refusal: the config has keys that nothing reads.
    """
    unknown = [str(key) for key in config if key not in (*TOP_LEVEL, "hydra")]
    if unknown:
        raise Refusal(f"`{unknown[0]}` is not known. Known: {', '.join(TOP_LEVEL)}.")
    return {str(key): _plain(config[key]) for key in config if key in KEYS}


def sweep(
    settings: Mapping[str, Any], config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: list[str]
) -> None:
    """Carries out a multirun: makes its plan, checks all of it, and conducts the study."""
    plan = make_plan({key: _plain(value) for key, value in settings.items()}, config, loader, arguments)
    launched = [0]

    def launch(jobs: Sequence[Sequence[Share]]) -> "list[list[Outcome] | str]":
        """Runs jobs through Hydra's launcher; a job that crashed gives its traceback."""
        first = launched[0]
        launched[0] += len(jobs)
        outcomes: list[list[Outcome] | str] = []
        for returned in launcher.launch([list(job_overrides(job)) for job in jobs], initial_job_idx=first):
            try:
                outcomes.append(returned.return_value)
            except Exception as error:
                outcomes.append("".join(traceback.format_exception(error)))
        return outcomes

    from lrscale.run.study import conduct

    conduct(plan, launch)


def job_overrides(job: Sequence[Share]) -> Iterator[str]:
    """Overrides of one job: what its cells share, and what each of them sets, its trials' hyperparameters as lists."""
    yield from job[0].cell.overrides
    cells = []
    for cell, params in job:
        values = {name: json.dumps(value) for name, value in cell.values.items()}
        values |= {name: f"[{','.join(repr(trial[name]) for trial in params)}]" for name in params[0]}
        cells.append("{" + ",".join(f"{name}:{text}" for name, text in values.items()) + "}")
    yield f"cells=[{','.join(cells)}]"


def _plain(value: Any) -> Any:
    """Returns a value without OmegaConf's types, interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value


def make_plan(settings: Mapping[str, Any], config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]) -> Plan:
    """Makes the plan of a multirun.

    Args:
      settings: of `hydra.sweeper`.
      config: what Hydra composed for the multirun.
      loader: Hydra's config loader.
      arguments: overrides of the command line.

    Raises:
      Refusal: a setting, an override or a cell cannot be used; all such cells are listed.
    """
    for key in settings:
        if key not in (*SETTINGS, "sampler", "study_name", "params"):
            raise Refusal(
                f"`hydra.sweeper.{key}` is not known. Known: {', '.join([*SETTINGS, 'sampler', 'study_name', 'params'])}."
            )
    for key, rule in SETTINGS.items():
        check(f"hydra.sweeper.{key}", rule, settings.get(key))
    check("hydra.sweeper.params", MAPPING, settings.get("params"))
    tracking, study = _plain(config.tracking), {} if config.study is None else _plain(config.study)
    for section, value, rules in (("tracking", tracking, TRACKING), ("study", study, STUDY)):
        check(section, MAPPING, value)
        for key, rule in rules.items():
            check(f"{section}.{key}", rule, (value or {}).get(key))
    axes, intervals, fixed = _axes(loader, settings.get("params") or {}, arguments)
    cells = _cells(config, loader, axes, [*fixed, *_middle(intervals)], intervals)
    chosen = config.hydra.runtime.choices.get("sweeps")
    name = settings.get("study_name")
    if name is None:
        name = chosen or "-".join([cells[0].config["task"]["name"], *(axis.rpartition(".")[2] for axis in axes)])
    check("hydra.sweeper.study_name", TEXT, name)
    sampler = settings.get("sampler")
    return Plan(
        study=name,
        cells=cells,
        intervals=intervals,
        sampler=sampler if isinstance(sampler, Mapping) else {"name": sampler},
        n_trials=settings["n_trials"] if intervals else 1,
        n_jobs=settings["n_jobs"],
        max_failure_rate=settings["max_failure_rate"],
        storage=settings["storage"],
        tracking=tracking,
        question=study.get("question"),
        law=study.get("law"),
        ranges=study.get("ranges") or {},
        claims=study.get("claims") or [],
        profile=settings["profile"],
        command=shlex.join(["lrscale", "run", "-m", *arguments]),
    )


def _axes(
    loader: ConfigLoader, params: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Interval], list[str]]:
    """Sorts overrides into axes with their values, intervals, and what is fixed; arguments override params."""
    parser = OverridesParser.create(config_loader=loader)
    texts = [f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in params.items()]
    parsed = {o.get_key_element(): o for o in parser.parse_overrides([*texts, *arguments])}
    axes: dict[str, list[str]] = {}
    intervals: dict[str, Interval] = {}
    fixed: list[str] = []
    for key, override in parsed.items():
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif override.is_discrete_sweep():
            axes[key] = [str(value) for value in override.sweep_string_iterator()]
            if not axes[key] or len(set(axes[key])) < len(axes[key]):
                raise Refusal(
                    f"`{key}` must be swept over values that differ, got {override.input_line}. Leave repeated ones out."
                )
        else:
            intervals[key] = _interval(key, override)
    return axes, intervals, fixed


def _interval(key: str, override: Override) -> Interval:
    value = override.value()
    if not isinstance(value, IntervalSweep) or key not in TUNED:
        raise Refusal(
            f"`{key}` must be swept over values, got {override.input_line}. Only {', '.join(TUNED)} can be tuned in an interval."
        )
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (is_number(low) and is_number(high) and low < high):
        raise Refusal(
            f"`{key}` must be tuned in an interval with low < high, got {override.input_line}. Take tag(log,interval(1e-4,1))."
        )
    for end in (low, high):
        check(key, TUNED[key], end, "An interval's ends keep the rule too.")
    if "log" in value.tags and low <= 0:
        raise Refusal(f"`{key}` must be > 0 to be tuned on a log scale, got {override.input_line}. Raise the low end.")
    return Interval(float(low), float(high), "log" in value.tags)


def _middle(intervals: Mapping[str, Interval]) -> list[str]:
    """A value inside each interval, to compose and check a cell with."""
    return [f"{key}={(i.low * i.high) ** 0.5 if i.log else (i.low + i.high) / 2!r}" for key, i in intervals.items()]


def _cells(
    config: DictConfig,
    loader: ConfigLoader,
    axes: Mapping[str, list[str]],
    fixed: list[str],
    intervals: Mapping[str, Interval],
) -> tuple[Cell, ...]:
    """Makes and checks every combination of the axes: choices of groups are composed by Hydra, other values are set."""
    from lrscale.tasks.images import check_files

    parser = OverridesParser.create(config_loader=loader)
    base = plain_config(loader.load_sweep_config(config, fixed))
    values = {key: [parser.parse_override(f"{key}={text}").value() for text in axes[key]] for key in axes if has(base, key)}
    composed: dict[tuple[str, ...], dict[str, Any]] = {}
    cells: list[Cell] = []
    refused: dict[str, list[str]] = {}
    for place in itertools.product(*(range(len(texts)) for texts in axes.values())):
        at = dict(zip(axes, place, strict=True))
        chosen = (*fixed, *(f"{key}={axes[key][i]}" for key, i in at.items() if key not in values))
        if chosen not in composed:
            composed[chosen] = plain_config(loader.load_sweep_config(config, list(chosen)))
        changed = {key: values[key][i] for key, i in at.items() if key in values}
        scientific = {key: changed[key] if key in changed else axes[key][i] for key, i in at.items()}
        plain, label = with_values(composed[chosen], changed), cell_label(scientific)
        try:
            check_files(training(plain).task)
        except Refusal as error:
            refused.setdefault(str(error), []).append(label)
            continue
        overrides = tuple(o for o in chosen if o.partition("=")[0] not in intervals)
        cells.append(Cell(identity(plain, tuple(intervals)), label, scientific, plain, overrides, changed))
    if len(refused) == 1 and not cells:
        raise Refusal(next(iter(refused)))
    if refused:
        raise Refusal("; ".join(f"{', '.join(labels)}: {text}" for text, labels in refused.items()))
    return tuple(cells)

"""What is known about the user's own code that a config names. Finding it out runs this code, where it is trusted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lrscale.errors import Refusal
from lrscale.spec import is_own
from lrscale.study.config import GROUPS, make_training
from lrscale.study.plan import with_values
from lrscale.tasks.held import is_held, no_file
from lrscale.tasks.registry import NUMBER_BYTES, TASKS, check_runs, weight_bytes
from lrscale.tasks.source import trust, trust_nothing
from lrscale.training.device import chosen

TRIALS_TOGETHER = 4
"""About how many trials of a cell are trained together. The form of a task of the user's own is chosen for so many."""


def check_has_file(configs: Iterable[Mapping[str, Any]]) -> None:
    """Raises Refusal where the task of a config is an object of a program, which only that program can train."""
    for config in configs:
        if is_held(name := config["task"]["name"]):
            raise no_file(name)


MEASURED_AT = {"reduction": "mean", "batch_size": 1, "accumulation": 1, "seeds": 1, "schedule": None}
"""What does not matter to how an optimizer answers to gradients: it is measured once for all cells that differ in this alone."""


def trust_for(configs: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
    """Trusts the files that recorded configs run, where a user has named them.

    Args:
      configs: the configs.
      files: the files that the user trusts.

    Raises:
      Refusal: a config runs code in a file that was not named, or has another content; or its code is in no file.
    """
    check_has_file(configs)
    trust_nothing()
    hashes = {trust(file): file for file in files}
    for config in configs:
        for group in GROUPS:
            values = config.get(group)
            if isinstance(values, Mapping) and is_own(values.get("name")) and values.get("sha256") not in hashes:
                name, sha256 = str(values["name"]), str(values.get("sha256"))
                way_out = f"Read the file, and if you trust it take --trust {name.rpartition(':')[0]:.200}."
                if hashes:
                    others = ", ".join(f"{file} with {found:.12}" for found, file in hashes.items())
                    way_out = f"--trust named another file or content: {others}. Take the file as it was recorded."
                raise Refusal(
                    f"`{group}` {name:.200} is code of whoever recorded this study, with sha256 {sha256:.12}. {way_out}"
                )


def own_facts(config: Mapping[str, Any], trials: int = 1, device: str = "cpu") -> dict[str, Any]:
    """Returns what is known about the user's own code in a config, by dotted key; empty where there is none.

    For a task, this is also the form in which its gradients are computed: the fastest one of those that are tried. For an
    optimizer, it is also how its updates answer to larger gradients.

    Args:
      config: plain values, as Hydra composes them.
      trials: number of trials that are trained together, for the choice of the form.
      device: the device that is asked for, on which a task is tried; see `chosen`.

    Raises:
      Refusal: the code must not be run, or cannot be used; or a value of the config cannot be used; or the device is not there.
    """
    facts: dict[str, Any] = {}
    if is_own(config["task"]["name"]):
        from lrscale.tasks.own import checking_weights

        device = chosen(device, [config])
        with checking_weights(partial(_check_weights, config)) if device == "cpu" else nullcontext():
            facts |= TASKS.own.facts(config) if TASKS.own else {}
    for group, registry in GROUPS.items():
        values = config.get(group)
        if group != "task" and registry.own is not None and isinstance(values, Mapping) and is_own(values.get("name")):
            facts |= registry.own.facts(config)
    if "optimizer.way" in facts:
        like = {**with_values(config, facts), **MEASURED_AT}
        facts |= {f"optimizer.{key}": value for key, value in _response(json.dumps(like)).items()}
    if "task.form" in facts:
        like = with_values(config, {**facts, "reduction": "mean", "optimizer.lr": [1.0] * trials})
        facts["task.form"], facts["task.form_note"] = _form(json.dumps(like), device)
    return facts


def _check_weights(config: Mapping[str, Any], weights: int) -> None:
    """Raises Refusal where the runs of a trial do not fit in the memory, whatever the optimizer and the steps are."""
    seeds = config.get("seeds")
    count = len(seeds) if isinstance(seeds, list) else seeds if isinstance(seeds, int) else 1
    needed = weight_bytes(weights, NUMBER_BYTES.get(str(config.get("dtype")), 4))
    check_runs(config["task"]["name"], needed, count, f"{weights} weights")


@lru_cache(maxsize=256)
def _response(config: str) -> dict[str, Any]:
    """Returns the measured facts about the optimizer of a config, by their names."""
    from lrscale.tasks.registry import make_task
    from lrscale.training.engine import use_threads
    from lrscale.training.own_response import measured

    training = make_training(json.loads(config))
    use_threads(1)
    return measured(training, make_task(training))


@lru_cache(maxsize=256)
def _form(config: str, device: str) -> tuple[str, str]:
    """Returns the form that is fastest for a config, and why others cannot be taken. Reductions and lrs do not matter."""
    from lrscale.tasks.own import Task
    from lrscale.tasks.registry import make_task
    from lrscale.training.engine import use_threads, within_machine
    from lrscale.training.own_runs import choose_form

    training = make_training(json.loads(config))
    task = make_task(training)
    assert isinstance(task, Task)
    use_threads(1)
    return choose_form(within_machine(training, task, device), task, device)

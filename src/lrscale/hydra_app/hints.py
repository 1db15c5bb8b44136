"""Says what is wrong with a command line that Hydra did not take: the first wrong override, and the likely right one."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lrscale.errors import Refusal
from lrscale.hydra_app.names import GROUP_DEFAULTS, choices_of, config_files, groups, misnamed_sweep, sweep_name
from lrscale.rules import shown
from lrscale.spec import is_own
from lrscale.study.config import GROUPS

OTHER_NAMES = {
    "batch": "batch_size", "bs": "batch_size", "batchsize": "batch_size", "batch_sizes": "batch_size",
    "learning_rate": "optimizer.lr", "eta": "optimizer.lr", "lrs": "optimizer.lr", "wd": "optimizer.weight_decay",
    "beta": "optimizer.momentum", "opt": "optimizer", "optim": "optimizer", "optimiser": "optimizer", "scheduler": "schedule",
    "trials": "hydra.sweeper.n_trials", "jobs": "hydra.sweeper.n_jobs", "retries": "hydra.sweeper.n_retries",
    "timeout": "hydra.sweeper.job_timeout", "study_name": "hydra.sweeper.study_name", "seed": "seeds", "n_seeds": "seeds",
    "epoch": "budget.epochs", "n_epochs": "budget.epochs", "model": "task", "dataset": "task", "data": "task", "sweep": "sweeps",
    "launcher": "hydra/launcher", "grad_accum": "accumulation", "verbose": "hydra.verbose", "loss": "objective",
    "metric": "objective", "precision": "dtype", "storage": "hydra.sweeper.storage", "uri": "tracking.uri",
}  # fmt: skip
"""The key that people mean by names of other programs."""
OF_HYDRA = ("hydra.verbose", "hydra.mode", "hydra.run.dir", "hydra.sweep.dir", "hydra.job.chdir", "hydra.output_subdir")
FLAGS_WITH_VALUE = ("-cn", "--config-name", "-cp", "--config-path", "-cd", "--config-dir", "-p", "--package", "-c", "--cfg")
TEXTS = ("question", "law", "study_name", "uri", "storage", "experiment", "dir")
"""Keys whose values are texts, which may need quotes."""
MULTIRUN = ("-m", "--multirun")
_ONE_CONFIG = "lrscale has one config. Write a sweep file, sweeps/NAME.yaml, and take sweeps=NAME"
_OWN_SCRIPT = 'it completes commands of one word only. Take eval "$(lrscale completion bash)"'
NOT_HERE = {
    **dict.fromkeys(("--config-name", "-cn", "--config-path", "-cp"), _ONE_CONFIG),
    **dict.fromkeys(("--shell-completion", "-sc"), _OWN_SCRIPT),
    "--experimental-rerun": "a run is repeated by its command, and a published study by lrscale reproduce",
}
"""Flags of Hydra that lrscale run does not take, each with the reason and the way out."""
_INFO = ("--info", "-i")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Returns a command line with its flags before its overrides. Hydra's parser takes no override after a later flag.

    Example:
      >>> flags_first(["batch_size=8,16", "-m", "seeds=2"])
      ['-m', 'batch_size=8,16', 'seeds=2']
    """
    arguments = [
        "--info=all" if a in _INFO and (i + 1 == len(arguments) or "=" in arguments[i + 1]) else a
        for i, a in enumerate(arguments)
    ]
    is_flag = [a.startswith("-") or (i > 0 and arguments[i - 1] in FLAGS_WITH_VALUE) for i, a in enumerate(arguments)]
    pairs = list(zip(arguments, is_flag, strict=True))
    return [*(a for a, flag in pairs if flag), *(a for a, flag in pairs if not flag)]


def check_flags(arguments: Sequence[str]) -> None:
    """Raises Refusal for a flag that Hydra does not know, as in `--lr 0.1`, and for one of `NOT_HERE`."""
    flags = [flag for action in get_args_parser()._actions for flag in action.option_strings]
    for index, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in NOT_HERE:
            raise Refusal(f"`{flag}` cannot be used here: {NOT_HERE[flag]}.")
        if not re.match("--?[A-Za-z]", flag) or any(known.startswith(flag) for known in flags if flag != "-"):
            continue
        if flag[:2] in flags and not flag.startswith("--"):  # such as -cjob, a flag with its value
            continue
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        value = value or ("" if re.match("--?[A-Za-z]", following) or "=" in following else following) or "VALUE"
        key = flag.lstrip("-").replace("-", "_")
        likely = f"Did you mean {meant}={value}? " if is_known(meant := _meant(key)) else ""
        raise Refusal(f"`{argument}` is no flag: values are set as key=value, without dashes. {likely}See lrscale run --help.")


def hint(arguments: Sequence[str], multirun: bool) -> str | None:
    """Returns what is wrong with the first override that cannot be used, and what would do; None where all look right."""
    parser = OverridesParser.create()
    for index, argument in enumerate(arguments):
        if argument.startswith("-") or (index and arguments[index - 1] in FLAGS_WITH_VALUE):
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException:
            return _on_syntax(list(arguments), index, parser)
        if text := _on_key(override, arguments) or _on_choice(override) or (None if multirun else _on_sweep(override, arguments)):
            return text
    return None


def _on_sweep(override: Override, arguments: Sequence[str]) -> str | None:
    """Returns what to say of several values in a single training."""
    if not override.is_sweep_override():
        return None
    command = shlex.join(["lrscale", "run", "-m", *(a for a in arguments if not a.startswith("-"))])
    return (
        f"`{override.key_or_group}` must have one value in a single training, got {_value(override):.60}. "
        f"A study (multirun) takes several: {command}"
    )


def _on_key(override: Override, arguments: Sequence[str]) -> str | None:
    """Returns what to say of a key that does not exist."""
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or is_known(key):
        return _on_option(key, arguments)
    if key.startswith("hydra.") and key.split(".")[1] != "sweeper" and not difflib.get_close_matches(key, OF_HYDRA, 1, 0.8):
        return None  # Hydra has many more
    likely = [name for name in nearest_keys(key) if "." in name or "." not in key]
    if not likely and (text := _on_option(key, arguments)):
        return text
    value = _value(override)
    means = [f"{name}={value}" if value else name for name in likely]
    meant = f"Did you mean {' or '.join(means)}? " if means else ""
    return f"Could not override '{key:.60}': there is no such key. {meant}lrscale run --help lists the keys."


def _value(override: Override) -> str:
    """Returns the value of an override as it was typed."""
    return str(override.input_line or "").partition("=")[2]


def _on_option(key: str, arguments: Sequence[str]) -> str | None:
    """Returns what to say of an option that the chosen optimizer, task, schedule or probe does not have."""
    group, _, option = key.partition(".")
    typed = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{group}=")]
    from_sweep = any(argument.startswith("sweeps=") for argument in arguments)
    choice = typed[-1] if typed else None if from_sweep else GROUP_DEFAULTS.get(group)
    if group not in GROUPS or not option or choice is None or not GROUPS[group].has_choice(choice) or is_own(choice):
        return None
    config = GROUPS[group].config(choice)[group]
    if option in config:
        return None
    having = [name for name in GROUPS[group].choices() if option in GROUPS[group].config(name)[group]]
    where = f" Known with it: {', '.join(f'{group}={name}' for name in having)}." if having else ""
    return (
        f"`{key}` is not an option of {group}={choice}, which has {', '.join(k for k in config if k != 'name') or 'none'}.{where}"
    )


def _on_choice(override: Override) -> str | None:
    """Returns what to say of a choice that a group does not have."""
    group = override.key_or_group
    if group not in groups():
        return None
    value: Any = override.value()
    names = [str(name) for name in (value.list if hasattr(value, "list") else [value]) if isinstance(name, str)]
    known = choices_of(group)
    for name in names:
        if name in known or is_own(name) or (group in GROUPS and name in GROUPS[group].refused) or len(name) > 200:
            continue
        if group == "sweeps" and (found := misnamed_sweep(name)):
            return f"There is no {group}/{name:.60}: {found}"
        if group in GROUPS and GROUPS[group].own is not None and (name.endswith(".py") or "/" in name):
            return f"There is no {group}/{name:.60}. Name the function in the file too, as in {group}={name:.60}:make."
        near = nearest(name, known)
        meant = f" Did you mean {group}={near[0]}?" if near else ""
        return f"There is no {group}/{name:.60}.{meant} Known: {', '.join(known)}."
    return None


def _on_syntax(arguments: list[str], index: int, parser: OverridesParser) -> str:
    """Returns what to say of an override that Hydra cannot read, with the corrected one where a correction can be read."""
    typed = arguments[index]
    if "=" not in typed and index and arguments[index - 1].endswith("="):  # lr= 0.1
        arguments = [*arguments[: index - 1], arguments[index - 1] + typed, *arguments[index + 1 :]]
        command = shlex.join(["lrscale", "run", *arguments])
        return f"An override has no spaces around `=`, got {shown(typed)} alone. Did you mean {command}?"
    way_out = "Write key=value, or key=a,b, or key='tag(log,interval(1e-4,1))'."
    for candidate, following in _candidates(typed, arguments[index + 1 : index + 3]):
        try:
            override = parser.parse_override(candidate)
        except HydraException:
            continue
        if _on_key(override, arguments) is None:
            others = [*arguments[:index], candidate, *arguments[index + 1 + following :]]
            is_study = candidate.startswith("sweeps=") or override.is_sweep_override() or any(flag in MULTIRUN for flag in others)
            flag = ["-m"] if is_study else []
            command = shlex.join(["lrscale", "run", *flag, *(other for other in others if other not in MULTIRUN)])
            way_out = f"Did you mean {command}?"
            break
    return f"Each argument must be key=value, got {shown(typed)}. {way_out}"


def _candidates(typed: str, following: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yields corrections of an override that cannot be read, each with the number of the next arguments that it takes in."""
    key, equals, value = (part.strip() for part in typed.partition("="))
    if not equals:
        key = key if ":" in key else _meant(key)
        if following and following[0].startswith("="):  # lr = 0.1, lr =0.1
            joined = following[0] if len(following[0]) > 1 else "".join(following)
            yield f"{key}{joined}", 1 if len(following[0]) > 1 else 2
        colon = re.fullmatch(r"([\w.]+):(.+)", key)
        if colon:
            yield f"{colon[1]}={colon[2]}", 0
        for group in ("sweeps", "optimizer", "task"):
            if key in choices_of(group):
                yield f"{group}={key}", 0
        if near := nearest(sweep_name(key), choices_of("sweeps")):
            yield f"sweeps={near[0]}", 0
        return
    key = _meant(key)
    numbers = re.findall(_NUMBER, value)
    if len(numbers) == 2 and re.search(r"[A-Za-z(\[:.]{2}|[(:]", re.sub(_NUMBER, "", value)):
        low, high = numbers
        yield f"{key}=tag(log,interval({low},{high}))", 0
    yield f"{key}={value.strip('=,; ')}", 0
    if numbers and re.fullmatch(rf"(?:{_NUMBER}[,;|/ ]+)+{_NUMBER}[,;|/ ]*", value):
        yield f"{key}={','.join(numbers)}", 0
    yield from ((f"{key}={value}{end}", 0) for end in ("]", ")", "}"))
    plain = value.strip("'\"")
    if plain and key.rpartition(".")[2] in TEXTS:
        yield f'{key}="{plain}"', 0


def _meant(key: str) -> str:
    """Returns the key that a typed one stands for; the typed one where none is near."""
    return key if is_known(key) else next(iter(nearest_keys(key)), key)


def is_known(key: str) -> bool:
    """Returns whether a key is a group, or one that can be set."""
    return key in groups() or key in known_keys(with_probes=key.startswith("probe."))


def known_keys(with_probes: bool = False) -> list[str]:
    """Returns the dotted keys that can be set, without those of Hydra itself.

    Args:
      with_probes: whether those of probes are among them. To know these, torch is imported, which takes seconds.
    """
    keys = [key for prefix, file in config_files() for key in _flat(prefix, OmegaConf.load(file))]
    declared = {group: known for group, known in GROUPS.items() if with_probes or group != "probe"}
    keys += [
        f"{group}.{o}" for group, known in declared.items() for name in known.names() for o in ("name", *known[name].options)
    ]
    return list(dict.fromkeys([*keys, *OF_HYDRA]))


def _flat(prefix: str, config: object) -> Iterator[str]:
    """Yields the dotted keys of a config and of its sections."""
    for key in config if isinstance(config, DictConfig) else ():
        name = f"{prefix}{key!s}"
        if key not in ("defaults", "hydra", "_target_"):
            yield name
            raw = config._get_node(key) if isinstance(config, DictConfig) else None
            yield from _flat(f"{name}.", raw)


def nearest_keys(key: str) -> list[str]:
    """Returns the keys that a key which does not exist may stand for, at most three."""
    last = key.lower().replace("-", "_").rpartition(".")[2]
    if last in OTHER_NAMES:
        return [OTHER_NAMES[last]]
    known = [*groups(), *known_keys(with_probes=key.startswith("probe."))]
    if same := [name for name in known if name.rpartition(".")[2] == last]:
        return difflib.get_close_matches(key, same, 3, 0) if "." in key else same[:3]
    lasts = nearest(last, [name.rpartition(".")[2] for name in known])
    return nearest(key, known) or [name for name in known if name.rpartition(".")[2] in lasts][:3]


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known name that a typed one resembles most, in a list; an empty list where none does.

    Example:
      >>> nearest("Adam", ["adam", "sgd"]), nearest("quikstart", ["quickstart"]), nearest("cifar", ["d2l"])
      (['adam'], ['quickstart'], [])
    """
    by_letters = {text.lower(): text for text in known}
    typed = name.lower().replace("-", "_")
    parts = [letters for letters in by_letters if len(typed) > 2 and typed in letters]  # mnist, of fashion_mnist
    return [by_letters[found] for found in (difflib.get_close_matches(typed, by_letters, 1, 0.65) or parts)[:1]]

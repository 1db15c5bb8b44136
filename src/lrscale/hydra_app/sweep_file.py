"""Checks sweep files. A stranger may have written one, so it can hold values, but cannot run code or choose where files go."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lrscale.errors import Refusal
from lrscale.files import home
from lrscale.study.config import KEYS, MOVED

CHOSEN_BY_NAME = ("task", "optimizer", "schedule", "budget", "probe")
SECTIONS = ("defaults", "study", "compute", "hydra")
SWEEPER = ("sampler", "study_name", "n_trials", "max_failure_rate", "companions", "widen", "profile", "params")
NAME = r"(?:[\w-]+|[\w./-]+:\w+)"
CHOICE = re.compile(NAME)
CHOICES = re.compile(rf"(?:choice\()?\s*{NAME}(?:\s*,\s*{NAME})*\s*\)?|")
SWEEP = r"\s*(?:tag|choice|range|interval)\("
DOTTED_KEY = re.compile(r"\w+(\.\w+)*")
MOST_VALUES = 20_000
"""The largest number of values and keys in a sweep file."""
WAY_OUT = "A sweep file can hold values only. Put other settings on the command line."


def sweep_text(path: str, file: Path) -> str:
    """Returns the text of a sweep file.

    Args:
      path: the name of the file, as it is typed.
      file: the file.

    Raises:
      Refusal: the file cannot be read, is not in UTF-8, or holds nothing.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Refusal(f"{path}: must be a file that can be read, got {file}: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text, line = "\0", content[: error.start].count(b"\n") + 1
        kind = f"bytes of another encoding in line {line}"
    if "\0" in text:
        kind = "NUL bytes, as UTF-16 has them" if b"\0" in content else kind
        raise Refusal(f"{path}: must be a text in UTF-8, got {kind}. Save it as UTF-8.")
    if all(line.strip() in ("", "---") or line.lstrip().startswith("#") for line in text.splitlines()):
        raise Refusal(
            f"{path}: must say what to sweep, got an empty file. Begin with a copy of {home() / 'sweeps/quickstart.yaml'}."
        )
    return text


def yaml_trouble(error: Exception, text: str) -> str:
    """Returns what is wrong in a sweep file, and in which line, in one line of text."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if "\t" in line[: mark.column + 1]:
        return f"a tab in line {mark.line + 1}: indent with spaces"
    problem = getattr(error, "problem", None) or "a mistake"
    return f"{problem.removeprefix('found ')} in line {mark.line + 1}"


def check_size(path: str, text: str) -> None:
    """Raises Refusal where a file holds too many values, counted with all that its YAML aliases repeat.

    It is called before anything is made of the values: nine lines of aliases can stand for a billion values.

    Args:
      path: the name of the file.
      text: its text.
    """
    import yaml

    sizes: dict[int, float] = {}

    def size(node: yaml.Node | None) -> float:
        if node is None or id(node) in sizes:
            return sizes.get(id(node), 0)
        sizes[id(node)] = math.inf  # a value that holds itself has no end
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(map(size, inner)))
        return sizes[id(node)]

    count = size(yaml.compose(text, Loader=yaml.SafeLoader))
    if count > MOST_VALUES:
        _refuse(path, f"must hold at most {MOST_VALUES} values, with those that aliases repeat", f"{count:.3g}")


def check_sweep(path: str, content: Any, package: str | None) -> None:
    """Checks a sweep file before Hydra uses it.

    Args:
      path: the name of the file.
      content: its content, with unresolved interpolations.
      package: the package in its header, which is the place of the content in the config.

    Raises:
      Refusal: the file has a key or a value that a sweep file must not have.
    """
    if package not in ("_global_", None):
        _refuse(path, "must have the header `# @package _global_`", package)
    if not isinstance(content, Mapping):
        _refuse(path, "must be a mapping, as `batch_size: 8` is", content)
    _check_values(path, "", content)
    _check_known(path, "", content, (*KEYS, *SECTIONS))
    for key in (key for key in KEYS if key in content):
        _check_fixed(path, key, content[key])
    if "seeds" in content:  # a study has `params.seeds: 8` from conf/, which would win without a word
        _refuse(path, "`seeds` must stand in `hydra.sweeper.params`", content["seeds"])
    for key in CHOSEN_BY_NAME:
        if isinstance(content.get(key), str):
            _refuse(path, f"`{key}` is chosen in `defaults`, as in `- override /{key}: {content[key]}`", content[key])
    for key in (*CHOSEN_BY_NAME, "study", "compute"):
        _mapping(path, key, content.get(key))
    for line in _list(path, "defaults", content.get("defaults")):
        _check_default(path, line)
    hydra = _mapping(path, "hydra", content.get("hydra"))
    _check_known(path, "hydra.", hydra, ("mode", "sweeper"))
    if hydra.get("mode", "MULTIRUN") not in ("MULTIRUN", "RUN"):
        _refuse(path, "`hydra.mode` must be MULTIRUN or RUN", hydra["mode"])
    sweeper = _mapping(path, "hydra.sweeper", hydra.get("sweeper"))
    _check_known(path, "hydra.sweeper.", sweeper, SWEEPER)
    for key, value in _mapping(path, "hydra.sweeper.params", sweeper.get("params")).items():
        _check_param(path, key, value)


def _check_default(path: str, line: Any) -> None:
    """Refuses a line of `defaults` that does anything else than choose a name in a group."""
    if line == "_self_":
        return
    groups = {f"override /{group}" for group in CHOSEN_BY_NAME}
    if not isinstance(line, Mapping) or not all(k in groups and CHOICE.fullmatch(str(v)) for k, v in line.items()):
        _refuse(path, f"`defaults` must choose by name in {', '.join(CHOSEN_BY_NAME)}, as in `override /task: d2l`", line)


def _check_fixed(path: str, key: str, value: Any) -> None:
    """Refuses a value outside `params` that is written as several, such as `8,16` or an interval."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            _check_fixed(path, f"{key}.{inner}", part)
    elif isinstance(value, str) and (re.match(SWEEP, value) or ("," in value and not key.startswith("task."))):
        way_out = f"To sweep it, write `{key}: {value:.60}` in hydra.sweeper.params."
        _refuse(path, f"`{key}` must have one value outside hydra.sweeper.params", value, way_out)


def _check_param(path: str, key: Any, value: Any) -> None:
    """Refuses a param that is not a key of a training, or that chooses anything else than a name in a group."""
    if key in MOVED or key in MOVED.values():
        _refuse(path, f"`{key}` must stand in a section `compute:` of the file, with one value", value)
    if not DOTTED_KEY.fullmatch(key) or key.partition(".")[0] not in KEYS:
        _refuse(path, f"`hydra.sweeper.params` must have keys that begin with one of {', '.join(KEYS)}", key, _meant(key, KEYS))
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}.{name}: {part!s:.40}" for name, part in value.items())
        _refuse(path, f"`hydra.sweeper.params.{key}` must be a value or values", value, f"Write {inner}.")
    names = value if isinstance(value, list) else [value]
    if key in CHOSEN_BY_NAME and not all(CHOICES.fullmatch(str(name)) for name in names):
        _refuse(path, f"`hydra.sweeper.params.{key}` must be a name or names", value)


def _check_values(path: str, where: str, value: Any) -> None:
    """Refuses nested values that are not plain: keys with a meaning for Hydra, interpolations, and control characters."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key.startswith("_") or not key.isprintable() or "${" in key:
                _refuse(path, f"{f'`{where}`' if where else 'the file'} must have plain names as keys", key)
            _check_values(path, f"{where}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        for inner in value:
            _check_values(path, where, inner)
    elif isinstance(value, str):
        if "${" in value or not value.isprintable():
            _refuse(path, f"`{where}` must be printable and must have no interpolation", value)
    elif not isinstance(value, bool | int | float | None):
        _refuse(path, f"`{where}` must be a text, a number or a list of them", value)


def _check_known(path: str, prefix: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuses a key that is not known."""
    for key in values:
        if not prefix and key in MOVED:
            _refuse(path, f"`{key}` must stand in a section `compute:` of the file", values[key])
        if key not in known:
            likely = (_meant(key, known) or _meant(key, SWEEPER, "hydra.sweeper.")) if not prefix else _meant(key, known, prefix)
            _refuse(path, f"`{prefix}{key}` is not known here. Known: {', '.join(known)}", values[key], likely)


def _meant(key: str, known: Sequence[str], prefix: str = "") -> str:
    """Returns a question that names the known key which a typed one resembles most; empty where none does."""
    near = difflib.get_close_matches(key, known, 1, 0.65)
    return f"Did you mean {prefix}{near[0]}? " if near else ""


def _mapping(path: str, where: str, value: Any) -> Mapping[str, Any]:
    """Returns a value that must be a mapping; an empty one where the value is None."""
    if value is not None and not isinstance(value, Mapping):
        _refuse(path, f"`{where}` must be a mapping", value)
    return value or {}


def _list(path: str, where: str, value: Any) -> list[Any]:
    """Returns a value that must be a list; an empty one where the value is None."""
    if value is not None and not isinstance(value, list):
        _refuse(path, f"`{where}` must be a list", value)
    return value or []


def _refuse(path: str, rule: str, got: Any, likely: str = "") -> NoReturn:
    raise Refusal(f"{path}: {rule}, got {got!r:.80}. {likely or WAY_OUT}".rstrip())

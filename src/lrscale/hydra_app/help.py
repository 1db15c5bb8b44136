"""The text of `lrscale run --help`: Hydra's list of the groups and of the composed values, with a comment beside each value."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from lrscale.hydra_app.names import GROUP_DEFAULTS, choices_of, config_files
from lrscale.spec import is_own
from lrscale.study.config import GROUPS
from lrscale.tasks.source import read_source

COLUMN = 26
"""The column at which comments begin, counted from 0."""
_SWEEPER = "hydra.sweeper."


def annotated(text: str, arguments: Sequence[str]) -> Iterator[str]:
    """Yields the lines of Hydra's help, with comments, the sweeper's settings and what the chosen members are.

    Args:
      text: what Hydra printed.
      arguments: the command line; its choices are explained.
    """
    comments = {key: about for key, _, about in _documented()} | _about_options(arguments)
    path: list[str] = []
    in_values = False
    for line in text.rstrip().splitlines():
        if line.strip() == "Examples":
            yield from _of_studies()
        in_values = in_values or line.startswith("Set any value")
        entry = re.fullmatch(r"( *)(\w+):(?: .*)?", line) if in_values else None
        if entry is None:
            yield line
            continue
        path = [*path[: len(entry[1]) // 2], entry[2]]
        yield from beside(line, comments.get(".".join(path), ""))
    yield ""
    for group, choice in _chosen(arguments).items():
        source = read_source(group, choice) if is_own(choice) else None
        yield f"{group}={choice}: {source.about if source else GROUPS[group][GROUPS[group].config(choice)[group]['name']].about}"
        if source:
            yield from (f"  {group}.{key}={value}" for key, value in source.defaults.items())
    yield "Choose another member, as in lrscale run optimizer=adam --help, to see its options."


def beside(line: str, comment: str) -> Iterator[str]:
    """Yields a line with a comment to its right, wrapped to the width of the terminal."""
    width = max(shutil.get_terminal_size().columns - COLUMN - 3, 30)
    parts = textwrap.wrap(comment, width, break_long_words=False)
    if not parts or len(line) > COLUMN - 2:
        yield line
    else:
        yield f"{line:{COLUMN}}# {parts.pop(0)}"
    yield from (f"{'':{COLUMN}}# {part}" for part in parts)


def _of_studies() -> Iterator[str]:
    """Yields the settings of a study, and the sweep files."""
    yield "Settings of a study (-m), as in hydra.sweeper.n_trials=32:"
    yield ""
    for key, value, about in _documented():
        if key.startswith(_SWEEPER) and "_target_" not in key:
            yield from beside(f"{key.removeprefix(_SWEEPER)}: {value}".rstrip(), about)
    yield ""
    yield from textwrap.wrap(f"sweeps: {', '.join(choices_of('sweeps'))}", max(shutil.get_terminal_size().columns - 1, 40))
    yield ""


def _documented() -> Iterator[tuple[str, str, str]]:
    """Yields each key of the config files with its value and its comment."""
    for prefix, file in config_files():
        path: list[str] = []
        entry: tuple[str, str, str] | None = None
        for line in file.read_text(encoding="utf-8").splitlines():
            if (more := re.fullmatch(r" {12,}# ?(.*)", line)) and entry:
                entry = (*entry[:2], f"{entry[2]} {more[1]}")
                continue
            if entry:
                yield entry
            found = re.fullmatch(r"( *)(\w+):\s*([^#]*?)\s*(?:# (.*))?", line)
            entry = None
            if found:
                path = [*path[: len(found[1]) // 2], found[2]]
                entry = (prefix + ".".join(path), found[3], found[4] or "")
        if entry:
            yield entry


def _chosen(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the members that a command line chooses in the groups that are declared beside their code."""
    chosen = GROUP_DEFAULTS | {a.partition("=")[0]: a.partition("=")[2] for a in arguments if a.partition("=")[0] in GROUPS}
    return {group: choice for group, choice in chosen.items() if GROUPS[group].has_choice(choice)}


def _about_options(arguments: Sequence[str]) -> dict[str, str]:
    """Returns what each option of the chosen members is, and its rule, by dotted key."""
    about = {}
    for group, choice in _chosen(arguments).items():
        if not is_own(choice):
            declaration = GROUPS[group][GROUPS[group].config(choice)[group]["name"]]
            for key, option in declaration.options.items():
                about[f"{group}.{key}"] = "; ".join(filter(None, (option.about, option.rule.text.removeprefix("must be "))))
    return about

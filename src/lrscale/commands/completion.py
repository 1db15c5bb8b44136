"""`lrscale completion`: prints a script that completes commands, options and the words of `lrscale run` with the Tab key."""

import argparse

from lrscale.commands import Command

HOW = {
    "bash": 'eval "$(lrscale completion bash)"',
}
"""The shells, each with the line for its start-up file."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(HOW), help=f"the shell; write to its start-up file: {HOW['bash']}")


def _run(options: argparse.Namespace) -> None:
    print(script(options.shell))


def script(shell: str) -> str:
    """Returns the script of a shell. Pressing Tab runs no Python: the script holds all words as they are now."""
    from lrscale.commands.cli import make_parser
    from lrscale.hydra_app.names import choices_of, groups
    from lrscale.study.config import FIELDS

    parser = make_parser()
    commands = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    lines = []
    for name, command in commands.items():
        words = [option for action in command._actions for option in action.option_strings]
        words += [str(choice) for action in command._actions if not action.option_strings for choice in action.choices or ()]
        if name == "run":
            words = ["-m", "--help", *(f"{group}={choice}" for group in groups() for choice in choices_of(group))]
            words += [f"{key}=" for key in (*FIELDS, "reduction", "seeds", "optimizer.lr", "hydra.sweeper.n_trials")]
        lines.append(f"    {name}) words='{' '.join(words)}' ;;")
    return TEMPLATES[shell].replace("COMMANDS", " ".join(commands)).replace("CASES", "\n".join(lines))


TEMPLATES = {
    "bash": """\
_lrscale() {
  local line="${COMP_LINE:0:$COMP_POINT}" words='COMMANDS' current
  current="${line##* }"
  set -- $line
  if [ $# -gt 2 ] || { [ $# -eq 2 ] && [ -z "$current" ]; }; then
    case "$2" in
CASES
    *) words='' ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ ${#COMPREPLY[@]} -eq 1 ] && [[ "${COMPREPLY[0]}" != *= ]]; then COMPREPLY[0]+=" "; fi
  case "$current" in *=*) COMPREPLY=("${COMPREPLY[@]#"${current%=*}="}") ;; esac  # bash completes what follows a =
}
complete -o nospace -o default -F _lrscale lrscale"""
}
"""The script of each shell, without its words."""

COMMAND = Command(13, 'print a script for the Tab key, as in: eval "$(lrscale completion bash)"', _add, _run)

"""`lrscale completion`: prints a script that completes commands, options and the words of `lrscale run` with the Tab key."""

import argparse

from lrscale.commands import Command

HOW = {
    "bash": 'eval "$(lrscale completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(lrscale completion zsh)" in ~/.zshrc, below compinit',
    "fish": "lrscale completion fish | source, in ~/.config/fish/config.fish",
}
"""The shells, each with the line for its start-up file."""
OF_STUDIES = ("report", "ui", "status", "publish", "reproduce")
"""The commands that take the name of a study."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=list(HOW), help=f"the shell. Write {'; '.join(HOW.values())}")


def _run(options: argparse.Namespace) -> None:
    print(script(options.shell))


def script(shell: str) -> str:
    """Returns the script of a shell. Pressing Tab runs no Python: the script holds all words as they are now."""
    from lrscale.commands.cli import make_parser
    from lrscale.hydra_app.hints import known_keys
    from lrscale.hydra_app.names import choices_of, groups
    from lrscale.training.reduction import REDUCTIONS

    parser = make_parser()
    commands = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    lines = []
    for name, command in commands.items():
        words = [option for action in command._actions for option in action.option_strings]
        words += [str(choice) for action in command._actions if not action.option_strings for choice in action.choices or ()]
        if name == "run":
            words = ["-m", "--help", *(f"{group}={choice}" for group in groups() for choice in choices_of(group))]
            words += [f"{key}=" for key in known_keys() if key not in groups() and not key.endswith(".name")]
            words += [f"reduction={reduction}" for reduction in REDUCTIONS]
        if name in OF_STUDIES:
            words += choices_of("sweeps")
        lines.append(ONE_COMMAND[shell].format(name=name, words=" ".join(words)))
    return TEMPLATES[shell].replace("COMMANDS", " ".join(commands)).replace("CASES", "\n".join(lines))


ONE_COMMAND = {
    "bash": "    {name}) words='{words}' ;;",
    "zsh": "    {name}) all=({words}) ;;",
    "fish": "complete -c lrscale -n '__fish_seen_subcommand_from {name}' -a '{words}'",
}
"""What a script says of each command."""
TEMPLATES = {
    "fish": """\
complete -c lrscale -f
complete -c lrscale -n __fish_use_subcommand -a 'COMMANDS'
CASES""",
    "zsh": """\
_lrscale() {
  local -a all
  if (( CURRENT == 2 )); then
    all=(COMMANDS)
  else
    case $words[2] in
CASES
    esac
  fi
  compadd -S '' -- $all
}
compdef _lrscale lrscale""",
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
complete -o nospace -o default -F _lrscale lrscale""",
}
"""The script of each shell, without its words."""

COMMAND = Command(13, 'print a script for the Tab key, as in: eval "$(lrscale completion bash)"', _add, _run)

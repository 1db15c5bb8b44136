"""`lrscale new-task`: writes a task of the user's own to start from, as a Python file that runs as it is."""

import argparse
from pathlib import Path

from lrscale.commands import Command

NEXT = "lrscale run -m task={}.py:make reduction=mean,sum batch_size=8,64 seeds=4 'optimizer.lr=tag(log,interval(1e-3,10))'"
"""The command to try next, for the name of a task."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the task: NAME.py is written to the working folder")


def _run(options: argparse.Namespace) -> None:
    from lrscale.files import write_whole

    file = checked(options.name)
    template = Path(__file__).with_name("new_task.txt").read_text("utf-8")
    write_whole(file, template.replace("COMMAND", NEXT.format(options.name)))
    print(f"written  {file}\nnext     {NEXT.format(options.name)}")


def checked(name: str) -> Path:
    """Returns the file of a new task.

    Args:
      name: its name.

    Raises:
      Refusal: Python cannot import such a name, or it is taken.
    """
    from importlib.util import find_spec
    from keyword import iskeyword

    from lrscale.errors import Refusal

    if not name.isidentifier() or iskeyword(name) or name.startswith("__"):
        raise Refusal(f"`NAME` must be a name as of a variable in Python, got {name!r:.60}. Take letters, digits and _.")
    file = Path(f"{name}.py")
    if file.exists() or file.is_symlink():
        raise Refusal(f"`NAME` must be of a file that is not there, got {file}. Take another name, or move the file away.")
    if find_spec(name) is not None:
        raise Refusal(f"`NAME` must not be that of a module that is installed, got {name}. Take another name.")
    return file


COMMAND = Command(11, "write a task of your own to start from: a model, a loss and data", _add, _run)

"""Files and folders: write checks, whole-file replacement, safe names, and the folder that holds conf/ and sweeps/."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lrscale.errors import printable
from lrscale.system import cases_differ, replace

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.I)
"""Names of devices on Windows, with any suffix."""

_start: Path | None = None
"""The folder that relative paths begin in, where it is not the working folder."""


def from_start(path: str | Path) -> Path:
    """Returns a path that is relative to the folder in which the command was typed, also where a job has a folder of its own."""
    return (_start or Path()) / path


@contextmanager
def start_in(folder: Path) -> Iterator[None]:
    """Makes `from_start` give paths in a folder, while the context lasts."""
    global _start
    before, _start = _start, folder
    try:
        yield
    finally:
        _start = before


def can_write(folder: Path) -> bool:
    """Returns whether a file can be created in a folder. A full disk counts as writable.

    The mode of a folder does not tell this reliably. So this function creates a temporary file and removes it.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replaces a folder as a whole: after a kill, its old files or the new ones are there, complete; see `restore_folders`.

    Args:
      folder: the folder; its parent exists.
      contents: the content of each file, by its name.
    """
    new, old = (folder.with_name(f".{folder.name}.{mark}") for mark in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name, content in contents.items():
        (new / name).write_bytes(content)
    if folder.exists():
        replace(folder, old)
    replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Puts back the folders that a kill of `write_folder` has left between two names, and removes what else it has left."""
    for left in (
        path for mark in ("new", "old") for path in parent.glob(f".*.{mark}") if path.is_dir() and not path.is_symlink()
    ):
        folder = left.with_name(left.name[1:].rpartition(".")[0])
        with suppress(OSError):  # a folder that cannot be written is left as it is
            if left.suffix == ".old" and not folder.exists():
                replace(left, folder)
            else:
                shutil.rmtree(left)


def write_whole(file: Path, content: str | bytes) -> None:
    """Replaces a file as a whole: after a kill, the old file or the new one is there, complete.

    A symbolic link is replaced; its target is not changed.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class where the message is empty.

    SQLAlchemy may put a line before it that only says when the error came.
    """
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    lines = lines or [type(error).__name__]
    return printable(lines[0])[:300].rstrip(".")


def safe_name(name: str) -> str:
    """Returns a safe file name for any study's name. Different names give different results.

    Windows reserves some names. It and macOS take names for the same that differ only in capital letters.

    Example:
      >>> safe_name("quickstart"), safe_name("../quick start")
      ('quickstart', '_quick_start-5c446f')
    """
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".")[:80]
    safe = f"_{safe}" if _RESERVED.match(safe) else safe
    is_kept = safe and safe == name and not safe.endswith(".") and (cases_differ() or safe == safe.lower())
    return safe if is_kept else f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def home() -> Path:
    """Returns the folder that holds conf/ and sweeps/: the package of a normal install, the repository of an editable one."""
    package = Path(__file__).parent
    return package if (package / "conf").is_dir() else package.parents[1]


def as_yaml(config: Mapping[str, object]) -> str:
    """Returns a config as YAML. The config has plain values and at most two levels."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {json.dumps(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines)

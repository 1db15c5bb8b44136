"""Files and folders: what can be written, writing in one move, safe names, and where conf/ and sweeps/ are."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lrscale.errors import printable


def can_write(folder: Path) -> bool:
    """Returns whether a file can be created in a folder. It tries, as the folder's mode does not tell; no file is left."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC


def write_whole(file: Path, content: str | bytes) -> None:
    """Replaces a file in one step: a kill leaves the old file or the new one. A symbolic link is replaced, not followed."""
    written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        written.write_bytes(content if isinstance(content, bytes) else content.encode())
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:300].rstrip(".")


def safe_name(name: str) -> str:
    """Returns a name for a file or folder that is safe for any study's name; different names give different results.

    Example:
      >>> safe_name("quickstart"), safe_name("../quick start")
      ('quickstart', '_quick_start-5c446f')
    """
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name).lstrip(".")[:80]
    return safe if safe and safe == name else f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:6]}"


def home() -> Path:
    """Returns the folder that holds conf/ and sweeps/: the package if it was installed, the repository if it is edited."""
    package = Path(__file__).parent
    return package if (package / "conf").is_dir() else package.parents[1]


def as_yaml(config: Mapping[str, object]) -> str:
    """Returns a config of plain values, two levels deep, as YAML."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {name}: {json.dumps(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines)
